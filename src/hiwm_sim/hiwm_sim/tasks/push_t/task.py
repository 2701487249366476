"""Push-T as a task of the simulated rig."""

from __future__ import annotations

import mujoco
import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Rig

from hiwm_sim.motion import ToolMotion
from hiwm_sim.rig import SimRig
from hiwm_sim.scene import SceneParts
from hiwm_sim.tasks.base import Script, Task, register_task
from hiwm_sim.tasks.push_t import geometry
from hiwm_sim.tasks.push_t.config import PushTConfig
from hiwm_sim.tasks.push_t.demonstrator import Demonstrator
from hiwm_sim.tasks.push_t.planner import PushPlanner
from hiwm_sim.tasks.push_t.play import CENTRE, Play
from hiwm_sim.tasks.push_t.probe import PushTProbe
from hiwm_sim.tasks.push_t.scene import GOAL_HEIGHT, parts

Array = npt.NDArray[np.float64]


@register_task("push_t")
class PushT(Task):
    """Push the red T onto the green one. Success is the share of the goal it covers once the tool is clear of it."""

    instruction = "push the T onto the goal"

    def __init__(self, config: PushTConfig | None = None) -> None:
        self.config = config or PushTConfig()
        self._planner: PushPlanner | None = None

    def scene(self) -> SceneParts:
        """Block, goal and rod."""
        return parts(self.config)

    def probe(self, rig: Rig) -> PushTProbe:
        """Measures the T and the rod in the front camera's pictures."""
        return PushTProbe(rig, self.config)

    @property
    def max_steps(self) -> int:
        """Control steps in an episode."""
        return self.config.max_steps

    @property
    def state_names(self) -> tuple[str, ...]:
        """Pose of the T and of the goal; m and rad."""
        return ("t_x", "t_y", "t_yaw", "goal_x", "goal_y", "goal_yaw")

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draw the T around the goal, apart enough not to be solved."""
        config, goal = self.config, np.array(self.config.goal)
        while True:
            radius, bearing = config.start_distance * np.sqrt(rng.random()), rng.uniform(-np.pi, np.pi)
            turn = rng.uniform(-config.start_angle, config.start_angle)
            pose = goal + [radius * np.cos(bearing), radius * np.sin(bearing), turn]
            if geometry.coverage(pose, goal, config.shape) < config.start_max_coverage:
                break
        self.place(model, data, pose)

    def reset_play(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Anywhere in view; one time in ten on the goal, three in ten near it."""
        goal, kind = np.array(self.config.goal), rng.random()
        if kind < 0.1:
            pose = goal + rng.normal(0, 1, 3) * [0.002, 0.002, 0.02]
        elif kind < 0.4:
            pose = goal + rng.normal(0, 1, 3) * [0.02, 0.02, 0.3]
        else:
            pose = np.array([*(CENTRE + rng.uniform([-0.09, -0.12], [0.09, 0.12])), rng.uniform(-np.pi, np.pi)])
        self.place(model, data, pose)

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, pose: npt.ArrayLike) -> None:
        """Put the T at ``pose`` (x, y, yaw) on the table, at rest, and the goal where it belongs."""
        x, y, yaw = (float(v) for v in np.asarray(pose, dtype=np.float64))
        joint = model.joint("T")
        start, dof = int(joint.qposadr[0]), int(joint.dofadr[0])
        data.qpos[start : start + 7] = [x, y, self.config.shape.height / 2, *geometry.quaternion(yaw)]
        data.qvel[dof : dof + 6] = 0.0
        goal = self.config.goal
        body = int(model.body("goal").mocapid[0])
        data.mocap_pos[body] = [goal[0], goal[1], GOAL_HEIGHT]
        data.mocap_quat[body] = geometry.quaternion(goal[2])

    def pose(self, model: mujoco.MjModel, data: mujoco.MjData) -> Array:
        """Present (x, y, yaw) of the T, m and rad."""
        start = int(model.joint("T").qposadr[0])
        q = data.qpos[start : start + 7]
        return np.array([q[0], q[1], float(geometry.yaw_of(q[3:7]))])

    def state(self, model: mujoco.MjModel, data: mujoco.MjData) -> Array:
        """(6,) see :attr:`state_names`."""
        return np.concatenate([self.pose(model, data), self.config.goal])

    def coverage(self, model: mujoco.MjModel, data: mujoco.MjData) -> float:
        """Fraction of the goal that is covered now."""
        return geometry.coverage(self.pose(model, data), self.config.goal, self.config.shape)

    def succeeded(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """The goal is covered, the T rests, and the tool is up: at the moment of contact coverage flatters."""
        config = self.config
        dof = int(model.joint("T").dofadr[0])
        resting = bool(np.linalg.norm(data.qvel[dof : dof + 3]) < config.rest_speed)
        clear = float(data.site("tip").xpos[2]) > config.clear_height
        return clear and resting and self.coverage(model, data) >= config.success_coverage

    def demonstrate(self, env: SimRig, rng: np.random.Generator, noise: float = 0.0) -> Script:
        """See :mod:`hiwm_sim.tasks.push_t.demonstrator`."""
        if self._planner is None:
            self._planner = PushPlanner(self.config, env.rig.period_s)
        motion = self._motion(env, rng, noise)
        home = env.kinematics.tip(env.rig.home)
        return Demonstrator(self.config, self._planner, motion, lambda: self.pose(env.model, env.data), home).run()

    def play(self, env: SimRig, rng: np.random.Generator) -> Script:
        """See :mod:`hiwm_sim.tasks.push_t.play`."""
        motion = self._motion(env, rng, 0.0)
        home = env.kinematics.tip(env.rig.home)
        return Play(self.config, env.kinematics, motion, lambda: self.pose(env.model, env.data), home, rng).run()

    @staticmethod
    def _motion(env: SimRig, rng: np.random.Generator, noise: float) -> ToolMotion:
        return ToolMotion(env.kinematics, env.kinematics.tip(env.target), env.rig.period_s, rng, noise)
