"""The rig file: the one place where a topic, a joint, a limit, a camera or a rate is written.

Pure data: no ROS, no numpy. A rig file is YAML; :func:`load_rig` reads and validates it.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hiwm_rig.hardware import ArmHardware

Topic = Annotated[str, Field(pattern=r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$")]
Positive = Annotated[float, Field(gt=0)]


class RigFileError(ValueError):
    """A rig file that cannot be used; the text names the file, the key and what was expected."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Joint(_Frozen):
    """One joint. Revolute joints in rad, prismatic joints (a gripper) in m."""

    name: str = Field(min_length=1)
    type: Literal["revolute", "prismatic"] = "revolute"
    lower: float
    upper: float
    max_velocity: Positive = Field(description="rad/s or m/s")

    @model_validator(mode="after")
    def _ordered(self) -> Joint:
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower}) must be below upper ({self.upper}) for joint '{self.name}'")
        return self


class Arm(_Frozen):
    """One follower arm with its leader: joints in order, topics, home position."""

    name: str = "follower"
    joints: tuple[Joint, ...] = Field(min_length=1)
    home: tuple[float, ...] = Field(description="rad or m, in joint order")
    state_rate_hz: Positive = 10.0
    joint_states: Topic = "/follower/joint_states"
    command: Topic = "/follower/joint_trajectory"
    policy_command: Topic = "/policy/joint_trajectory"
    leader_joint_states: Topic = "/leader/joint_states"
    leader_command: Topic = "/leader/joint_trajectory"
    hardware: ArmHardware | None = Field(default=None, description="servos of the physical rig, see hiwm_rig.hardware")

    @property
    def leader_name(self) -> str:
        """Name of the arm's leader, where it has to be told from the arm: its services and its emulated port."""
        return f"{self.name}_leader"

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Joint names in order."""
        return tuple(j.name for j in self.joints)

    @model_validator(mode="after")
    def _consistent(self) -> Arm:
        names = self.joint_names
        if len(set(names)) != len(names):
            raise ValueError(f"joint names must be unique, got {list(names)}")
        if len(self.home) != len(self.joints):
            raise ValueError(f"home must have {len(self.joints)} values (one per joint), got {len(self.home)}")
        for joint, value in zip(self.joints, self.home, strict=True):
            if not joint.lower <= value <= joint.upper:
                raise ValueError(f"home of joint '{joint.name}' ({value}) is outside [{joint.lower}, {joint.upper}]")
        if self.hardware is not None:
            self.hardware.check_joints(names)
        return self


class CameraHardware(_Frozen):
    """The RealSense device behind a camera, or a recording of one.

    Both empty: the first device found, which only a rig with one camera may rely on.
    """

    serial: str = Field(default="", pattern=r"^[A-Za-z0-9]*$", description="as printed on the device")
    recording: str = Field(default="", description="file written by librealsense, played in a loop instead of a device")
    width: int = Field(default=640, gt=0, description="colour profile of the device, before scaling")
    height: int = Field(default=480, gt=0)
    fps: int = Field(default=30, gt=0)
    depth: bool = Field(default=False, description="also publish depth aligned to colour")

    @model_validator(mode="after")
    def _one_source(self) -> CameraHardware:
        if self.serial and self.recording:
            raise ValueError(f"give serial ({self.serial}) or recording ({self.recording}), not both")
        return self


class Camera(_Frozen):
    """One colour camera, published as realsense2_camera does for this namespace and name."""

    name: str = Field(min_length=1)
    namespace: str = "camera"
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    rate_hz: Positive = 10.0
    encoding: Literal["rgb8", "bgr8"] = "rgb8"
    fovy_deg: float = Field(
        default=42.0, gt=0, lt=180, description="vertical field of view, where no calibration is known"
    )
    hardware: CameraHardware = CameraHardware()

    @property
    def image_topic(self) -> str:
        """Topic of ``sensor_msgs/Image``."""
        return f"/{self.namespace}/{self.name}/color/image_raw"

    @property
    def info_topic(self) -> str:
        """Topic of ``sensor_msgs/CameraInfo``."""
        return f"/{self.namespace}/{self.name}/color/camera_info"

    @property
    def depth_topic(self) -> str:
        """Topic of depth aligned to colour (``16UC1``, millimetres, REP 118)."""
        return f"/{self.namespace}/{self.name}/aligned_depth_to_color/image_raw"

    @property
    def depth_info_topic(self) -> str:
        """Topic of the aligned depth's ``CameraInfo``."""
        return f"/{self.namespace}/{self.name}/aligned_depth_to_color/camera_info"

    @property
    def frame_id(self) -> str:
        """Optical frame id (REP 103)."""
        return f"{self.name}_color_optical_frame"


