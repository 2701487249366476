"""Weights of a checkpoint: safetensors, written aside and renamed, so that a kill never leaves half a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hiwm_rig.files import written_aside
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hiwm_policy.policy import PolicyError


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to ``path``."""
    with written_aside(path) as partial:
        save_file(dict(tensors), partial, metadata=dict(metadata or {}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        PolicyError: if the file is missing or broken.
    """
    if not path.is_file():
        raise PolicyError(f"{path}: the checkpoint's weights are missing")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"{path}: not a readable safetensors file: {error}") from error
