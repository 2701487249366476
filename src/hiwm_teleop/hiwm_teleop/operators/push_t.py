"""What the scripted operator knows of Push-T. Sees the T in the camera image; never the simulator's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
        idle_frames, idle_range: hesitating: the corner error moved less than this (m) over so many frames, longer
            than a person needs to lift the tool, travel and lower it; long enough that an arm which has lost its way
            is seen, and corrected, where it got lost.
        progress_frames, progress: no progress: the best corner error got no better than this (m) over so many frames.
        worse: wrong contact: the corner error grew by this (m) over its best.
    """

    camera: str = "front"
    min_clarity: float = 0.5
    solved_coverage: float = 0.85
    clear_height: float = 0.04
    still_frames: int = 30
    still_range: float = 0.01
    idle_frames: int = 40
    idle_range: float = 0.002
    progress_frames: int = 55
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
        """Standing still, hesitating, no progress, or pushing the wrong way; see :class:`Judgement`."""
        rule = self.judgement
        recent = history[len(history) - watched :] if watched else []
        errors = np.array([g.distance for g in recent if g.clear])
        if len(errors) >= 3 and np.median(errors[-3:]) > errors.min() + rule.worse:
            return "wrong contact"
        if not len(errors) or any(g.solved for g in recent[-3:]):
            return None
        if (
            watched >= rule.still_frames
            and _spread([g.joints for g in recent[-rule.still_frames :]]) < rule.still_range
        ):
            return "the policy stands still"
        if len(errors) >= rule.idle_frames and _spread(errors[-rule.idle_frames :]) < rule.idle_range:
            return "the policy hesitates"
        if len(errors) > rule.progress_frames:
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
        """Push cycles of a demonstrator, as many as fit into a correction: up, over, down, push, back, up; then home.

        The first attempt at a situation is what the demonstrator would do, since equal pictures with equal actions
        are easiest to learn; another attempt takes the best of other contacts.
        """
        if not glimpse.clear:
            return None
        motion = ToolMotion(self._kinematics, self._kinematics.tip(joints), self._period_s, rng)
        planner = self._planner if attempt == 0 else self._another_planner(rng)
        correction = PushCorrection(self.config, motion, self._home, self.done, self._next_push(planner))
        return correction if correction.begin(glimpse) else None

    def _another_planner(self, rng: np.random.Generator) -> PushPlanner:
        """A planner that considers other contacts and directions than the demonstrator's."""
        settings = self.config.demonstrator
        other = replace(
            settings,
            contact_spacing=settings.contact_spacing * rng.uniform(0.7, 1.3),
            angles=tuple(float(a) for a in rng.uniform(-0.6, 0.6, len(settings.angles))),
        )
        return PushPlanner(replace(self.config, demonstrator=other), self._period_s)

    def _next_push(self, planner: PushPlanner) -> Callable[[Glimpse, FloatArray], Push | None]:
        def plan(glimpse: Glimpse, tip: FloatArray) -> Push | None:
            push = planner.plan(glimpse.pose, self.config.goal, tip)
            if push is None:
                return None
            settings, tool = self.config.demonstrator, self.config.tool
            end = push.start + push.direction * push.steps * settings.push_speed * self._period_s
            corners = [[*push.start, tool.travel_height], [*push.start, tool.push_height], [*end, tool.push_height]]
            return push if all(self._kinematics.reachable(c) for c in corners) else None

        return plan

    def done(self, glimpse: Glimpse) -> bool:
        """Whether a demonstrator would stop pushing here."""
        return glimpse.clear and self._coverage(glimpse.pose) >= self.config.demonstrator.coverage

    def _height(self, joints: FloatArray) -> float:
        return float(self._kinematics.tip(joints)[2])

    def _coverage(self, pose: FloatArray) -> float:
        return geometry.coverage(pose, self.config.goal, self.config.shape)

    def _error(self, pose: FloatArray) -> float:
        return float(geometry.corner_error(pose, self.config.goal, self.config.shape))


def _spread(values: Sequence[FloatArray] | FloatArray) -> float:
    """Largest range of any column of (T, ...) values."""
    return float(np.ptp(np.asarray(values), axis=0).max())


class PushCorrection:
    """Push cycles as the demonstrator does them, with the same heights and speeds, while there is time.

    Up, over, down, push until it fits or the planned length is reached, a little back, up; again if another cycle
    still fits into the correction. Where the T fits, the tool goes home and holds still: stopping is part of the
    skill, and policies fail at it.
    """

    def __init__(
        self,
        config: PushTConfig,
        motion: ToolMotion,
        home: FloatArray,
        done: Callable[[Glimpse], bool],
        plan: Callable[[Glimpse, FloatArray], Push | None],
        frames: int = 40,
    ) -> None:
        """Make the hand ready.

        Args:
            config: of the task.
            motion: the hand, where the tool is.
            home: (3,) tool position to withdraw to, m.
            done: whether what is seen is solved.
            plan: the next push for what is seen, with the tool at (3,) m.
            frames: of a correction, at most.
        """
        self._config = config
        self._motion = motion
        self._home = home
        self._done = done
        self._plan = plan
        self._left = frames
        self._glimpse: Glimpse | None = None
        self._push: Push | None = None
        self._script = self._run()

    def begin(self, glimpse: Glimpse) -> bool:
        """Plan the first push; whether there is anything to do."""
        self._glimpse = glimpse
        if not self._fits():
            self._push = self._plan(glimpse, self._motion.position)
        return self._fits() or self._push is not None

    def next(self, glimpse: Glimpse) -> FloatArray | None:
        """See :class:`~hiwm_teleop.skill.Correction`. Ends early where the arm cannot reach."""
        if glimpse.clear:
            self._glimpse = glimpse
        self._left -= 1
        try:
            return next(self._script, None)
        except UnreachableError:
            return None

    def _run(self) -> Iterator[FloatArray]:
        settings, motion = self._config.demonstrator, self._motion
        yield from self._raise()
        while self._push is not None:
            yield from self._cycle(self._push)
            self._push = None if self._fits() else self._another()
        if self._fits():
            yield from motion.to(self._home, settings.travel_speed)
            yield from motion.hold(2 * settings.hold_steps)

    def _another(self) -> Push | None:
        """The next push, if there is time for it; looking and thinking, the hand rests."""
        assert self._glimpse is not None
        push = self._plan(self._glimpse, self._motion.position)
        return push if push is not None and self._cycle_frames(push) <= self._left else None

    def _cycle_frames(self, push: Push) -> int:
        """Control periods of one cycle."""
        settings, tool = self._config.demonstrator, self._config.tool
        lift = (tool.travel_height - tool.push_height) / settings.lower_speed
        away = float(np.linalg.norm(push.start - self._motion.position[:2])) / settings.travel_speed
        return int(np.ceil((away + 2 * lift) / 0.1)) + push.steps + 3

    def _cycle(self, push: Push) -> Iterator[FloatArray]:
        settings, tool, motion = self._config.demonstrator, self._config.tool, self._motion
        yield from motion.to([*push.start, tool.travel_height], settings.travel_speed)
        yield from motion.to([*push.start, tool.push_height], settings.lower_speed)
        yield from self._forward(push)
        back = motion.position[:2] - 0.01 * push.direction
        yield from motion.to([*back, tool.push_height], settings.push_speed)
        yield from self._raise()

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
