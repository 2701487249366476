"""What the scripted operator knows of Push-T. Sees the T in the camera image; never the simulator's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hiwm_rig.contract import Rig
from hiwm_rig.types import FloatArray
from hiwm_sim.ik import ArmKinematics, UnreachableError
from hiwm_sim.motion import ToolMotion
from hiwm_sim.tasks.push_t import geometry
from hiwm_sim.tasks.push_t.config import PushTConfig
from hiwm_sim.tasks.push_t.planner import Push, PushPlanner
from hiwm_sim.tasks.push_t.vision import TVision

from hiwm_teleop.skill import Correction, Glimpse, View, register_skill


@dataclass(frozen=True)
class Judgement:
    """When a rollout looks like failing, or like done.

    Attributes:
        camera: which one to look through.
        min_clarity: fit of the seen T below which it counts as hidden.
        solved_coverage: estimated coverage of the goal that looks done; above what the task asks for, because an
            estimate is a few millimetres off.
        clear_height: tool tip height (m) above which the tool has left the T.
        still_frames, still_range: standing still: no joint moved more than this (rad or m) over so many frames.
        progress_frames, progress: no progress: the best corner error got no better than this (m) over so many frames.
        worse: wrong contact: the corner error grew by this (m) over its best.
    """

    camera: str = "front"
    min_clarity: float = 0.5
    solved_coverage: float = 0.85
    clear_height: float = 0.04
    still_frames: int = 15
    still_range: float = 0.01
    progress_frames: int = 40
    progress: float = 0.003
    worse: float = 0.012


@register_skill("push_t")
class PushTSkill:
    """Looks where the T is, compares it with the goal on the table, and knows how to push."""

    def __init__(
        self,
        rig: Rig,
        config: PushTConfig | None = None,
        judgement: Judgement | None = None,
    ) -> None:
        """Args: rig: what is looked at and driven; config: of the task; judgement: of rollouts."""
        self.config = config or PushTConfig()
        self.judgement = judgement or Judgement()
        self._vision = TVision(rig, self.config, self.judgement.camera)
        self._period_s = rig.period_s
        self._planner = PushPlanner(self.config, rig.period_s)
        self._kinematics = ArmKinematics()
        self._home = self._kinematics.tip(rig.home)
        self._last: FloatArray | None = None

    def reset(self) -> None:
        """Forget where the T was."""
        self._last = None

    def look(self, view: View) -> Glimpse:
        """Find the T in the camera image."""
        joints = np.asarray(view.joints, dtype=np.float64)
        seen = self._vision.measure(view.images[self.judgement.camera], self._last)
        if seen is None:
            return Glimpse(np.nan, False, joints, np.zeros(0), 0.0)
        if min(seen.fit, seen.visible) < self.judgement.min_clarity:
            return Glimpse(np.nan, False, joints, np.zeros(0), seen.fit)
        self._last = seen.pose
        solved = self._coverage(self._last) >= self.judgement.solved_coverage
        return Glimpse(self._error(self._last), solved, joints, self._last, seen.fit)

    def failing(self, history: Sequence[Glimpse], watched: int) -> str | None:
        """Standing still, no progress, or pushing the wrong way; see :class:`Judgement`."""
        rule = self.judgement
        recent = history[len(history) - watched :] if watched else []
        errors = np.array([g.distance for g in recent if g.clear])
        if not len(errors):
            return None
        solved = any(g.solved for g in recent[-3:])
        if len(errors) >= 3 and np.median(errors[-3:]) > errors.min() + rule.worse:
            return "wrong contact"
        if watched >= rule.still_frames and not solved:
            moved = np.ptp([g.joints for g in recent[-rule.still_frames :]], axis=0)
            if moved.max() < rule.still_range:
                return "the policy stands still"
        if watched >= rule.progress_frames and not solved and len(errors) > rule.progress_frames:
            before, after = errors[: -rule.progress_frames].min(), errors[-rule.progress_frames :].min()
            if after > before - rule.progress:
                return "no progress"
        return None

    def settled(self, history: Sequence[Glimpse]) -> bool:
        """Whether the tool has left the T."""
        return self._height(history[-1].joints) > self.judgement.clear_height

    def good_span(self, history: Sequence[Glimpse]) -> tuple[int, int]:
        """The frames at which the T was (almost) as near the goal as it ever got."""
        errors = np.array([g.distance for g in history])
        if not np.isfinite(errors).any():
            return 0, len(history) - 1
        good = np.flatnonzero(errors <= np.nanmin(errors) + self.judgement.progress / 2)
        return int(good[0]), int(good[-1])

    def recall(self, history: Sequence[Glimpse]) -> Glimpse:
        """The last frame, with the T where it was seen last."""
        seen = next((g for g in reversed(history) if g.clear), history[-1])
        return Glimpse(seen.distance, seen.solved, history[-1].joints, seen.pose, seen.clarity)

    def plan(self, glimpse: Glimpse, joints: FloatArray, attempt: int, rng: np.random.Generator) -> Correction | None:
        """One push cycle of a demonstrator: up, over, down, push, back, up; and home when that solves it."""
        if not glimpse.clear:
            return None
        tip = self._kinematics.tip(joints)
        motion = ToolMotion(self._kinematics, tip, self._period_s, rng)
        push = None
        if not self.done(glimpse):
            # Another attempt at the same situation: as if the tool were elsewhere, so that another push may be best.
            seen_from = tip[:2] + (rng.normal(0, 0.05, 2) if attempt else 0.0)
            push = self._planner.plan(glimpse.pose, self.config.goal, seen_from)
            if push is None:
                return None
        return PushCorrection(self.config, motion, push, self._home, self.done)

    def done(self, glimpse: Glimpse) -> bool:
        """Whether a demonstrator would stop pushing here."""
        return glimpse.clear and self._coverage(glimpse.pose) >= self.config.demonstrator.coverage

    def _height(self, joints: FloatArray) -> float:
        return float(self._kinematics.tip(joints)[2])

    def _coverage(self, pose: FloatArray) -> float:
        return geometry.coverage(pose, self.config.goal, self.config.shape)

    def _error(self, pose: FloatArray) -> float:
        return float(geometry.corner_error(pose, self.config.goal, self.config.shape))


class PushCorrection:
    """One push cycle as the demonstrator does it, with the same heights and speeds.

    Up, over, down, push until it fits or the planned length is reached, a little back, up. Where it fits then, the
    tool goes home and holds still: stopping is part of the skill, and policies fail at it.
    """

    def __init__(
        self,
        config: PushTConfig,
        motion: ToolMotion,
        push: Push | None,
        home: FloatArray,
        done: Callable[[Glimpse], bool],
    ) -> None:
        """Args: config: of the task; motion: the hand; push: None to withdraw only; home: (3,) m; done: solved?"""
        self._config = config
        self._motion = motion
        self._push = push
        self._home = home
        self._done = done
        self._glimpse: Glimpse | None = None
        self._script = self._run()

    def next(self, glimpse: Glimpse) -> FloatArray | None:
        """See :class:`~hiwm_teleop.skill.Correction`. Ends early where the arm cannot reach."""
        self._glimpse = glimpse
        try:
            return next(self._script, None)
        except UnreachableError:
            return None

    def _run(self) -> Iterator[FloatArray]:
        settings, tool, motion = self._config.demonstrator, self._config.tool, self._motion
        yield from self._raise()
        if self._push is not None:
            yield from motion.to([*self._push.start, tool.travel_height], settings.travel_speed)
            yield from motion.to([*self._push.start, tool.push_height], settings.lower_speed)
            yield from self._forward(self._push)
            back = motion.position[:2] - 0.01 * self._push.direction
            yield from motion.to([*back, tool.push_height], settings.push_speed)
            yield from self._raise()
        if self._fits():
            yield from motion.to(self._home, settings.travel_speed)
            yield from motion.hold(settings.hold_steps)

    def _forward(self, push: Push) -> Iterator[FloatArray]:
        settings, tool = self._config.demonstrator, self._config.tool
        end = push.start + push.direction * push.steps * settings.push_speed * 0.1
        for target in self._motion.to([*end, tool.push_height], settings.push_speed):
            yield target
            if self._fits():
                return

    def _raise(self) -> Iterator[FloatArray]:
        tool, motion = self._config.tool, self._motion
        if motion.position[2] < tool.travel_height - 1e-3:
            yield from motion.to([*motion.position[:2], tool.travel_height], self._config.demonstrator.lower_speed)

    def _fits(self) -> bool:
        return self._glimpse is not None and self._done(self._glimpse)
