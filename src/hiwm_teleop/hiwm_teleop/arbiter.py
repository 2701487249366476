"""The arbiter: decides who drives, and sees to it that the follower's command never jumps.

ROS-free core. One table says which driver follows which (:data:`TRANSITIONS`); one tick function turns the newest
leader sample, policy chunk and rig state into one command. All times are integer nanoseconds of one clock, all
positions are in the rig file's joint order, rad (revolute) or m (prismatic).

Invariant, in every state and through every transition: between two commands of one anchor,
``|command(t) - command(t-1)| <= max_velocity * dt``. A rollback, a branch or a reset is a teleport of the rig: the
command is dropped and starts again (a new *anchor*) from the first follower state stamped at or after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from hiwm_rig.codecs import NS_PER_S, Chunk
from hiwm_rig.commands import Reason, interpolate, limit_velocity, validate_positions
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, FloatArray


class Event(StrEnum):
    """What can change the driver."""

    REQUEST_POLICY = "request policy"
    REQUEST_HUMAN = "request human"
    REQUEST_PAUSE = "request pause"
    ALIGNED = "leader aligned"
    LEADER_STALE = "leader stale"
    RIG_FAULT = "rig fault"
    TELEPORT = "rig teleported"
    EPISODE_BEGIN = "episode begins"
    EPISODE_END = "episode ends"


_P, _A, _H, _X = Driver.POLICY, Driver.ALIGNING, Driver.HUMAN, Driver.PAUSED

#: The whole state machine. A pair that is not in here leaves the driver as it is and is counted nowhere:
#: "leader aligned" can only happen while aligning, "leader stale" only matters to who follows the leader.
#: A stale policy or rig is not a transition: the command is held, and goes on when the source is fresh again.
#: A stale leader is one: a person has let go, and must ask again before the follower obeys the leader again.
#: So is a fault that the rig reports: the arm may have been moved by hand when it obeys again. While a fault stands,
#: nobody who needs the arm that has it is granted (:meth:`Arbiter.request`).
TRANSITIONS: Mapping[tuple[Driver, Event], Driver] = MappingProxyType(
    {
        **{(d, Event.REQUEST_POLICY): _P for d in Driver},
        **{(d, Event.REQUEST_PAUSE): _X for d in Driver},
        **{(d, Event.RIG_FAULT): _X for d in Driver},
        **{(d, Event.EPISODE_BEGIN): _P for d in Driver},
        **{(d, Event.EPISODE_END): _X for d in Driver},
        (_P, Event.REQUEST_HUMAN): _A,
        (_P, Event.TELEPORT): _P,
        (_A, Event.REQUEST_HUMAN): _A,
        (_A, Event.ALIGNED): _H,
        (_A, Event.LEADER_STALE): _X,
        (_A, Event.TELEPORT): _A,
        (_H, Event.REQUEST_HUMAN): _H,
        (_H, Event.LEADER_STALE): _X,
        (_H, Event.TELEPORT): _A,
        (_X, Event.REQUEST_HUMAN): _A,
        (_X, Event.TELEPORT): _X,
    }
)

REQUESTS: Mapping[Driver, Event] = MappingProxyType(
    {
        Driver.POLICY: Event.REQUEST_POLICY,
        Driver.HUMAN: Event.REQUEST_HUMAN,
        Driver.PAUSED: Event.REQUEST_PAUSE,
    }
)


class Alignment(StrEnum):
    """How a leader that is elsewhere than the follower takes over."""

    RAMP = "ramp"  # the command ramps to the leader, then follows it
    CLUTCH = "clutch"  # the leader's motion since the takeover is added to the command: nothing to align


@dataclass(frozen=True)
class ArbiterSettings:
    """What the rig file does not say.

    Attributes:
        alignment: see :class:`Alignment`.
        align_speed: fraction of the velocity limit while ramping to the leader, 0..1.
        align_tolerance: largest |leader - command| at which the leader counts as aligned, as a fraction of each
            joint's range.
        jump_factor: a follower state that moved further than this many velocity limits since the last one is a
            teleport (a reset), not a motion.
    """

    alignment: Alignment = Alignment.RAMP
    align_speed: float = 0.5
    align_tolerance: float = 0.01
    jump_factor: float = 1.5


@dataclass(frozen=True)
class Decision:
    """What one tick decided.

    Attributes:
        driver: who drives after this tick.
        reason: what caused the last transition.
        command: (D,) joint targets to send, or None while there is no anchor (send nothing).
        policy_action: (D,) what the policy proposes for this tick, or None.
        mirror: (D,) where an actuated leader should be (it mirrors the follower while no person drives), or None.
        leader_fresh, policy_fresh, rig_fresh: whether each source is younger than its timeout.
        held: why the last command is held, "" if it is not.
    """

    driver: Driver
    reason: str
    command: FloatArray | None
    policy_action: FloatArray | None
    mirror: FloatArray | None
    leader_fresh: bool
    policy_fresh: bool
    rig_fresh: bool
    held: str


@dataclass
class _Sample:
    positions: FloatArray
    received_ns: int
    stamp_ns: int


class Arbiter:
    """The only source of follower commands.

    Feed it with ``on_*`` as samples arrive, call :meth:`tick` at a fixed rate. Samples that cannot be used raise
    nothing: they are dropped, their reason is counted in :attr:`rejections`, and the newest one is kept for people.
    """

    def __init__(self, rig: Rig, settings: ArbiterSettings | None = None, driver: Driver = Driver.POLICY) -> None:
        """Args: rig: the contract; settings: see :class:`ArbiterSettings`; driver: who drives first."""
        self.rig = rig
        self.settings = settings or ArbiterSettings()
        self.rejections: Counter[str] = Counter()
        self.last_rejection = ""
        self.driver = driver
        self.reason = "start"
        self.rig_fault = self.leader_fault = ""  # why nobody may drive, or no person, until it is over
        self._timeouts = rig.timeouts
        self._period_ns = round(rig.period_s * NS_PER_S)
        self._lower = np.array([j.lower for j in rig.joints])
        self._upper = np.array([j.upper for j in rig.joints])
        self._max_velocity = np.array([j.max_velocity for j in rig.joints])
        self._tolerance = self.settings.align_tolerance * (self._upper - self._lower)
        self._rig: _Sample | None = None
        self._leader: _Sample | None = None
        self._chunk: Chunk | None = None
        self._chunk_received_ns = 0
        self._command: FloatArray | None = None
        self._clutch = np.zeros(len(rig.joints))
        self._anchor_from_ns: int | None = None  # while waiting for a follower state of the new branch
        self._anchor_ns = 0  # chunks from before this belong to a state the rig is no longer in
        self._idle = False
        self._trouble = ""
        self._last_tick_ns: int | None = None

    # -- inputs -------------------------------------------------------------------------------------------------

    def on_rig(self, positions: FloatArray, stamp_ns: int, now_ns: int) -> bool:
        """Take a follower state, (D,). Returns whether it was used."""
        values = np.asarray(positions, dtype=np.float64)
        if values.shape != self._max_velocity.shape:
            return self.reject("rig", Reason.MALFORMED, f"shape {values.shape}")
        if not np.isfinite(values).all():
            return self.reject("rig", Reason.NOT_FINITE, f"{values.tolist()}")
        if self._anchor_from_ns is not None and stamp_ns < self._anchor_from_ns:
            return self.reject("rig", Reason.OLD, "stamped before the rollback")
        previous = self._rig if self._anchor_from_ns is None else None
        if previous is not None and stamp_ns <= previous.stamp_ns:
            if self._rig_fresh(now_ns):
                return self.reject("rig", Reason.OLD, "not newer than the last one")
            self.on_teleport(stamp_ns, "rig restarted")
        elif previous is not None and self._jumped(previous, values, stamp_ns):
            self.on_teleport(stamp_ns, "follower state jumped")
        self._rig = _Sample(values, now_ns, stamp_ns)
        self._anchor_from_ns = None
        if self._command is None and not self._idle and not self._trouble:
            # The anchor: from here on the command is continuous.
            self._command = self._clip(values)
        return True

    def on_leader(self, positions: FloatArray, stamp_ns: int, now_ns: int) -> bool:
        """Take a leader sample, (D,). Returns whether it was used."""
        values = np.asarray(positions, dtype=np.float64)
        if values.shape != self._max_velocity.shape:
            return self.reject("leader", Reason.MALFORMED, f"shape {values.shape}")
        wrong = validate_positions(values, self.rig.joints)
        if wrong is not None:
            return self.reject("leader", wrong.reason, wrong.message)
        if self._anchor_from_ns is not None and stamp_ns < self._anchor_from_ns:
            return self.reject("leader", Reason.OLD, "stamped before the rollback")
        self._leader = _Sample(values, now_ns, stamp_ns)
        return True

    def on_policy(self, chunk: Chunk, now_ns: int) -> bool:
        """Take an action chunk, stamped with the observation it was computed from. Returns whether it was used."""
        if chunk.positions.shape != (chunk.offsets_s.size, self._max_velocity.size) or chunk.offsets_s.size == 0:
            return self.reject("policy", Reason.MALFORMED, f"shape {chunk.positions.shape}")
        wrong = validate_positions(chunk.positions, self.rig.joints)
        if wrong is not None:
            return self.reject("policy", wrong.reason, wrong.message)
        if chunk.stamp_ns < (self._anchor_from_ns or self._anchor_ns):
            return self.reject("policy", Reason.OLD, "computed from an observation before the rollback")
        if self._chunk is not None and chunk.stamp_ns < self._chunk.stamp_ns:
            return self.reject("policy", Reason.OLD, "older than the chunk in use")
        self._chunk, self._chunk_received_ns = chunk, now_ns
        return True

    def reject(self, source: str, reason: Reason, text: str) -> bool:
        """Count a sample that cannot be used, with its reason (also for messages that do not decode)."""
        self.rejections[f"{reason.value}_{source}"] += 1
        self.last_rejection = f"{source}: {text}"
        return False

    def on_teleport(self, stamp_ns: int, why: str) -> None:
        """The rig went to another state (rollback, branch, reset): drop history, anchor anew from ``stamp_ns`` on."""
        self._command = None
        self._chunk = None
        self._leader = None
        self._anchor_from_ns = self._anchor_ns = stamp_ns
        self._apply(Event.TELEPORT, why)

    def on_trouble(self, trouble: str, fault: bool, stamp_ns: int) -> None:
        """The rig says why it does not obey; "" once it does again. Nothing is sent in between.

        Args:
            trouble: a sentence for people.
            fault: whoever drives is paused, and may ask again once it is over; otherwise the rig is only busy.
            stamp_ns: now. The command starts again from the first follower state after the trouble.
        """
        if trouble == self._trouble and fault == bool(self.rig_fault):
            return
        self._trouble, self.rig_fault = trouble, trouble if fault else ""
        self.on_teleport(stamp_ns, trouble or "the rig obeys again")
        if fault:
            self._apply(Event.RIG_FAULT, trouble)
            self.reason = trouble

    def on_leader_fault(self, fault: str) -> None:
        """The leader says what is wrong with it; "" once nothing is. In between nobody can follow it."""
        if fault and fault != self.leader_fault:
            self._apply(Event.LEADER_STALE, fault)
        self.leader_fault = fault

    def request(self, driver: Driver, why: str, now_ns: int) -> tuple[bool, str]:
        """Ask for a driver: POLICY, HUMAN (through ALIGNING) or PAUSED.

        Returns:
            Whether it was granted, and a sentence for the one who asked.
        """
        event = REQUESTS.get(driver)
        if event is None:
            return False, f"{driver.name} cannot be requested; ask for one of {[d.name for d in REQUESTS]}"
        if self.rig_fault and driver is not Driver.PAUSED:
            return False, f"the rig does not obey: {self.rig_fault}"
        if driver is Driver.HUMAN and self.leader_fault:
            return False, f"the leader cannot be followed: {self.leader_fault}"
        if driver is Driver.HUMAN and not self._leader_fresh(now_ns):
            return False, f"the leader is stale (no sample in {self._timeouts.leader_s} s): nothing to follow"
        self._idle = False
        self._apply(event, why or "request")
        return True, f"{self.driver.name} drives"

    def begin_episode(self, stamp_ns: int) -> None:
        """An episode begins: the rig may have been reset, the policy drives; not while the rig is at fault."""
        self._idle = False
        self.on_teleport(stamp_ns, "episode begins")
        if not self.rig_fault:
            self._apply(Event.EPISODE_BEGIN, "episode begins")

    def end_episode(self) -> None:
        """An episode ends: send nothing until the next one begins or a driver is asked for.

        The rig may be reset in between; a command held from before would drag it away from its new start.
        """
        self._idle = True
        self._command = None
        self._chunk = None
        self._apply(Event.EPISODE_END, "episode ends")

    # -- the tick -----------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Decision:
        """Decide this tick's command. Never blocks; call it at a fixed rate."""
        elapsed = self._period_ns if self._last_tick_ns is None else now_ns - self._last_tick_ns
        # A late tick may not buy a larger step than one control period's.
        dt = float(np.clip(elapsed, 0, self._period_ns)) / NS_PER_S
        self._last_tick_ns = now_ns
        leader_fresh, rig_fresh = self._leader_fresh(now_ns), self._rig_fresh(now_ns) and not self._trouble
        proposal = self._proposal(now_ns) if rig_fresh else None
        # Right after a teleport the leader's history was dropped: its next sample has the usual time to arrive.
        if not leader_fresh and now_ns - self._anchor_ns > self._timeouts.leader_s * NS_PER_S:
            self._apply(Event.LEADER_STALE, "leader stale")
        held = self._advance(dt, proposal, rig_fresh)
        mirror = self._command if self.driver in (Driver.POLICY, Driver.PAUSED) else None
        return Decision(
            driver=self.driver,
            reason=self.reason,
            command=None if self._command is None else self._command.copy(),
            policy_action=proposal,
            mirror=None if mirror is None else mirror.copy(),
            leader_fresh=leader_fresh,
            policy_fresh=proposal is not None,
            rig_fresh=rig_fresh,
            held=held,
        )

    def _advance(self, dt: float, proposal: FloatArray | None, rig_fresh: bool) -> str:
        """Move the command towards what the driver wants; returns why it is held instead, or ""."""
        if self._trouble:
            return self._trouble
        if self._command is None:
            return "no episode" if self._idle else "waiting for the follower's state"
        if not rig_fresh:
            return "rig stale"
        if self.driver is Driver.PAUSED:
            return "paused"
        if self.driver is Driver.POLICY:
            if proposal is None:
                return "policy stale"
            self._command = self._limited(proposal, dt)
            return ""
        return self._follow_leader(dt)

    def _follow_leader(self, dt: float) -> str:
        assert self._command is not None
        if self._leader is None:
            return "leader stale"
        target = self._clip(self._leader.positions + self._clutch)
        if self.driver is Driver.ALIGNING:
            self._command = self._limited(target, dt * self.settings.align_speed)
            if np.all(np.abs(target - self._command) <= self._tolerance):
                self._apply(Event.ALIGNED, self.reason)
            return ""
        self._command = self._limited(target, dt)
        return ""

    def _limited(self, target: FloatArray, dt: float) -> FloatArray:
        assert self._command is not None
        return self._clip(limit_velocity(self._command, target, self._max_velocity, dt))

    def _clip(self, positions: FloatArray) -> FloatArray:
        return np.clip(positions, self._lower, self._upper)

    # -- helpers ------------------------------------------------------------------------------------------------

    def _proposal(self, now_ns: int) -> FloatArray | None:
        """What the policy wants at the end of the rig's present control period, or None where it says nothing."""
        if self._chunk is None or self._rig is None:
            return None
        due_ns = self._rig.stamp_ns + self._period_ns
        span_ns = round(float(self._chunk.offsets_s[-1]) * NS_PER_S)
        # Past its last point a chunk says nothing; nor does one whose author has been silent for longer than it spans.
        silent = now_ns - self._chunk_received_ns > span_ns + self._timeouts.policy_s * NS_PER_S
        if due_ns > self._chunk.stamp_ns + span_ns or silent:
            return None
        return interpolate(self._chunk, due_ns)

    def _leader_fresh(self, now_ns: int) -> bool:
        if self._leader is None or self.leader_fault:
            return False
        return now_ns - self._leader.received_ns <= self._timeouts.leader_s * NS_PER_S

    def _rig_fresh(self, now_ns: int) -> bool:
        return self._rig is not None and now_ns - self._rig.received_ns <= self._timeouts.rig_s * NS_PER_S

    def _jumped(self, previous: _Sample, values: FloatArray, stamp_ns: int) -> bool:
        dt = max(stamp_ns - previous.stamp_ns, self._period_ns) / NS_PER_S
        reach = self.settings.jump_factor * self._max_velocity * dt
        return bool(np.any(np.abs(values - previous.positions) > reach))

    def _apply(self, event: Event, why: str) -> None:
        before = self.driver
        after = TRANSITIONS.get((before, event), before)
        if after is Driver.ALIGNING and before is not Driver.ALIGNING:
            self._grip()
        if after is not before:
            self.driver, self.reason = after, why

    def _grip(self) -> None:
        """A takeover begins: with a clutch, remember where the leader is relative to the command."""
        self._clutch = np.zeros(len(self.rig.joints))
        if self.settings.alignment is Alignment.CLUTCH and self._leader is not None and self._command is not None:
            self._clutch = self._command - self._leader.positions
