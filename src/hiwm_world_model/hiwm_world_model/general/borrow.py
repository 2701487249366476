"""Joint predictor and arm renderer of another trained model of the same rig, so that they need no second training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hiwm_world_model.interface import WEIGHTS_FILE, ModelError

PARTS: Mapping[str, tuple[str, ...]] = {"joints": ("joints.",), "arm": ("arm.", "arms.0.")}


@dataclass(frozen=True)
class Borrowed:
    """Weights of the two parts, by the names within them."""

    joints: Mapping[str, Tensor]
    arm: Mapping[str, Tensor]

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
    found: dict[str, dict[str, Tensor]] = {}
    for part, prefixes in PARTS.items():
        whole, stage = directory / WEIGHTS_FILE, directory / f"{part}.safetensors"
        if whole.is_file():
            tensors = load_file(whole)
            found[part] = {k.removeprefix(p): v for p in prefixes for k, v in tensors.items() if k.startswith(p)}
        elif stage.is_file():
            found[part] = load_file(stage)
        if not found.get(part):
            raise ModelError(f"{directory}: expected a trained model or run that holds '{part}', found none")
    as_floats = {p: {k: v.float() if v.is_floating_point() else v for k, v in t.items()} for p, t in found.items()}
    return Borrowed(as_floats["joints"], as_floats["arm"])
