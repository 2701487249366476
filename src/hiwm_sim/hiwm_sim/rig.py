"""The simulated rig in process: one control period per step, images and joints out, joint targets in."""

from __future__ import annotations

from types import TracebackType

import mujoco
import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Rig
from hiwm_rig.types import Image, Observation

from hiwm_sim.ik import ArmKinematics, UnreachableError
from hiwm_sim.scene import build_mjcf, wrist_camera
from hiwm_sim.tasks import Task, make_task
from hiwm_sim.visual import Visuals, make_visual

RETREAT_HEIGHT = 0.12
"""Height of the tool tip above the table after :meth:`SimRig.finish`, m."""


class SimRig:
    """A MuJoCo stand-in for a robot; implements ``hiwm_rig.types.RigEnv``.

    Joint targets are interpolated linearly over the control period, as a real position controller that follows a
    trajectory point does, and are limited in position and velocity by the rig file.

    Args:
        rig: the contract to stand in for.
        task: a task, or the name of one; None takes the rig file's task.
        visual: name of a visual variation (see :mod:`hiwm_sim.visual`).
        render: without it observations carry no images (planning, tests).
        wrist: add the optional wrist camera.

    Raises:
        SceneError: if the rig file describes another kind of robot.
        KeyError: for an unknown task or visual variation.
    """

    def __init__(
        self,
        rig: Rig,
        task: Task | str | None = None,
        *,
        visual: str = "default",
        render: bool = True,
        wrist: bool = False,
    ) -> None:
        if wrist and all(c.name != "wrist" for c in rig.cameras):
            rig = rig.model_copy(update={"cameras": (*rig.cameras, wrist_camera())})
        self.rig = rig
        self.task = make_task(task or rig.task) if not isinstance(task, Task) else task
        self.kinematics = ArmKinematics()
        self.model = mujoco.MjModel.from_xml_string(build_mjcf(rig, self.task.scene()))
        self.data = mujoco.MjData(self.model)
        self._visual = make_visual(visual)
        self._visuals = Visuals(self.model)
        self._render = render
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        joints = [self.model.joint(name) for name in rig.joint_names]
        self._qpos = np.array([int(j.qposadr[0]) for j in joints])
        self._dof = np.array([int(j.dofadr[0]) for j in joints])
        self._ctrl = np.array([self.model.actuator(name).id for name in rig.joint_names])
        self._mirror = int(self.model.joint(f"{rig.joint_names[-1]}_mirror").qposadr[0])
        self._tip = self.model.site("tip").id
        self._substeps = round(rig.period_s / self.model.opt.timestep)
        self._lower = np.array([j.lower for j in rig.joints])
        self._upper = np.array([j.upper for j in rig.joints])
        self._max_change = np.array([j.max_velocity for j in rig.joints]) * rig.period_s
        self._target = np.array(rig.home)
        self.steps = 0

    # -- RigEnv ------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """Home the arm and draw the task's initial state (and the look of the scene) that belong to ``seed``."""
        return self._reset(seed, play=False)

    def reset_play(self, seed: int) -> Observation:
        """As :meth:`reset`, from the wider distribution used for world-model data."""
        return self._reset(seed, play=True)

    def step(self, action: npt.ArrayLike) -> Observation:
        """Follow (D,) joint targets, rad or m, for one control period.

        Raises:
            ValueError: for a wrong size or a value that is not finite.
        """
        self.advance(action)
        return self.observe()

    def succeeded(self) -> bool:
        """Whether the task is done now, with the tool clear; for evaluation only."""
        return self.task.succeeded(self.model, self.data)

    def finish(self) -> bool:
        """Let the tool retreat (straight up, then home), let everything come to rest, and judge the task."""
        tip = self.tip()
        for height in np.linspace(tip[2], RETREAT_HEIGHT, 7)[1:]:
            try:
                self.advance(self.kinematics.inverse([tip[0], tip[1], max(height, tip[2])]))
            except UnreachableError:
                break  # a policy left the arm stretched out; going home lifts it as well
        for _ in range(15):
            self.advance(np.array(self.rig.home))
        return self.succeeded()

    # -- for scripts, generation and evaluation ----------------------------------------------------------------

    def advance(self, action: npt.ArrayLike) -> None:
        """:meth:`step` without rendering."""
        target = np.asarray(action, dtype=np.float64)
        if target.shape != self._target.shape:
            raise ValueError(f"action must have shape {self._target.shape} (one target per joint), got {target.shape}")
        if not np.isfinite(target).all():
            raise ValueError(f"action must be finite, got {target.tolist()}")
        start = self._target
        target = start + np.clip(target - start, -self._max_change, self._max_change)
        target = np.clip(target, self._lower, self._upper)
        for i in range(self._substeps):
            self.data.ctrl[self._ctrl] = start + (i + 1) / self._substeps * (target - start)
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_kinematics(self.model, self.data)
        self._target = target
        self.steps += 1

    def observe(self) -> Observation:
        """What the rig shows now."""
        images = {c.name: self._image(c.name, c.width, c.height) for c in self.rig.cameras} if self._render else {}
        return Observation(
            images=images,
            joints=self.data.qpos[self._qpos].copy(),
            stamp_ns=round(self.steps * self.rig.period_s * 1e9),
            velocities=self.data.qvel[self._dof].copy(),
        )

    @property
    def target(self) -> npt.NDArray[np.float64]:
        """(D,) joint targets in effect at the end of the last step."""
        return self._target.copy()

    def tip(self) -> npt.NDArray[np.float64]:
        """(3,) position of the tool tip, m."""
        return np.array(self.data.site_xpos[self._tip])

    def environment_state(self) -> npt.NDArray[np.float32]:
        """The task's state followed by the tool tip (x, y, z); EVALUATION LABELS ONLY, never an input to learning."""
        return np.concatenate([self.task.state(self.model, self.data), self.tip()]).astype(np.float32)

    @property
    def environment_state_names(self) -> tuple[str, ...]:
        """Names of the values of :meth:`environment_state`."""
        return (*self.task.state_names, "tip_x", "tip_y", "tip_z")

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def __enter__(self) -> SimRig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- internals ---------------------------------------------------------------------------------------------

    def _reset(self, seed: int, *, play: bool) -> Observation:
        mujoco.mj_resetData(self.model, self.data)
        home = np.array(self.rig.home)
        self.data.qpos[self._qpos] = home
        self.data.qpos[self._mirror] = home[-1]
        self.data.ctrl[self._ctrl] = home
        self._target = home
        self.steps = 0
        # Looks draw from their own stream, so that a variation changes pictures and never the physics.
        self._visual(self._visuals, self.data, np.random.default_rng([seed, 1]))
        draw = self.task.reset_play if play else self.task.reset
        draw(self.model, self.data, np.random.default_rng([seed, 0]))
        for _ in range(self._substeps):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        return self.observe()

    def _image(self, camera: str, width: int, height: int) -> Image:
        renderer = self._renderers.get((width, height))
        if renderer is None:
            renderer = mujoco.Renderer(self.model, height, width)
            self._renderers[(width, height)] = renderer
        self._visuals.upload(renderer)
        renderer.update_scene(self.data, camera)
        image: Image = renderer.render()
        return image
