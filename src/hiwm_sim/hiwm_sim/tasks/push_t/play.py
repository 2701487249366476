"""Undirected play on Push-T: random pushes, strokes, nudges, free motion and pauses, for world-model data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hiwm_sim.ik import ArmKinematics
from hiwm_sim.motion import ToolMotion
from hiwm_sim.tasks.base import Script
from hiwm_sim.tasks.push_t import geometry
from hiwm_sim.tasks.push_t.config import PushTConfig

Array = npt.NDArray[np.float64]
CENTRE = np.array([0.32, 0.0])
ROOM = 0.11
"""Beyond this distance from the centre of the working area, pushes are aimed back inwards, m."""


class Play:
    """Endless joint targets; every behaviour starts and ends wherever the tool is.

    Args:
        config: of the task.
        kinematics: of the arm.
        motion: the hand.
        pose: returns the present (x, y, yaw) of the T.
        home: (3,) tool position.
        rng: decides everything.
    """

    def __init__(
        self,
        config: PushTConfig,
        kinematics: ArmKinematics,
        motion: ToolMotion,
        pose: Callable[[], Array],
        home: npt.ArrayLike,
        rng: np.random.Generator,
    ) -> None:
        self._config = config
        self._kinematics = kinematics
        self._motion = motion
        self._pose = pose
        self._home = np.asarray(home, dtype=np.float64)
        self._rng = rng
        self._points, self._normals = geometry.contact_points(config.shape, 0.01)

    def run(self) -> Script:
        """One random behaviour after another, for ever."""
        behaviours = [self._push, self._stroke, self._nudge, self._travel, self._rest, self._swing]
        weights = np.array([0.52, 0.14, 0.14, 0.10, 0.05, 0.05])
        while True:
            yield from behaviours[int(self._rng.choice(len(behaviours), p=weights))]()

    def _push(self) -> Script:
        """Come down beside the T and push it, at any place, angle, speed and length a policy might."""
        start, direction = self._contact()
        if not self._reachable(start):
            return
        speed = float(self._rng.uniform(0.05, 0.16))
        yield from self._above(start)
        yield from self._lower(start)
        for _ in range(int(self._rng.integers(1, 4))):
            end = self._inside(self._motion.position[:2] + direction * self._rng.uniform(0.02, 0.10))
            yield from self._motion.to([*end, self._height()], speed)
            direction = direction @ geometry.rotation(float(self._rng.normal(0, 0.4))).T
        if self._rng.random() < 0.7:
            back = self._inside(self._motion.position[:2] - 0.01 * direction)
            yield from self._motion.to([*back, self._height()], 0.1)
        yield from self._raise()

    def _nudge(self) -> Script:
        """Touch gently and leave: the small corrections near a goal."""
        start, direction = self._contact()
        if not self._reachable(start):
            return
        yield from self._above(start)
        yield from self._lower(start)
        end = self._inside(start + direction * self._rng.uniform(0.004, 0.025))
        yield from self._motion.to([*end, self._config.tool.push_height], self._rng.uniform(0.02, 0.08))
        yield from self._raise()

    def _stroke(self) -> Script:
        """Drag the rod along the table through a few random points, whatever is in the way."""
        start = self._somewhere()
        yield from self._above(start)
        if geometry.distance_to_t(self._local(start)[None], self._config.shape)[0] > 0.012:
            yield from self._lower(start)
        height = self._motion.position[2]
        for _ in range(int(self._rng.integers(1, 4))):
            yield from self._motion.to([*self._somewhere(), height], self._rng.uniform(0.06, 0.20))
        yield from self._raise()

    def _travel(self) -> Script:
        """Move freely above the table."""
        goal = [*self._somewhere(), self._rng.uniform(0.05, 0.13)]
        yield from self._motion.to(goal, self._rng.uniform(0.1, 0.3))

    def _rest(self) -> Script:
        """Go home, as after a success, and hold."""
        yield from self._motion.to(self._home, self._rng.uniform(0.15, 0.3))
        yield from self._motion.hold(int(self._rng.integers(2, 9)))

    def _swing(self) -> Script:
        """Small motions of single joints about a raised pose, the redundant ones included."""
        if self._motion.position[2] < self._config.tool.travel_height - 1e-6:
            yield from self._raise()
        base = self._kinematics.inverse(self._motion.position)
        swing = self._rng.uniform(-1, 1, 7) * np.array([0.15, 0.05, 0.05, 0.12, 0.10, 0.3, 0.0])
        count = int(self._rng.integers(5, 12))
        for k in range(count):
            yield base + swing * np.sin(np.pi * (k + 1) / count)

    # -- parts -------------------------------------------------------------------------------------------------

    def _contact(self) -> tuple[Array, Array]:
        """A free place (2,) beside the T and a direction (2,) roughly towards it; inwards if the T is far out."""
        pose = self._pose()
        local = self._points + self._normals * (self._config.tool.radius + self._rng.uniform(0.003, 0.012))
        free = geometry.distance_to_t(local, self._config.shape) > self._config.tool.radius + 0.002
        starts = geometry.transform(pose, local[free])
        inward = -self._normals[free] @ geometry.rotation(float(pose[2])).T
        chance = np.ones(len(starts))
        offset = pose[:2] - CENTRE
        if np.linalg.norm(offset) > ROOM * self._rng.uniform(0.5, 1.1):
            chance = np.maximum(0.0, -(inward @ offset)) ** 2 + 1e-9
        i = int(self._rng.choice(len(starts), p=chance / chance.sum()))
        return starts[i], inward[i] @ geometry.rotation(float(self._rng.normal(0, 0.3))).T

    def _above(self, point: Array) -> Script:
        yield from self._raise()
        height = self._config.tool.travel_height + float(self._rng.choice([0.0, self._rng.uniform(0, 0.03)]))
        yield from self._motion.to([*point, height], self._rng.uniform(0.18, 0.35))

    def _lower(self, point: Array) -> Script:
        yield from self._motion.to([*point, self._height()], self._rng.uniform(0.15, 0.3))

    def _raise(self) -> Script:
        travel = self._config.tool.travel_height
        if self._motion.position[2] < travel - 1e-6:
            yield from self._motion.to([*self._motion.position[:2], travel], self._rng.uniform(0.15, 0.3))

    def _height(self) -> float:
        return self._config.tool.push_height + float(self._rng.uniform(-0.001, 0.004))

    def _somewhere(self) -> Array:
        return self._inside(CENTRE + self._rng.uniform([-0.13, -0.17], [0.13, 0.17]))

    def _inside(self, point: Array) -> Array:
        """The nearest point the rod may go to."""
        settings = self._config.demonstrator
        clipped = np.clip(point, [0.14, -0.2], [0.47, 0.2])
        radius = float(np.linalg.norm(clipped))
        return np.asarray(clipped * np.clip(radius, settings.rod_min_radius, settings.rod_max_radius) / radius)

    def _reachable(self, point: Array) -> bool:
        return bool(np.allclose(self._inside(point), point))

    def _local(self, point: Array) -> Array:
        pose = self._pose()
        return np.asarray((point - pose[:2]) @ geometry.rotation(float(pose[2])))
