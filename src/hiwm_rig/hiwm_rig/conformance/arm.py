"""Moving one arm of a rig a little, and watching it. Messages to values; needs rclpy only through the user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hiwm_rig.codecs import NS_PER_S, Chunk, chunk_to_trajectory
from hiwm_rig.conformance.evidence import Array, State, Track, in_order, track_of
from hiwm_rig.conformance.registry import CannotMeasureError
from hiwm_rig.conformance.settings import Settings
from hiwm_rig.conformance.user import RigUser

_STATE_WAIT_S = 2.0
_WINDOW_S = 0.25
_WINDOW_SAMPLES = 4
_HOME_SPEED = 0.2
"""Share of the velocity limits at which an arm is brought back between checks."""
_REACH_SHARE, _STILL_SHARE = 0.3, 0.02
"""For a joint that is not revolute, as shares of its range: the length of a test motion, and what is standing still."""
_NUDGE = 0.5
"""Share of a test motion that shows whether an arm obeys."""
_MAX_SAMPLES = 400
_AFTER = 2
"""Joint states from after the end of a watch that show that the rig has got there."""


class ArmProbe:
    """One arm: its test joint, short motions around where it stood first, and what it did.

    Args:
        user: who commands and listens.
        index: which arm of the rig.
        settings: lengths and tolerances.

    Raises:
        CannotMeasureError: the arm shows no usable joint states, nobody listens to its commands, it does not
            obey them, or somebody else sends them.
    """

    def __init__(self, user: RigUser, index: int, settings: Settings) -> None:
        self.user = user
        self.index = index
        self.arm = user.rig.arms[index]
        self._settings = settings
        self.period_s = user.rig.period_s
        if user.foreign_commands[index]:
            raise CannotMeasureError(self.topic, "somebody else commands this arm, which is not moved then: stop them")
        if not user.spin_until(lambda: user.is_heard(index), _STATE_WAIT_S):
            raise CannotMeasureError(self.topic, "nobody subscribes to commands")
        lower = np.array([j.lower for j in self.arm.joints])
        upper = np.array([j.upper for j in self.arm.joints])
        revolute = np.array([j.type == "revolute" for j in self.arm.joints])
        self.still: Array = np.where(revolute, settings.still_rad, _STILL_SHARE * (upper - lower))
        self.base: Array = np.clip(self.position(), lower, upper)
        self.room: Array = np.minimum(self.base - lower, upper - self.base)
        lengths = np.where(revolute, settings.reach_rad, _REACH_SHARE * (upper - lower))
        self.joint = self._choose_joint(lengths)
        self.reach = float(min(lengths[self.joint], 0.5 * self.room[self.joint]))
        if self.reach <= 4 * self.still[self.joint]:
            name = self.arm.joints[self.joint].name
            raise CannotMeasureError(self.topic, f"joint '{name}' stands too near to its limits to be moved both ways")
        self._prove_obedience()

    @property
    def topic(self) -> str:
        """Topic of the arm's commands."""
        return self.arm.command

    def _choose_joint(self, lengths: Array) -> int:
        """The first revolute joint with room for twice the motion on both sides; else the one with most room."""
        for i, joint in enumerate(self.arm.joints):
            if joint.type == "revolute" and self.room[i] >= 2 * lengths[i]:
                return i
        return int(np.argmax(self.room / lengths))

    def _prove_obedience(self) -> None:
        """Move a little and come back. An arm that obeys nothing would pass every check that it must not obey.

        Discovery, too, is one-sided for a moment: who is heard here need not hear yet.
        """

        def moved() -> bool:
            self.stream([self.target(_NUDGE)], 2 * self.period_s)
            newest = in_order(self.states()[-1], self.arm.joint_names)
            return newest is not None and abs(newest[self.joint] - self.base[self.joint]) > 1.5 * self.still[self.joint]

        if not self.user.spin_until(moved, self._settings.settle_s):
            raise CannotMeasureError(self.topic, f"joint '{self.joint_name}' does not move when it is told to")
        self.home()

    @property
    def joint_name(self) -> str:
        """The joint that test motions move."""
        return self.arm.joints[self.joint].name

    # -- what the arm does ------------------------------------------------------------------------------------------

    def states(self) -> list[State]:
        """Everything received of this arm's joint states."""
        return self.user.states[self.index]

    def position(self) -> Array:
        """(D,) where the arm is: the next joint state from now on.

        Raises:
            CannotMeasureError: nothing usable came.
        """
        start, now = len(self.states()), self.user.now_ns()

        def shown() -> bool:
            return any(
                s.stamp_ns >= now and in_order(s, self.arm.joint_names) is not None for s in self.states()[start:]
            )

        # What was under way is older than this question. A rig whose stamps are wrong is judged for that elsewhere.
        self.user.spin_until(shown, _STATE_WAIT_S)
        received = self.states()[start:]
        usable = [p for s in received if (p := in_order(s, self.arm.joint_names)) is not None]
        if not usable:
            raise CannotMeasureError(self.arm.joint_states, self._no_state(len(received)))
        return usable[-1]

    def _no_state(self, received: int) -> str:
        text = f"no joint state within {_STATE_WAIT_S:g} s"
        if received:
            last = self.states()[-1]
            text = (
                f"{received} joint states, none with finite positions of "
                f"{list(self.arm.joint_names)}; the last has {list(last.names)}: {list(last.positions)}"
            )
        return text

    def watch(self, seconds: float) -> Track:
        """What the arm does for a time, by its own stamps: a busy rig shows late what it does.

        Raises:
            CannotMeasureError: it shows no usable joint states meanwhile.
        """
        start, origin = len(self.states()), self.user.now_ns()
        self.user.spin_for(seconds)
        over = origin + round(seconds * NS_PER_S)

        def shown() -> bool:
            return sum(s.stamp_ns >= over for s in self.states()[start:][-_AFTER:]) >= _AFTER

        self.user.spin_until(shown, _STATE_WAIT_S)
        return self.since(start, origin)

    def since(self, start: int, origin_ns: int) -> Track:
        """What the arm did from the ``start``-th joint state on, in seconds after ``origin_ns``."""
        received = self.states()[start:]
        track = track_of(received, self.arm.joint_names, origin_ns)
        if not len(track.times_s):
            raise CannotMeasureError(self.arm.joint_states, self._no_state(len(received)))
        return track

    def settle(self) -> Array:
        """(D,) where the arm has come to rest.

        Raises:
            CannotMeasureError: it does not come to rest in time.
        """

        def still() -> bool:
            window = self._newest(start)
            return len(window) >= _WINDOW_SAMPLES and float(np.ptp(window[:, self.joint])) < self.still[self.joint] / 2

        start = len(self.states())
        if not self.user.spin_until(still, self._settings.settle_s):
            self.position()  # says so where there are no joint states at all
            raise CannotMeasureError(self.topic, f"the arm does not come to rest within {self._settings.settle_s:g} s")
        return self.position()

    def _newest(self, start: int) -> Array:
        """(N, D) of the last quarter of a second, or of the last few states of a slow rig."""
        recent = self.states()[start:][-_MAX_SAMPLES:]
        kept = [(s.stamp_ns, p) for s in recent if (p := in_order(s, self.arm.joint_names)) is not None]
        count = sum(kept[-1][0] - stamp <= _WINDOW_S * NS_PER_S for stamp, _ in kept)
        return np.array([p for _, p in kept[-max(count, _WINDOW_SAMPLES) :]]).reshape(-1, len(self.arm.joints))

    # -- what the arm is told ---------------------------------------------------------------------------------------

    def target(self, delta: float) -> Array:
        """(D,) base position with the test joint moved by ``delta`` test motions."""
        target = self.base.copy()
        target[self.joint] += delta * self.reach
        return target

    def send_point(self, positions: npt.ArrayLike, stamp_ns: int | None = None) -> int:
        """Command one point, due after one control period; when it was sent, ns."""
        return self.send_chunk([self.period_s], np.asarray(positions, dtype=np.float64)[None], stamp_ns)

    def send_chunk(self, offsets_s: Sequence[float], positions: npt.ArrayLike, stamp_ns: int | None = None) -> int:
        """Command points (N, D) at times (N,) after the stamp, by default now; when it was sent, ns."""
        stamp = self.user.now_ns() if stamp_ns is None else stamp_ns
        chunk = Chunk(stamp, np.asarray(offsets_s, dtype=np.float64), np.asarray(positions, dtype=np.float64))
        return self.user.send(self.index, chunk_to_trajectory(self.arm.joint_names, chunk))

    def stream(self, positions: npt.ArrayLike, seconds: float) -> None:
        """Command points (N, D), evenly over a time, as a leader does."""
        rows = np.asarray(positions, dtype=np.float64)
        for row in rows:
            self.send_point(row)
            self.user.spin_for(seconds / len(rows))

    def ramp(self, target: npt.ArrayLike, seconds: float) -> int:
        """Command a straight line from where the arm is; when it was sent, ns."""
        return self.send_chunk([0.0, seconds], [self.position(), np.asarray(target, dtype=np.float64)])

    def go(self, target: npt.ArrayLike) -> Array:
        """Bring the arm to (D,) ``target`` slowly and let it come to rest; where it then is.

        Raises:
            CannotMeasureError: it does not arrive.
        """
        wanted = np.asarray(target, dtype=np.float64)
        speeds = np.array([j.max_velocity for j in self.arm.joints]) * _HOME_SPEED
        distance = np.abs(wanted - self.position())
        if distance[self.joint] > self.still[self.joint] or (distance / speeds).max() > 0.1:
            seconds = max(2 * self.period_s, float((distance / speeds).max()))
            self.ramp(wanted, seconds)
            self.user.spin_for(seconds + 2 * self.period_s)
        reached = self.settle()
        off = abs(reached[self.joint] - wanted[self.joint])
        if off > 3 * self.still[self.joint]:
            text = f"a ramp to {wanted[self.joint]:.3f} left joint '{self.joint_name}' at {reached[self.joint]:.3f}"
            raise CannotMeasureError(self.topic, text)
        return reached

    def home(self) -> Array:
        """Bring the arm back to where it stood first; where it then is."""
        return self.go(self.base)

    def moved(self, track: Track, origin: Array) -> Array:
        """(D,) the furthest that each joint was from (D,) ``origin``, in units of what counts as standing still."""
        return np.asarray(np.abs(track.positions - origin).max(axis=0) / self.still, dtype=np.float64)
