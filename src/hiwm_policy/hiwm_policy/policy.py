"""What a policy is: recent observations in, a chunk of joint targets out. Backbones register themselves by name."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Rig
from pydantic import BaseModel, ConfigDict, Field, model_validator

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "policy.safetensors"


class PolicyError(ValueError):
    """A checkpoint or an observation that cannot be used; the text says what was expected and what was found."""


class CameraInput(BaseModel):
    """One camera a policy looks through; pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class PolicySpec(BaseModel):
    """What a policy reads and writes: the part of its configuration that its users need."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cameras: tuple[CameraInput, ...] = Field(min_length=1)
    joint_names: tuple[str, ...] = Field(min_length=1)
    rate_hz: float = Field(gt=0, description="control rate of the data it was trained on")
    history: int = Field(default=2, ge=1, description="observations it looks at, newest last")
    horizon: int = Field(default=16, ge=1, description="steps in a chunk")
    execute: int = Field(default=8, ge=1, description="steps after which a new chunk is asked for")

    @model_validator(mode="after")
    def _consistent(self) -> PolicySpec:
        if self.execute > self.horizon:
            raise ValueError(f"execute ({self.execute}) must not exceed horizon ({self.horizon})")
        return self

    def check_rig(self, rig: Rig) -> None:
        """Make sure that ``rig`` shows what this policy was trained on.

        Raises:
            PolicyError: naming the first difference.
        """
        if rig.joint_names != self.joint_names:
            raise PolicyError(
                f"rig '{rig.name}' has joints {list(rig.joint_names)}, the policy expects {list(self.joint_names)}"
            )
        if abs(rig.control_rate_hz - self.rate_hz) > 1e-6:
            raise PolicyError(
                f"rig '{rig.name}' runs at {rig.control_rate_hz} Hz, the policy expects {self.rate_hz} Hz"
            )
        for wanted in self.cameras:
            found = next((c for c in rig.cameras if c.name == wanted.name), None)
            if found is None:
                raise PolicyError(f"rig '{rig.name}' has no camera '{wanted.name}', the policy needs it")
            if (found.height, found.width) != (wanted.height, wanted.width):
                raise PolicyError(
                    f"camera '{wanted.name}' of rig '{rig.name}' is {found.width}x{found.height}, "
                    f"the policy expects {wanted.width}x{wanted.height}"
                )


@dataclass(frozen=True)
class PolicyObservation:
    """The recent past of B rigs, newest frame last.

    Attributes:
        images: camera name -> (B, T, height, width, 3) uint8 RGB.
        joints: (B, T, D) rad or m, in the order of the policy's joint names.
    """

    images: Mapping[str, npt.NDArray[np.uint8]]
    joints: npt.NDArray[np.float32]


class Policy(ABC):
    """A policy with its weights and its normalisation."""

    name: ClassVar[str] = ""
    spec: PolicySpec

    @abstractmethod
    def predict_action(self, observation: PolicyObservation) -> npt.NDArray[np.float32]:
        """The chunk that follows the newest observation: (B, horizon, D) absolute joint targets.

        Row j is the target for the control period that starts j periods after the newest observation.

        Raises:
            PolicyError: if the observation does not have the shapes of :attr:`spec`.
        """

    @abstractmethod
    def reset(self, seed: int | None = None) -> None:
        """Start a new episode; with a seed, the chunks that follow are reproducible."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write configuration and weights (written aside, then renamed)."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            PolicyError: if something is missing or does not fit together.
        """

    def check(self, observation: PolicyObservation) -> None:
        """Raise :class:`PolicyError` unless ``observation`` has the shapes of :attr:`spec`."""
        spec = self.spec
        shape = observation.joints.shape
        if observation.joints.ndim != 3 or shape[1:] != (spec.history, len(spec.joint_names)):
            raise PolicyError(f"joints must be (B, {spec.history}, {len(spec.joint_names)}), got {shape}")
        for camera in spec.cameras:
            image = observation.images.get(camera.name)
            if image is None:
                raise PolicyError(f"no image of camera '{camera.name}'; got {sorted(observation.images)}")
            expected = (shape[0], spec.history, camera.height, camera.width, 3)
            if image.shape != expected or image.dtype != np.uint8:
                raise PolicyError(
                    f"images of camera '{camera.name}' must be uint8 {expected}, got {image.dtype} {image.shape}"
                )


P = TypeVar("P", bound=type[Policy])
_REGISTRY: dict[str, type[Policy]] = {}


def register_policy(name: str) -> Callable[[P], P]:
    """Class decorator: make a backbone loadable under ``name``."""

    def add(cls: P) -> P:
        if name in _REGISTRY and _REGISTRY[name] is not cls:
            raise ValueError(f"policy '{name}' is registered twice")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def policy_names() -> list[str]:
    """Names of the registered backbones."""
    _import_backbones()
    return sorted(_REGISTRY)


def _import_backbones() -> None:
    # Importing a backbone registers it; a new one is one more line here.
    from hiwm_policy import diffusion  # noqa: F401


def read_config(directory: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        PolicyError: if the directory is no policy checkpoint.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise PolicyError(f"{directory}: no policy checkpoint here ({CONFIG_FILE} is missing)")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PolicyError(f"{path}: not JSON: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("policy"), str):
        raise PolicyError(f"{path}: expected a mapping with the key 'policy' (a backbone's name)")
    return raw


def load_policy(directory: str | Path, device: str = "cpu") -> Policy:
    """Load whatever backbone the checkpoint in ``directory`` names.

    Raises:
        PolicyError: if the checkpoint is missing, of an unknown backbone, or does not fit its configuration.
    """
    root = Path(directory)
    name = read_config(root)["policy"]
    _import_backbones()
    if name not in _REGISTRY:
        raise PolicyError(f"{root / CONFIG_FILE}: unknown policy '{name}'; expected one of {sorted(_REGISTRY)}")
    return _REGISTRY[name].load(root, device)
