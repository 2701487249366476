"""Cartesian motions of the tool as joint targets: the hands of the scripted demonstrators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hiwm_sim.ik import ArmKinematics
from hiwm_sim.tasks.base import Action

Array = npt.NDArray[np.float64]


class ToolMotion:
    """Keeps the commanded tool position and moves it in straight lines.

    Args:
        kinematics: of the arm.
        start: (3,) tool position to start from, m.
        period: control period, s.
        rng: source of the noise, unused where ``noise`` is zero.
        noise: standard deviation (m) of an Ornstein-Uhlenbeck disturbance of the horizontal target.
        correlation: fraction of the disturbance that is kept from step to step.
    """

    def __init__(
        self,
        kinematics: ArmKinematics,
        start: npt.ArrayLike,
        period: float,
        rng: np.random.Generator,
        noise: float = 0.0,
        correlation: float = 0.8,
    ) -> None:
        self._kinematics = kinematics
        self._period = period
        self._rng = rng
        self._noise = noise
        self._correlation = correlation
        self._disturbance = np.zeros(2)
        self.position = np.asarray(start, dtype=np.float64).copy()

    def to(self, goal: npt.ArrayLike, speed: float) -> Iterator[Action]:
        """Yield the joint targets of a straight line to ``goal`` (3,) at ``speed`` m/s, one per control period."""
        start, end = self.position, np.asarray(goal, dtype=np.float64)
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / (speed * self._period) - 1e-9)))
        for k in range(count):
            self.position = start + (k + 1) / count * (end - start)
            yield self._action()

    def hold(self, count: int) -> Iterator[Action]:
        """Yield the present joint target ``count`` times."""
        for _ in range(count):
            yield self._action()

    def _action(self) -> Action:
        tip = self.position.copy()
        if self._noise > 0:
            kick = self._rng.normal(0.0, self._noise, 2) * np.sqrt(1 - self._correlation**2)
            self._disturbance = self._correlation * self._disturbance + kick
            tip[:2] += self._disturbance
        return self._kinematics.inverse(self._kinematics.nearest_reachable(tip))
