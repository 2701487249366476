"""One-push look-ahead: try straight pushes in a reduced physics model and take the best."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt
from mujoco import rollout

from hiwm_sim.tasks.push_t import geometry
from hiwm_sim.tasks.push_t.config import PushTConfig
from hiwm_sim.tasks.push_t.scene import planning_model

Array = npt.NDArray[np.float64]
FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS
CLEARANCE = 0.0025
"""Smallest gap (m) between rod and T at the start of a push."""


@dataclass(frozen=True)
class Push:
    """A straight push: start (2,) in m, unit direction (2,), control steps, and the corner error to expect in m."""

    start: Array
    direction: Array
    steps: int
    expected_error: float


class PushPlanner:
    """Deterministic: equal T, goal and tool position give an equal push."""

    def __init__(self, config: PushTConfig, period: float) -> None:
        self._config = config
        self._period = period
        self._model = mujoco.MjModel.from_xml_string(planning_model(config))
        self._data = mujoco.MjData(self._model)
        self._points, self._normals = geometry.contact_points(config.shape, config.demonstrator.contact_spacing)

    def candidates(self, pose: npt.ArrayLike) -> tuple[Array, Array]:
        """Starts (B, 2) and unit directions (B, 2) of the pushes that are possible for a T at ``pose``."""
        settings, radius = self._config.demonstrator, self._config.tool.radius
        p = np.asarray(pose, dtype=np.float64)
        local = self._points + self._normals * (radius + settings.standoff)
        starts = geometry.transform(p, local)
        reach = np.linalg.norm(starts, axis=1)
        free = geometry.distance_to_t(local, self._config.shape) > radius + CLEARANCE
        free &= (reach > settings.rod_min_radius) & (reach < settings.rod_max_radius)
        inward = -self._normals[free] @ geometry.rotation(p[2]).T
        directions = [inward @ geometry.rotation(angle).T for angle in settings.angles]
        return np.tile(starts[free], (len(directions), 1)), np.concatenate(directions)

    def plan(self, pose: npt.ArrayLike, goal: npt.ArrayLike, tip: npt.ArrayLike) -> Push | None:
        """The best push for a T at ``pose`` (3,) towards ``goal`` (3,) with the tool at ``tip`` (>=2,), or None."""
        settings, shape = self._config.demonstrator, self._config.shape
        starts, directions = self.candidates(pose)
        if len(starts) == 0:
            return None
        poses = self._simulate(np.asarray(pose, dtype=np.float64), starts, directions)
        errors = geometry.corner_error(poses, goal, shape)
        now = float(geometry.corner_error(pose, goal, shape))
        approach = np.linalg.norm(starts - np.asarray(tip)[:2], axis=1) / settings.travel_speed
        time = self._period * np.arange(1, errors.shape[1] + 1)[None] + approach[:, None]
        radius = np.linalg.norm(poses[..., :2], axis=-1)
        allowed = (radius > settings.min_radius) & (radius < settings.max_radius)
        travelled = settings.push_speed * self._period * np.arange(1, errors.shape[1] + 1)
        rod = np.linalg.norm(starts[:, None] + directions[:, None] * travelled[None, :, None], axis=-1)
        allowed &= (rod > settings.rod_min_radius) & (rod < settings.rod_max_radius)
        # Time matters less close to the goal, where a detour for a better contact is worth it.
        score = errors + settings.time_weight * time * min(1.0, now / 0.05 + 0.1) + 10.0 * ~allowed
        i, j = np.unravel_index(int(score.argmin()), score.shape)
        return Push(starts[i], directions[i], int(j) + 1, float(errors[i, j]))

    def _simulate(self, pose: Array, starts: Array, directions: Array) -> Array:
        """(B, S, 3) poses of the T at the end of every control step of each push."""
        model, settings = self._model, self._config.demonstrator
        mujoco.mj_resetData(model, self._data)
        self._data.qpos[:7] = [pose[0], pose[1], self._config.shape.height / 2, *geometry.quaternion(float(pose[2]))]
        state = np.zeros(mujoco.mj_stateSize(model, FULL))
        mujoco.mj_getState(model, self._data, state, FULL)
        initial = np.tile(state, (len(starts), 1))
        initial[:, 8:10] = starts  # time, then qpos: seven of the T, two of the rod
        count = round(settings.push_time / model.opt.timestep)
        travelled = settings.push_speed * model.opt.timestep * np.arange(1, count + 1)
        control = starts[:, None] + directions[:, None] * travelled[None, :, None]
        states, _ = rollout.rollout(model, [self._data], initial, control)
        stride = round(self._period / model.opt.timestep)
        states = states[:, stride - 1 :: stride]
        return np.concatenate([states[..., 1:3], geometry.yaw_of(states[..., 4:8])[..., None]], axis=-1)
