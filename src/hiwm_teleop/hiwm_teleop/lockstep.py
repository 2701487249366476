"""Arbiter, operator and policy on a rig in process, one control period per step: the node graph without nodes.

The same cores as the nodes run, as fast as the rig does. Time only moves forward, also through a rollback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Protocol

import numpy as np
from hiwm_rig.codecs import NS_PER_S, Chunk
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, FloatArray, Image, Observation, Outcome

from hiwm_teleop.arbiter import Arbiter
from hiwm_teleop.operator import ScriptedOperator
from hiwm_teleop.operator_table import Action, AskControl, BranchAt, EndEpisode, GoBack, Phase, Think
from hiwm_teleop.skill import Glimpse, View

TICKS_PER_PERIOD = 5


@dataclass(frozen=True)
class Place:
    """Which frame a rig shows.

    Attributes:
        branch_id: grows with each rollback or branch.
        parent_branch_id: -1 for a root.
        snapshot_id: of the frame.
        step: control steps since the root.
        success_probability, trust: 0..1, as displayed.
    """

    branch_id: int
    parent_branch_id: int
    snapshot_id: int
    step: int
    success_probability: float
    trust: float


class Rewindable(Protocol):
    """A rig in process that can go back."""

    def reset(self, seed: int) -> Observation:
        """Start at the initial state that belongs to ``seed``."""
        ...

    def step(self, action: FloatArray) -> Observation:
        """Obey (D,) joint targets for one control period."""
        ...

    def rollback(self, snapshot_id: int) -> Observation:
        """Return to an ancestor; starts a new branch."""
        ...

    def branch(self, snapshot_id: int) -> Observation:
        """Start a new branch at any snapshot."""
        ...

    def place(self) -> Place:
        """Which frame it shows."""
        ...


class Proposer(Protocol):
    """A policy in process."""

    def reset(self, seed: int | None = None) -> None:
        """Forget history and chunk."""
        ...

    def propose(self, observation: Observation) -> Chunk | None:
        """Look at a frame; the new action chunk, stamped with the observation, or None while the last one holds."""
        ...


@dataclass(frozen=True)
class Row:
    """One recorded frame.

    Attributes:
        image: camera name -> (H, W, 3) uint8 RGB.
        joints: (D,) what the follower reported, rad or m.
        action: (D,) target in effect for the step that followed.
        proposal: (D,) what the policy proposed for it, or None.
        driver: who drove.
        place: which frame it is.
        stamp_ns: when, on the clock of the session.
        glimpse: what the operator made of it; None where it did not look.
    """

    image: dict[str, Image]
    joints: FloatArray
    action: FloatArray
    proposal: FloatArray | None
    driver: Driver
    place: Place
    stamp_ns: int
    glimpse: Glimpse | None


@dataclass(frozen=True)
class BranchRecord:
    """The frames of one branch, from its snapshot to where it was left.

    Attributes:
        rows: in order; the first one shows the snapshot again.
        branch_id: of the branch.
        origin: index (branch position in the episode, row) of the frame it started from; None for the root.
        solved: whether the operator saw the task done at its end.
    """

    rows: tuple[Row, ...]
    branch_id: int
    origin: tuple[int, int] | None
    solved: bool

    @property
    def corrected(self) -> bool:
        """Whether the operator drove in it."""
        return any(r.driver is Driver.HUMAN for r in self.rows)


@dataclass
class _Open:
    rows: list[Row]
    branch_id: int
    origin: tuple[int, int] | None


class LockStep:
    """Runs episodes; see the module text."""

    def __init__(self, rig: Rig, world: Rewindable, policy: Proposer, operator: ScriptedOperator) -> None:
        """Args: rig: the contract; world: what is driven; policy; operator."""
        self._rig = rig
        self._world = world
        self._policy = policy
        self.operator = operator
        self.arbiter = Arbiter(rig)
        self._period_ns = round(rig.period_s * NS_PER_S)
        self._now_ns = NS_PER_S
        self._observation: Observation | None = None
        self._done: list[BranchRecord] = []
        self._open = _Open([], 0, None)
        self._outcome: Outcome | None = None

    def run(self, seed: int, max_frames: int = 2000) -> tuple[list[BranchRecord], Outcome]:
        """One episode from reset until the operator ends it.

        Args:
            seed: of the initial state and of the policy.
            max_frames: over all branches.

        Returns:
            Its branches in order, and how it ended.
        """
        self._observation = self._stamped(self._world.reset(seed))
        self._policy.reset(seed)
        self._done, self._open, self._outcome = [], _Open([], self._world.place().branch_id, None), None
        self.arbiter.begin_episode(self._now_ns)
        self.operator.begin(self._now_ns)
        for _ in range(max_frames):
            if self._outcome is not None:
                break
            self._frame()
        self._close_branch()
        return self._done, Outcome.UNKNOWN if self._outcome is None else self._outcome

    # -- one control period -------------------------------------------------------------------------------------

    def _frame(self) -> None:
        self._see()
        jumped = True
        while jumped and self._outcome is None:
            branch = self._world.place().branch_id
            self._perform(self.operator.observe(self._view()))
            jumped = self._world.place().branch_id != branch
            if jumped:
                self._see()
        if self._outcome is None:
            self._act()

    def _see(self) -> None:
        """The rig's frame reaches the arbiter and the policy."""
        observation = self._frame_now()
        self.arbiter.on_rig(observation.joints, observation.stamp_ns, self._now_ns)
        chunk = self._policy.propose(observation)
        if chunk is not None:
            self.arbiter.on_policy(chunk, self._now_ns)
        self._lead(0.0)
        self.arbiter.tick(self._now_ns)

    def _act(self) -> None:
        """Arbiter ticks until the end of the control period, then the rig obeys."""
        observation, place = self._frame_now(), self._world.place()
        begin_ns = self._now_ns
        for tick in range(1, TICKS_PER_PERIOD + 1):
            self._now_ns = begin_ns + tick * self._period_ns // TICKS_PER_PERIOD
            self._lead(tick / TICKS_PER_PERIOD)
            decision = self.arbiter.tick(self._now_ns)
        command = observation.joints if decision.command is None else decision.command
        row = Row(
            image=dict(observation.images),
            joints=observation.joints,
            action=np.asarray(command, dtype=np.float64),
            proposal=decision.policy_action,
            driver=decision.driver,
            place=place,
            stamp_ns=begin_ns,
            glimpse=self.operator.glimpse,
        )
        self._open.rows.append(row)
        self._observation = self._stamped(self._world.step(row.action))

    def _lead(self, periods: float) -> None:
        position = self.operator.leader(periods)
        if position is not None:
            self.arbiter.on_leader(position, self._now_ns, self._now_ns)

    def _view(self) -> View:
        observation, place = self._frame_now(), self._world.place()
        return View(
            images=observation.images,
            joints=observation.joints,
            stamp_ns=observation.stamp_ns,
            driver=self.arbiter.driver,
            branch_id=place.branch_id,
            snapshot_id=place.snapshot_id,
            step=place.step,
            success_probability=place.success_probability,
        )

    def _stamped(self, observation: Observation) -> Observation:
        return Observation(observation.images, observation.joints, self._now_ns, observation.velocities)

    def _frame_now(self) -> Observation:
        assert self._observation is not None
        return self._observation

    # -- what the operator asks for -----------------------------------------------------------------------------

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._perform(self._do(action))

    @singledispatchmethod
    def _do(self, action: Action) -> Sequence[Action]:
        raise TypeError(f"the operator asked for {action!r}")

    @_do.register
    def _(self, action: GoBack) -> Sequence[Action]:
        return self._jump(self._world.rollback(action.snapshot_id), action.snapshot_id)

    @_do.register
    def _(self, action: BranchAt) -> Sequence[Action]:
        return self._jump(self._world.branch(action.snapshot_id), action.snapshot_id)

    @_do.register
    def _(self, action: Think) -> Sequence[Action]:
        rng = np.random.default_rng(action.seed)
        return self.operator.on_thought(self.operator.skill.plan(action.glimpse, action.joints, action.attempt, rng))

    @_do.register
    def _(self, action: AskControl) -> Sequence[Action]:
        self._lead(0.0)
        granted, message = self.arbiter.request(action.driver, action.reason, self._now_ns)
        return self.operator.on_control(granted, message)

    @_do.register
    def _(self, action: EndEpisode) -> Sequence[Action]:
        self._outcome = action.outcome
        self.arbiter.end_episode()
        return self.operator.on_ended(True)

    def _jump(self, observation: Observation, snapshot_id: int) -> Sequence[Action]:
        self._close_branch()
        branch_id = self._world.place().branch_id
        self._open = _Open([], branch_id, self._find(snapshot_id))
        self._now_ns += self._period_ns
        self._observation = self._stamped(observation)
        self.arbiter.on_teleport(self._now_ns, "rollback")
        self._policy.reset()
        return self.operator.on_went_back(True, branch_id)

    def _find(self, snapshot_id: int) -> tuple[int, int]:
        """Where a snapshot is in what was recorded; the newest place that shows it."""
        for i in range(len(self._done) - 1, -1, -1):
            for j in range(len(self._done[i].rows) - 1, -1, -1):
                if self._done[i].rows[j].place.snapshot_id == snapshot_id:
                    return i, j
        raise KeyError(f"snapshot {snapshot_id} was not shown in this episode")

    def _close_branch(self) -> None:
        done = self._open
        solved = bool(done.rows) and self.operator.looked_solved and self.operator.phase is not Phase.ROLLBACK
        self._done.append(BranchRecord(tuple(done.rows), done.branch_id, done.origin, solved))
