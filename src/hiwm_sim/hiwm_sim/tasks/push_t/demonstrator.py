"""The scripted demonstrator of Push-T: plan a push, do it, lift, look again; stop at a good fit and go home."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hiwm_sim.motion import ToolMotion
from hiwm_sim.tasks.base import Script
from hiwm_sim.tasks.push_t import geometry
from hiwm_sim.tasks.push_t.config import PushTConfig
from hiwm_sim.tasks.push_t.planner import Push, PushPlanner

Array = npt.NDArray[np.float64]


class Demonstrator:
    """Yields joint targets; looks at the true pose of the T through ``pose``.

    Args:
        config: of the task.
        planner: of pushes.
        motion: the hand; holds the commanded tool position.
        pose: returns the present (x, y, yaw) of the T.
        home: (3,) tool position to return to.
    """

    def __init__(
        self,
        config: PushTConfig,
        planner: PushPlanner,
        motion: ToolMotion,
        pose: Callable[[], Array],
        home: npt.ArrayLike,
    ) -> None:
        self._config = config
        self._planner = planner
        self._motion = motion
        self._pose = pose
        self._home = np.asarray(home, dtype=np.float64)

    def run(self) -> Script:
        """Push until the goal is covered, then go home and hold; never ends a push it could end better."""
        settings = self._config.demonstrator
        while not self._done():
            push = self._planner.plan(self._pose(), self._config.goal, self._motion.position)
            if push is None:
                break
            yield from self._push(push)
        yield from self._lift()
        yield from self._motion.to(self._home, settings.travel_speed)
        yield from self._motion.hold(settings.hold_steps)

    def _done(self) -> bool:
        covered = geometry.coverage(self._pose(), self._config.goal, self._config.shape)
        return covered >= self._config.demonstrator.coverage

    def _push(self, push: Push) -> Script:
        settings, tool, motion = self._config.demonstrator, self._config.tool, self._motion
        yield from motion.to([*push.start, tool.travel_height], settings.travel_speed)
        yield from motion.to([*push.start, tool.push_height], settings.lower_speed)
        end = push.start + push.direction * push.steps * settings.push_speed * 0.1
        for action in motion.to([*end, tool.push_height], settings.push_speed):
            yield action
            if self._done():
                break
        yield from self._lift(away=push.direction)

    def _lift(self, away: Array | None = None) -> Script:
        """Straight up; after a push first a little back, so that the rod does not drag the T along."""
        settings, tool, motion = self._config.demonstrator, self._config.tool, self._motion
        if away is not None:
            back = motion.position[:2] - 0.01 * away
            yield from motion.to([*back, tool.push_height], settings.push_speed)
        if motion.position[2] < tool.travel_height - 1e-6:
            yield from motion.to([*motion.position[:2], tool.travel_height], settings.lower_speed)
