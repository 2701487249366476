"""The scripted operator: a STAND-IN for a person. No ROS.

It may use what a person has in front of them and nothing else: camera images, joint positions, who drives, and the
number of the frame shown (to say which one to go back to). What it knows of a task (the shape of the object, the goal
on the table, where the camera stands) is in a :class:`~hiwm_teleop.skill.Skill`.

It watches a rollout; when it is failing, it goes back to where the trouble began, thinks, takes over with the leader
arm for 1-4 seconds, hands back, and watches again. When that branch is over, it branches again from the same snapshot
with another correction. One table (:mod:`hiwm_teleop.operator_table`) says what follows what;
:meth:`ScriptedOperator.observe` and the ``on_*`` methods return the requests to make, and never wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from hiwm_rig.types import Driver, FloatArray, Outcome

from hiwm_teleop.operator_log import OperatorLog
from hiwm_teleop.operator_table import TABLE, Action, AskControl, BranchAt, Cue, EndEpisode, GoBack, Phase, Think
from hiwm_teleop.skill import Correction, Glimpse, Skill, View


@dataclass(frozen=True)
class OperatorSettings:
    """How an operator works.

    Attributes:
        branches: corrections to try from the snapshot of the first failure of an episode.
        corrections_per_branch: takeovers in one branch (a correction that the policy spoils can be followed by
            another one).
        max_corrections: takeovers in one episode, over all branches.
        branch_frames: frames to watch a branch after its last takeover before giving it up.
        min_back, max_back: how many frames before the notice to go back to, at least and at most.
        min_correction_s, max_correction_s: length of one correction in the rig's time, so that a hand which misses
            frames on a busy machine does not drive longer; a shorter one ends with the hand at rest.
        solved_frames: consecutive frames that must look solved.
        control_patience: frames to wait for a control request to be granted.
    """

    branches: int = 3
    corrections_per_branch: int = 2
    max_corrections: int = 6
    branch_frames: int = 150
    min_back: int = 5
    max_back: int = 50
    min_correction_s: float = 1.0
    max_correction_s: float = 4.0
    solved_frames: int = 3
    control_patience: int = 20


@dataclass(frozen=True)
class Seen:
    """One frame in the operator's memory (never the image)."""

    glimpse: Glimpse
    joints: FloatArray
    snapshot_id: int
    step: int
    driver: Driver


@dataclass
class _Episode:
    """What the operator keeps in mind over one episode."""

    memory: list[Seen] = field(default_factory=list)
    root: list[Seen] | None = None  # the memory at the snapshot of the first failure
    branches: int = 0
    corrections: int = 0
    in_branch: int = 0
    watched_from: int = 0
    waited: int = 0
    solved_run: int = 0
    branch_solved: bool = False
    outcome: Outcome = Outcome.FAILURE


