"""MJCF pieces of Push-T: the block, the flat goal, the rod, and the reduced model the planner rolls out."""

from __future__ import annotations

from hiwm_sim.scene import SceneParts
from hiwm_sim.tasks.push_t.config import PushTConfig, TShape
from hiwm_sim.tasks.push_t.geometry import boxes

PHYSICS = 'timestep="0.005" integrator="implicitfast" cone="elliptic" impratio="5"'
GOAL_HEIGHT = 0.0006


def _geoms(shape: TShape, half_height: float, attributes: str, masses: tuple[float, float] | None) -> str:
    text = ""
    for i, (centre, half) in enumerate(boxes(shape)):
        mass = "" if masses is None else f'mass="{masses[i]}"'
        size = f'size="{half[0]} {half[1]} {half_height}"'
        text += f'<geom type="box" pos="{centre[0]} {centre[1]} 0" {size} {mass} {attributes}/>'
    return text


def block(shape: TShape) -> str:
    """The T as a free body; the mass is spread evenly over its seven squares."""
    masses = (shape.mass * 4 / 7, shape.mass * 3 / 7)
    geoms = _geoms(shape, shape.height / 2, f'material="object" friction="{shape.friction} .005 .0001"', masses)
    return f'<body name="T" pos=".32 0 {shape.height / 2}"><freejoint name="T"/>{geoms}</body>'


def parts(config: PushTConfig) -> SceneParts:
    """What Push-T adds to the shared scene."""
    goal = _geoms(config.shape, 0.0004, 'material="goal" contype="0" conaffinity="0"', None)
    tool = config.tool
    rod = (
        f'<geom name="rod" type="capsule" fromto=".03 0 0 .105 0 0" size="{tool.radius}" mass=".05" '
        f'rgba=".08 .08 .09 1" friction="{tool.friction}" contype="1" conaffinity="1"/>'
    )
    objects = f'{block(config.shape)}<body name="goal" mocap="true" pos=".32 0 {GOAL_HEIGHT}">{goal}</body>'
    return SceneParts(objects=objects, tool=rod, option=PHYSICS, gripper_collides=False)


def planning_model(config: PushTConfig) -> str:
    """T, table and a rod on two slides: what a push does, without the arm."""
    tool = config.tool
    return f"""<mujoco><option {PHYSICS}/><compiler angle="radian"/>
<default><geom solref=".006 1" condim="3"/></default><asset><material name="object"/></asset><worldbody>
<geom type="box" size=".5 .5 .02" pos=".3 0 -.02" friction=".5 .005 .0001"/>{block(config.shape)}
<body name="rod" pos="0 0 {tool.push_height + 0.02}"><joint name="x" type="slide" axis="1 0 0" damping="5"/>
<joint name="y" type="slide" axis="0 1 0" damping="5"/>
<geom type="capsule" size="{tool.radius} .02" mass=".5" friction="{tool.friction}"/></body></worldbody>
<actuator><position joint="x" kp="2000" kv="60"/><position joint="y" kp="2000" kv="60"/></actuator></mujoco>"""
