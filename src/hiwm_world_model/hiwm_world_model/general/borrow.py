"""Joint predictor and arm renderer of another model of the same rig; of a general model its dynamics too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hiwm_world_model.interface import WEIGHTS_FILE, ModelError

PARTS: Mapping[str, tuple[str, ...]] = {"joints": ("joints.",), "arm": ("arm.", "arms.0.")}
PICTURES = "dynamics.base_luma"  # a weight that only the dynamics of a general model have


@dataclass(frozen=True)
class Borrowed:
    """Weights by the names within each part."""

    joints: Mapping[str, Tensor]
    arm: Mapping[str, Tensor]
    dynamics: Mapping[str, Tensor]  # empty unless the other model is a general one

    @property
    def arm_channels(self) -> int:
        """Width of the arm renderer."""
        return int(self.arm["net.0.weight"].shape[0])


def borrow(directory: str | Path) -> Borrowed:
    """Read both parts from a model directory, or from a run directory with one file per finished stage.

    Raises:
        ModelError: naming the directory and what is missing in it.
    """
    directory = Path(directory)
    whole = directory / WEIGHTS_FILE
    tensors = load_file(whole) if whole.is_file() else {}
    found: dict[str, dict[str, Tensor]] = {}
    for part, prefixes in PARTS.items():
        stage = directory / f"{part}.safetensors"
        named = {k.removeprefix(p): v for p in prefixes for k, v in tensors.items() if k.startswith(p)}
        found[part] = named if named or not stage.is_file() else load_file(stage)
        if not found[part]:
            raise ModelError(f"{directory}: expected a trained model or run that holds '{part}', found none")
    if PICTURES in tensors:
        found["dynamics"] = {k.removeprefix("dynamics."): v for k, v in tensors.items() if k.startswith("dynamics.")}
    as_floats = {p: {k: v.float() if v.is_floating_point() else v for k, v in t.items()} for p, t in found.items()}
    return Borrowed(as_floats["joints"], as_floats["arm"], as_floats.get("dynamics", {}))
