"""A complete world model, small enough for tests: a network moves a block that the joints push around."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from hiwm_rig.contract import load_rig
from hiwm_world_model.interface import CameraSpec, Context, Images, ModelSpec, State, Tensors, WorldModel
from hiwm_world_model.registry import register_world_model

SIZE = 128
HIDDEN = 16


def tiny_spec(rig_name: str = "push_t") -> ModelSpec:
    rig = load_rig(rig_name)
    cameras = tuple(CameraSpec(name=c.name, height=c.height, width=c.width) for c in rig.cameras)
    return ModelSpec(rig=rig.name, joint_names=rig.joint_names, cameras=cameras, control_rate_hz=rig.control_rate_hz)


def tiny_frames(seed: int, rig_name: str = "push_t") -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    rig = load_rig(rig_name)
    images = {c.name: rng.integers(0, 200, (c.height, c.width, 3), dtype=np.uint8) for c in rig.cameras}
    return images, np.asarray(rig.home, np.float32) + rng.normal(0, 0.01, len(rig.home)).astype(np.float32)


@register_world_model("tiny")
class TinyWorldModel(WorldModel):
    """State: joints [B, D], block [B, 2] in pixels, memory [B, HIDDEN]; context: one background per camera."""

    def __init__(self, spec: ModelSpec, weights: Tensors) -> None:
        super().__init__(spec)
        self._w = dict(weights)

    @classmethod
    def make(cls, seed: int, rig_name: str = "push_t") -> TinyWorldModel:
        spec = tiny_spec(rig_name)
        g = torch.Generator().manual_seed(seed)
        size = 2 * len(spec.joint_names) + HIDDEN
        return cls(spec, {"mix": torch.randn(size, HIDDEN, generator=g), "out": torch.randn(HIDDEN, 2, generator=g)})

    def encode(self, images: Mapping[str, Images], joints: np.ndarray) -> State:
        backgrounds = {k: torch.as_tensor(v[:, -1].copy()) for k, v in images.items()}
        batch = joints.shape[0]
        block = torch.full((batch, 2), SIZE / 2.0)
        tensors = {"joints": torch.as_tensor(joints[:, -1]), "block": block, "memory": torch.zeros(batch, HIDDEN)}
        return State(tensors, Context(backgrounds))

    def advance(self, state: State, action: torch.Tensor) -> State:
        t = state.tensors
        joints = t["joints"] + 0.7 * (action - t["joints"])
        # a transposed result: the live state has another memory layout than a restored one
        memory = torch.tanh(self._w["mix"].t() @ torch.cat([t["joints"], action, t["memory"]], 1).t()).t()
        block = (t["block"] + memory @ self._w["out"]).clamp(8, SIZE - 8)
        return state.replace({"joints": joints, "block": block, "memory": memory})

    def render(self, state: State) -> dict[str, Images]:
        frames = {}
        for name, background in state.context.tensors.items():
            image = background.numpy().copy()
            for i, (x, y) in enumerate(state.tensors["block"].round().int().tolist()):
                y, x = y * image.shape[1] // SIZE, x * image.shape[2] // SIZE
                image[i, max(y - 6, 0) : y + 6, max(x - 6, 0) : x + 6] = (250, 40, 40)
            image[:, 0, :HIDDEN] = (state.tensors["memory"].numpy()[..., None] * 127 + 128).astype(np.uint8)
            frames[name] = image
        return frames

    def joints(self, state: State) -> torch.Tensor:
        return state.tensors["joints"]

    def success(self, state: State) -> torch.Tensor:
        return torch.sigmoid(state.tensors["block"][:, 0] - SIZE / 2.0)

    def config(self) -> dict[str, Any]:
        return {"hidden": HIDDEN}

    def weights(self) -> Tensors:
        return self._w

    @classmethod
    def from_parts(cls, spec: ModelSpec, config: Mapping[str, Any], weights: Tensors) -> Self:
        if config["hidden"] != HIDDEN or weights["mix"].shape != (2 * len(spec.joint_names) + HIDDEN, HIDDEN):
            raise ValueError(f"weights are of another size than {config}")
        return cls(spec, weights)

    def to(self, device: str | torch.device) -> Self:
        self._w = {k: v.to(device) for k, v in self._w.items()}
        return self


def node_command(*arguments: str) -> list[str]:
    """Command line of the virtual-robot node in a process that knows this model."""
    here = str(Path(__file__).parent)
    lines = (
        f"import sys; sys.path.insert(0, {here!r})",
        "import tiny_world_model",
        "from hiwm_world_model.node import main",
    )
    code = "; ".join((*lines, "sys.exit(main())"))
    return [sys.executable, "-c", code, "--ros-args", *(a for item in arguments for a in ("-p", item))]
