"""The MuJoCo scene every task shares: arm, gripper, table, cameras, light, distractors.

A task adds its objects through :class:`SceneParts`. Metres, radians, kilograms. Nothing here depends on ROS.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from hiwm_rig.contract import Camera, Rig

from hiwm_sim.camera import MOUNTS
from hiwm_sim.ik import ArmGeometry

ARM_JOINTS = 6
DISTRACTORS = ("box", "sphere", "cylinder", "capsule")
"""Shapes of the distractor bodies, parked out of sight below the table until a visual variation shows them."""


class SceneError(ValueError):
    """A rig file this simulated rig cannot stand in for."""


@dataclass(frozen=True)
class SceneParts:
    """What a task adds to the shared scene, as MJCF fragments.

    Attributes:
        objects: bodies of the world.
        tool: geoms of the hand (a rod to push with; empty for the bare gripper).
        option: attributes of ``<option>``.
        assets: extra materials and textures.
        equality: extra equality constraints.
        contact: extra contact pairs or exclusions.
        gripper_collides: whether the finger pads touch objects (off while the gripper only holds a tool).
    """

    objects: str
    tool: str = ""
    option: str = 'timestep="0.005" integrator="implicitfast" cone="elliptic" impratio="5"'
    assets: str = ""
    equality: str = ""
    contact: str = ""
    gripper_collides: bool = True


def wrist_camera(width: int = 128, height: int = 128) -> Camera:
    """The optional wrist camera, to be added to a rig's cameras."""
    return Camera(name="wrist", width=width, height=height, fovy_deg=70.0)


def _check(rig: Rig) -> None:
    if len(rig.arms) != 1 or len(rig.joints) != ARM_JOINTS + 1:
        raise SceneError(
            f"rig '{rig.name}': the simulated rig is one arm with {ARM_JOINTS} revolute joints and a gripper, "
            f"the rig file has {len(rig.arms)} arm(s) with {len(rig.joints)} joints"
        )
    kinds = [j.type for j in rig.joints]
    if kinds != ["revolute"] * ARM_JOINTS + ["prismatic"]:
        raise SceneError(f"rig '{rig.name}': expected six revolute joints and a prismatic gripper, got {kinds}")
    for camera in rig.cameras:
        if camera.name not in MOUNTS:
            raise SceneError(f"rig '{rig.name}': no mount for camera '{camera.name}'; there are {sorted(MOUNTS)}")


def _cameras(rig: Rig, body: str) -> str:
    return "".join(
        f'<camera name="{c.name}" {MOUNTS[c.name].mjcf()} fovy="{c.fovy_deg}"/>'
        for c in rig.cameras
        if MOUNTS[c.name].body == body
    )


def _distractors() -> str:
    return "".join(
        f'<body name="distractor{i}" mocap="true" pos="{-0.3 - 0.1 * i} 0 -.5">'
        f'<geom name="distractor{i}" type="{shape}" size=".018 .018 .018" contype="0" conaffinity="0"/></body>'
        for i, shape in enumerate(DISTRACTORS)
    )


def _joint_fields(rig: Rig) -> dict[str, str]:
    return {f"j{i}": f'name="{j.name}" range="{j.lower} {j.upper}"' for i, j in enumerate(rig.joints[:ARM_JOINTS])}


def build_mjcf(rig: Rig, parts: SceneParts) -> str:
    """The whole scene as MJCF text.

    Raises:
        SceneError: if the rig file describes another kind of arm or an unknown camera.
    """
    _check(rig)
    geometry = ArmGeometry()
    gripper = rig.joints[ARM_JOINTS]
    template = resources.files("hiwm_sim").joinpath("assets", "scene.xml").read_text(encoding="utf-8")
    fields = {
        **_joint_fields(rig),
        **{f"n{i}": j.name for i, j in enumerate(rig.joints)},
        "model": rig.name,
        "gripper_range": f"{gripper.lower} {gripper.upper}",
        "option": parts.option,
        "assets": parts.assets,
        "objects": parts.objects,
        "tool": parts.tool,
        "equality": parts.equality,
        "contact": parts.contact,
        "pads": "" if parts.gripper_collides else 'contype="0" conaffinity="0"',
        "world_cameras": _cameras(rig, "world"),
        "hand_cameras": _cameras(rig, "hand"),
        "distractors": _distractors(),
        "offwidth": str(max(c.width for c in rig.cameras)),
        "offheight": str(max(c.height for c in rig.cameras)),
        "upper": f"{geometry.upper_length}",
        "offset": f"{geometry.upper_offset}",
    }
    for key, value in fields.items():
        template = template.replace("{{" + key + "}}", value)
    return template