class Topics(_Frozen):
    """Topics that belong to no single arm or camera."""

    control_state: Topic = "/hiwm/control_state"
    episode: Topic = "/hiwm/episode"
    world_state: Topic = "/hiwm/world_state"
    diagnostics: Topic = "/diagnostics"


class Qos(_Frozen):
    """Quality of service of the rig's topics."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    depth: int = Field(default=1, ge=1)


class QosSet(_Frozen):
    """Quality of service by kind of topic."""

    images: Qos = Qos(depth=2)
    joint_states: Qos = Qos(depth=10)
    commands: Qos = Qos(depth=1)


class Timeouts(_Frozen):
    """Ages in seconds above which a source is stale: its consumer holds."""

    leader_s: Positive = 0.25
    policy_s: Positive = 0.5
    rig_s: Positive = 0.5
    command_s: Positive = 0.5


class Rig(_Frozen):
    """A whole rig: arms, cameras, rates, topics, quality of service."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    description: str = ""
    task: str = Field(default="", description="default task; tasks register themselves by this name")
    control_rate_hz: Positive = 10.0
    arms: tuple[Arm, ...] = Field(min_length=1)
    cameras: tuple[Camera, ...] = Field(min_length=1)
    topics: Topics = Topics()
    qos: QosSet = QosSet()
    timeouts: Timeouts = Timeouts()

    @field_validator("cameras")
    @classmethod
    def _unique_cameras(cls, cameras: tuple[Camera, ...]) -> tuple[Camera, ...]:
        names = [c.name for c in cameras]
        if len(set(names)) != len(names):
            raise ValueError(f"camera names must be unique, got {names}")
        return cameras

    @field_validator("arms")
    @classmethod
    def _unique_joints(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        names = [n for a in arms for n in a.joint_names]
        if len(set(names)) != len(names):
            raise ValueError(f"joint names must be unique over all arms, got {names}")
        for key in ("name", "joint_states", "command", "policy_command", "leader_joint_states", "leader_command"):
            values = [getattr(a, key) for a in arms]
            if len(set(values)) != len(values):
                raise ValueError(f"each arm needs its own '{key}', got {values}")
        return arms

    @property
    def period_s(self) -> float:
        """Control period in seconds."""
        return 1.0 / self.control_rate_hz

    @property
    def joints(self) -> tuple[Joint, ...]:
        """All joints, arm after arm."""
        return tuple(j for a in self.arms for j in a.joints)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of all joints, arm after arm."""
        return tuple(j.name for j in self.joints)

    @property
    def home(self) -> tuple[float, ...]:
        """Home position of all joints, arm after arm."""
        return tuple(v for a in self.arms for v in a.home)

    def camera(self, name: str) -> Camera:
        """The camera of that name.

        Raises:
            KeyError: naming the cameras there are.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"rig '{self.name}' has no camera '{name}'; it has {[c.name for c in self.cameras]}")


def _describe(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(top level)"
        lines.append(f"{source}: key '{key}': {item['msg']}, got {item['input']!r:.80}")
    return "\n".join(lines)


def parse_rig(text: str, source: str = "<string>") -> Rig:
    """Read a rig from YAML text.

    Raises:
        RigFileError: naming ``source``, the key, and what was expected.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RigFileError(f"{source}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RigFileError(f"{source}: expected a mapping of keys at the top level, got {type(raw).__name__}")
    try:
        return Rig.model_validate(raw)
    except ValidationError as error:
        raise RigFileError(_describe(error, source)) from error


def builtin_rigs() -> list[str]:
    """Names of the rig files shipped with this package."""
    return sorted(
        p.name.removesuffix(".yaml")
        for p in resources.files("hiwm_rig").joinpath("rigs").iterdir()
        if p.name.endswith(".yaml")
    )


def load_rig(source: str | Path) -> Rig:
    """Load a rig by the name of a shipped rig file (``push_t``) or by path.

    Raises:
        RigFileError: if there is no such rig, or it does not validate.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RigFileError(f"{path}: no such rig file; shipped rigs: {', '.join(builtin_rigs())}")
        return parse_rig(path.read_text(encoding="utf-8"), str(path))
    shipped = resources.files("hiwm_rig").joinpath("rigs", f"{source}.yaml")
    if not shipped.is_file():
        raise RigFileError(
            f"no shipped rig '{source}'; expected one of {', '.join(builtin_rigs())}, or the path of a .yaml file"
        )
    return parse_rig(shipped.read_text(encoding="utf-8"), f"{source}.yaml")
