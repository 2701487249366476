"""What a world model is: encode real frames once, then step an immutable, small, batched state.

Pure torch and numpy, no ROS. A model is a subclass of :class:`WorldModel` in its own subpackage, registered by name
(:mod:`hiwm_world_model.registry`). Everything a step produces must be a function of the state it returns:
:meth:`WorldModel.step` is ``advance`` followed by ``observe``, so a cached state shows the same frame bit for bit
whenever it is looked at again. Random numbers therefore live in the state (a counter-based seed), never in the model.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from hiwm_rig.files import write_json, written_aside
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import load_file
from safetensors.torch import save as tensors_to_bytes

if TYPE_CHECKING:
    from hiwm_world_model.trust import TrustHead

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Tensors = Mapping[str, torch.Tensor]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class ModelError(ValueError):
    """A world model that cannot be loaded or does not fit; the text names the file and what was expected."""


@dataclass(frozen=True)
class Context:
    """Constants of an episode, shared by all its states and stored once: a background, an object's appearance.

    Attributes:
        tensors: name -> [B, ...].
    """

    tensors: Tensors = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise as safetensors."""
        return _pack(self.tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Context:
        """The inverse of :meth:`to_bytes`."""
        return cls(tensors_from_bytes(data))

    def digest(self) -> str:
        """Content hash, the key under which a context is stored once."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]


@dataclass(frozen=True)
class State:
    """One moment of B worlds: an immutable value; keeping one is a snapshot.

    Attributes:
        tensors: name -> [B, ...]; at most 64 KiB a row, serialised.
        context: what does not change during the episode.
    """

    tensors: Tensors
    context: Context = field(default_factory=Context)

    @property
    def batch(self) -> int:
        """Number of worlds B."""
        return next(iter(self.tensors.values())).shape[0]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> State:
        """Apply ``function`` to every tensor, those of the context included."""
        return State(
            {k: function(v) for k, v in self.tensors.items()},
            Context({k: function(v) for k, v in self.context.tensors.items()}),
        )

    def rows(self, index: Sequence[int] | slice) -> State:
        """The chosen worlds, in that order; an index may repeat."""
        chosen = index if isinstance(index, slice) else list(index)
        return self.map(lambda t: t[chosen])

    def repeat(self, count: int) -> State:
        """``count`` copies of a single world."""
        return self.rows([0] * count)

    def replace(self, tensors: Tensors) -> State:
        """A state of the same episode with other tensors."""
        return State(tensors, self.context)

    def to_bytes(self) -> bytes:
        """Serialise without the context, as safetensors."""
        return _pack(self.tensors)

    @classmethod
    def from_bytes(cls, data: bytes, context: Context) -> State:
        """The inverse of :meth:`to_bytes`."""
        return cls(tensors_from_bytes(data), context)


def stack_states(states: Sequence[State]) -> State:
    """One batched state from several, in order."""
    first = states[0]
    return State(
        {k: torch.cat([s.tensors[k] for s in states]) for k in first.tensors},
        Context({k: torch.cat([s.context.tensors[k] for s in states]) for k in first.context.tensors}),
    )


def _pack(tensors: Tensors) -> bytes:
    return tensors_to_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()})


@dataclass(frozen=True)
class StepResult:
    """What B worlds show in a state.

    Attributes:
        state: the state all else was computed from.
        images: camera -> [B, H, W, 3] uint8 RGB.
        joints: [B, D] float32, rad or m, in the order of ``ModelSpec.joint_names``.
        success_probability: [B] float32 in [0, 1], learned.
        trust: [B] float32 in [0, 1]; NaN where no trust head was fitted.
    """

    state: State
    images: dict[str, Images]
    joints: Floats
    success_probability: Floats
    trust: Floats


class CameraSpec(BaseModel):
    """Size of one camera's image in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class ModelSpec(BaseModel):
    """The rig a model was trained for; compared with the rig file before anything runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rig: str
    joint_names: tuple[str, ...] = Field(min_length=1)
    cameras: tuple[CameraSpec, ...] = Field(min_length=1)
    control_rate_hz: float = Field(gt=0)
    context_frames: int = Field(default=1, ge=1, description="real frames encode() wants; fewer are allowed")


@dataclass(frozen=True)
class TrainOptions:
    """What ``hiwm train world`` passes on to a model.

    Attributes:
        data: dataset directories (LeRobotDataset v3), concatenated.
        out: model directory to write.
        rig: rig name or file, for joint names and rates.
        seed: of every random number.
        device: torch device; mixed precision is used on ``cuda`` when ``amp`` is set.
        resume: continue from the checkpoint in ``out`` if there is one.
        smoke: the smallest run that passes through every stage (tests).
        overrides: model-specific configuration keys; an unknown key is an error.
    """

    data: tuple[Path, ...]
    out: Path
    rig: str = "push_t"
    seed: int = 0
    device: str = "cpu"
    amp: bool = False
    resume: bool = True
    smoke: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)


class WorldModel(ABC):
    """An action-conditioned model of images, joints and success.

    A subclass provides ``encode``, ``advance``, ``render``, ``joints``, ``success`` and the three methods for saving;
    ``features`` where it has something to say about its own certainty.
    """

    #: set by ``register_world_model``
    name: ClassVar[str] = ""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.trust_head: TrustHead | None = None
        #: name and hash of the checkpoint, set by :meth:`load`
        self.identity = f"{self.name}:unsaved"

    # --- what a model must say -------------------------------------------------------------------------------------
    @abstractmethod
    def encode(self, images: Mapping[str, Images], joints: Floats) -> State:
        """State at the last of T real frames.

        Args:
            images: camera -> [B, T, H, W, 3] uint8 RGB, T >= 1.
            joints: [B, T, D], rad or m.
        """

    @abstractmethod
    def advance(self, state: State, action: torch.Tensor) -> State:
        """Next state after one control period in which the joints are sent to ``action`` [B, A]; deterministic."""

    @abstractmethod
    def render(self, state: State) -> dict[str, Images]:
        """Camera -> [B, H, W, 3] uint8 RGB of the state."""

    @abstractmethod
    def joints(self, state: State) -> torch.Tensor:
        """[B, D] joint positions of the state."""

    @abstractmethod
    def success(self, state: State) -> torch.Tensor:
        """[B] learned probability in [0, 1] that the task is done in the state."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything but the weights that :meth:`from_parts` needs, as JSON values."""

    @abstractmethod
    def weights(self) -> Tensors:
        """All weights by name."""

    @classmethod
    @abstractmethod
    def from_parts(cls, spec: ModelSpec, config: Mapping[str, Any], weights: Tensors) -> Self:
        """The inverse of :meth:`config` and :meth:`weights`."""

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move the weights; states made afterwards live there."""

    @classmethod
    def train(cls, options: TrainOptions) -> None:
        """Train from recorded datasets and write ``options.out``."""
        raise NotImplementedError(f"world model '{cls.name}' cannot be trained by this command")

    def features(self, state: State) -> torch.Tensor:
        """[B, F] what the trust head looks at: distances to the training data, disagreement, age of the rollout.

        Any scale; larger or smaller may mean worse. Without an override the joints and the success probability.
        """
        return torch.cat([self.joints(state).float(), self.success(state).float()[:, None]], dim=1)

    # --- what follows from it --------------------------------------------------------------------------------------
    @torch.inference_mode()
    def observe(self, state: State) -> StepResult:
        """What the state shows; a pure function of it."""
        if self.trust_head is None:
            trust = np.full(state.batch, np.nan, np.float32)
        else:
            trust = self.trust_head(self.features(state)).cpu().numpy().astype(np.float32)
        return StepResult(
            state=state,
            images=self.render(state),
            joints=self.joints(state).float().cpu().numpy(),
            success_probability=self.success(state).float().cpu().numpy(),
            trust=trust,
        )

    @torch.inference_mode()
    def step(self, state: State, action: npt.ArrayLike | torch.Tensor) -> StepResult:
        """Advance by one control period and look.

        Args:
            state: B worlds.
            action: [B, A] absolute joint targets for this period, rad or m.
        """
        device = next(iter(state.tensors.values())).device
        targets = torch.as_tensor(np.asarray(action, np.float32) if not torch.is_tensor(action) else action)
        if targets.shape != (state.batch, len(self.spec.joint_names)):
            raise ValueError(f"action must be {(state.batch, len(self.spec.joint_names))}, got {tuple(targets.shape)}")
        return self.observe(self.advance(state, targets.to(device=device, dtype=torch.float32)))

    def save(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, each aside first and then renamed."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {"model": self.name, "format": 1, "spec": self.spec.model_dump(mode="json"), "config": self.config()}
        with written_aside(directory / WEIGHTS_FILE) as partial:
            partial.write_bytes(_pack(self.weights()))
        write_json(directory / CONFIG_FILE, config)
        if self.trust_head is not None:
            self.trust_head.save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read a model directory written by :meth:`save`; the weights are on the CPU.

        Raises:
            ModelError: naming the file that is missing or does not fit.
        """
        from hiwm_world_model.trust import TrustHead

        directory = Path(directory)
        raw = read_config(directory)
        if raw["model"] != cls.name:
            raise ModelError(f"{directory / CONFIG_FILE}: holds a '{raw['model']}' model, expected '{cls.name}'")
        weights_path = directory / WEIGHTS_FILE
        try:
            spec = ModelSpec.model_validate(raw["spec"])
            model = cls.from_parts(spec, raw["config"], load_file(weights_path))
        except FileNotFoundError as error:
            raise ModelError(f"{weights_path}: missing; expected the weights that belong to {CONFIG_FILE}") from error
        except SafetensorError as error:
            raise ModelError(f"{weights_path}: not a readable safetensors file ({error})") from error
        except (ValidationError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelError(f"{directory}: weights and {CONFIG_FILE} do not fit each other: {error}") from error
        model.trust_head = TrustHead.load_if_present(directory)
        model.identity = f"{cls.name}:{file_digest(weights_path)}"
        return model


def read_config(directory: str | Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a model directory, with the keys every model has.

    Raises:
        ModelError: naming the file and what was expected.
    """
    path = Path(directory) / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; expected the directory of a trained world model") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    for key in ("model", "spec", "config"):
        if not isinstance(raw, dict) or key not in raw:
            raise ModelError(f"{path}: key '{key}' is missing; expected a config.json written by a world model")
    return raw


def file_digest(path: str | Path) -> str:
    """First 12 hex digits of a file's SHA-256."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