class ScriptedOperator:
    """The stand-in for a person; see the module text.

    Attributes:
        phase: what it is doing.
        log: what it did and when.
        moves: how often its hand was given somewhere to go.
    """

    def __init__(self, skill: Skill, settings: OperatorSettings | None = None, seed: int = 0) -> None:
        """Args: skill: what it knows of the task; settings; seed: of its choices."""
        self.skill = skill
        self.settings = settings or OperatorSettings()
        self.phase = Phase.IDLE
        self.log = OperatorLog()
        self.moves = 0
        self._rng = np.random.default_rng(seed)
        self._episode = _Episode()
        self._correction: Correction | None = None
        self._hand: tuple[FloatArray, FloatArray] | None = None  # where the leader is, and where it goes
        self._branch_id = -1
        self._joints: FloatArray | None = None
        self._stamp_ns = 0
        self._taken_over_s = 0.0

    # -- what the outside tells it ------------------------------------------------------------------------------

    def begin(self, stamp_ns: int = 0) -> None:
        """An episode has begun."""
        self._episode = _Episode()
        self._correction = self._hand = None
        self._branch_id = -1
        self._stamp_ns = stamp_ns
        self.skill.reset()
        self.log.add(stamp_ns, "episode")
        self.phase = Phase.IDLE
        self._go(Cue.BEGUN)

    def observe(self, view: View) -> Sequence[Action]:
        """Look at one frame; returns the requests to make."""
        if self.phase is Phase.IDLE or view.branch_id < self._branch_id:
            return ()  # between episodes, or a frame of the branch that was just left
        self._joints, self._stamp_ns = np.asarray(view.joints, dtype=np.float64), view.stamp_ns
        self._branch_id = view.branch_id
        return _ON_FRAME[self.phase](self, view)

    def on_went_back(self, ok: bool, branch_id: int, message: str = "") -> Sequence[Action]:
        """Reply to :class:`GoBack` or :class:`BranchAt`."""
        kind = "rollback" if self.phase is Phase.ROLLBACK else "branch"
        if self.phase not in (Phase.ROLLBACK, Phase.BRANCH):
            return ()
        if not ok:
            self.log.add(self._stamp_ns, f"{kind} refused", message=message)
            if self.phase is Phase.BRANCH:
                return self._end(Cue.REFUSED, message)
            # Nothing was undone: what it sees now is where it corrects from.
            self._go(Cue.REFUSED)
            return self._think()
        self._branch_id = branch_id
        self._joints = self._episode.memory[-1].joints
        self._episode.branch_solved = False
        self.log.add(self._stamp_ns, kind, snapshot=self._episode.memory[-1].snapshot_id, branch=branch_id)
        self._go(Cue.WENT_BACK)
        return self._think()

    def on_thought(self, correction: Correction | None) -> Sequence[Action]:
        """Reply to :class:`Think`: what to do, or None."""
        if self.phase is not Phase.PLAN:
            return ()
        self._episode.waited = 0
        self._correction = correction
        if correction is None:
            self.log.add(self._stamp_ns, "no correction found")
            self._go(Cue.NO_PLAN)
            return (AskControl(Driver.POLICY, "no correction found"),)
        self._go(Cue.PLANNED)
        return (AskControl(Driver.HUMAN, "the rollout is failing"),)

    def on_control(self, ok: bool, message: str = "") -> Sequence[Action]:
        """Reply to :class:`AskControl`. Being granted shows in the driver of the next frames; a refusal is retried."""
        if ok or self.phase not in (Phase.TAKEOVER, Phase.HAND_BACK):
            return ()
        self.log.add(self._stamp_ns, "control refused", message=message)
        return ()

    def on_ended(self, ok: bool, message: str = "") -> Sequence[Action]:
        """Reply to :class:`EndEpisode`."""
        if self.phase is Phase.END:
            self.log.add(self._stamp_ns, "end" if ok else "end refused", message=message)
            self._go(Cue.ENDED if ok else Cue.REFUSED)
        return ()

    # -- its hand on the leader ---------------------------------------------------------------------------------

    def leader(self, periods: float) -> FloatArray | None:
        """(D,) where the leader arm is held, or None before the first frame.

        While correcting, the hand moves steadily to where it wants to be next, over one control period. Else the leader
        stays where the follower is (an actuated one mirrors it): there is nothing to align at a takeover.

        Args:
            periods: time since the last of :attr:`moves`, in control periods.
        """
        if self.phase is not Phase.CORRECT or self._hand is None:
            return self._joints
        start, end = self._hand
        return np.asarray(start + float(np.clip(periods, 0, 1)) * (end - start))

    @property
    def glimpse(self) -> Glimpse | None:
        """What it made of the newest frame it remembers."""
        memory = self._episode.memory
        return memory[-1].glimpse if memory else None

    @property
    def looked_solved(self) -> bool:
        """Whether the branch that it watched last ended with the task done."""
        return self._episode.branch_solved

    # -- one frame, by phase ------------------------------------------------------------------------------------

    def _watch(self, view: View) -> Sequence[Action]:
        episode = self._episode
        self._remember(view)
        glimpse = episode.memory[-1].glimpse
        episode.solved_run = episode.solved_run + 1 if glimpse.solved else 0
        history = [s.glimpse for s in episode.memory]
        if episode.solved_run >= self.settings.solved_frames and self.skill.settled(history):
            episode.outcome, episode.branch_solved = Outcome.SUCCESS, True
            return self._branch_over("it looks solved")
        watched = len(episode.memory) - episode.watched_from
        trouble = self.skill.failing(history, watched)
        if trouble is None and watched >= self.settings.branch_frames:
            trouble = "time runs out"
        return () if trouble is None else self._failing(trouble)

    def _failing(self, trouble: str) -> Sequence[Action]:
        episode, settings = self._episode, self.settings
        self.log.add(self._stamp_ns, "failing", reason=trouble, step=episode.memory[-1].step)
        if episode.in_branch >= settings.corrections_per_branch or episode.corrections >= settings.max_corrections:
            return self._branch_over(trouble)
        index = self._where_trouble_began()
        target = episode.memory[index]
        del episode.memory[index + 1 :]
        if episode.root is None:
            episode.root = list(episode.memory)
            episode.branches = 1
        self._go(Cue.FAILING)
        # Paused while it goes back and thinks: else the policy would drive on from the snapshot in the meantime.
        return AskControl(Driver.PAUSED, trouble), GoBack(target.snapshot_id)

    def _branch_over(self, why: str) -> Sequence[Action]:
        episode, settings = self._episode, self.settings
        self.log.add(self._stamp_ns, "branch over", reason=why)
        more = episode.root is not None and episode.branches < settings.branches
        if not more or episode.corrections >= settings.max_corrections:
            return self._end(Cue.EPISODE_OVER, why)
        assert episode.root is not None
        episode.memory = list(episode.root)
        episode.branches += 1
        episode.in_branch = 0
        episode.solved_run = 0
        self._go(Cue.BRANCH_OVER)
        return AskControl(Driver.PAUSED, why), BranchAt(episode.memory[-1].snapshot_id)

    def _take_over(self, view: View) -> Sequence[Action]:
        episode = self._episode
        if view.driver is not Driver.HUMAN:
            return self._retry(Driver.HUMAN, "the rollout is failing")
        episode.corrections += 1
        episode.in_branch += 1
        self._taken_over_s = view.seconds
        joints = np.asarray(view.joints, dtype=np.float64)
        self._hand = (joints, joints)
        self.log.add(view.stamp_ns, "takeover", step=view.step)
        self._go(Cue.HUMAN_DRIVES)
        return self._move_hand(view)

    def _correct(self, view: View) -> Sequence[Action]:
        self._remember(view)
        if view.driver is not Driver.HUMAN:
            self.log.add(view.stamp_ns, "lost control", seconds=self._driven_s(view))
            return self._hand_back(Cue.LOST_CONTROL, "lost control")
        return self._move_hand(view)

    def _move_hand(self, view: View) -> Sequence[Action]:
        """Choose where the leader goes over the next control period, or hand back."""
        assert self._correction is not None and self._hand is not None
        driven_s, target = self._driven_s(view), None
        if driven_s < self.settings.max_correction_s:
            target = self._correction.next(self._episode.memory[-1].glimpse)
            if target is None and 0 < driven_s < self.settings.min_correction_s:
                target = self._hand[1]
        if target is None:
            self.log.add(view.stamp_ns, "corrected", seconds=driven_s)
            return self._hand_back(Cue.CORRECTED, "corrected")
        self._hand = (self._hand[1], target)
        self.moves += 1
        return ()

    def _driven_s(self, view: View) -> float:
        """Seconds of the rig since the takeover; to the nanosecond, so that a limit is met to the frame."""
        return round(view.seconds - self._taken_over_s, 9)

    def _hand_back(self, cue: Cue, reason: str) -> Sequence[Action]:
        self._correction = self._hand = None
        self._episode.waited = 0
        self._go(cue)
        return (AskControl(Driver.POLICY, reason),)

    def _wait_policy(self, view: View) -> Sequence[Action]:
        if view.driver is Driver.POLICY:
            self.log.add(view.stamp_ns, "handed back", step=view.step)
            self._episode.watched_from = len(self._episode.memory)
            self._episode.solved_run = 0
            self._go(Cue.POLICY_DRIVES)
            return ()
        return self._retry(Driver.POLICY, "hand back")

    def _wait(self, view: View) -> Sequence[Action]:
        return ()  # a reply is due

    # -- helpers ------------------------------------------------------------------------------------------------

    def _remember(self, view: View) -> None:
        glimpse = self.skill.look(view)
        joints = np.asarray(view.joints, dtype=np.float64)
        self._episode.memory.append(Seen(glimpse, joints, view.snapshot_id, view.step, view.driver))

    def _where_trouble_began(self) -> int:
        """Index of the frame to go back to: a good one, within how far one goes back at all."""
        memory, settings = self._episode.memory, self.settings
        last = len(memory) - 1
        newest = max(0, last - settings.min_back)
        oldest = min(newest, max(0, last - settings.max_back, self._episode.watched_from))
        first, final = np.clip(self.skill.good_span([s.glimpse for s in memory]), oldest, newest)
        return int(self._rng.integers(first, final + 1))

    def _think(self) -> Sequence[Action]:
        episode = self._episode
        last = episode.memory[-1]
        seed = int(self._rng.integers(2**31))
        episode.waited = 0
        glimpse = self.skill.recall([s.glimpse for s in episode.memory])
        return (Think(glimpse, last.joints, episode.branches - 1, seed),)

    def _retry(self, driver: Driver, reason: str) -> Sequence[Action]:
        """A control request that is not granted yet: ask again now and then, give up after a while."""
        self._episode.waited += 1
        if self._episode.waited >= self.settings.control_patience:
            self.log.add(self._stamp_ns, "gave up waiting", driver=driver.name)
            if self.phase is Phase.TAKEOVER:
                return self._hand_back(Cue.REFUSED, "the leader was not followed")
            return self._end(Cue.REFUSED, "the arbiter does not hand back")
        return (AskControl(driver, reason),) if self._episode.waited % 5 == 0 else ()

    def _end(self, cue: Cue, why: str) -> Sequence[Action]:
        self._go(cue)
        return (EndEpisode(self._episode.outcome, why),)

    def _go(self, cue: Cue) -> None:
        self.phase = TABLE[(self.phase, cue)]


_ON_FRAME = MappingProxyType(
    {
        Phase.WATCH: ScriptedOperator._watch,
        Phase.ROLLBACK: ScriptedOperator._wait,
        Phase.PLAN: ScriptedOperator._wait,
        Phase.TAKEOVER: ScriptedOperator._take_over,
        Phase.CORRECT: ScriptedOperator._correct,
        Phase.HAND_BACK: ScriptedOperator._wait_policy,
        Phase.BRANCH: ScriptedOperator._wait,
        Phase.END: ScriptedOperator._wait,
    }
)
