"""Trust: a calibrated probability, in [0, 1], that the model's frame is right (placeholder head; fitting follows)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

TRUST_FILE = "trust.safetensors"


@dataclass(frozen=True)
class TrustHead:
    """Logistic regression on standardised features: [F] mean, scale, weight and a scalar bias."""

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Trust [B] in [0, 1] from features [B, F]."""
        x = ((features.float().cpu() - self.mean) / self.scale).clamp(-6, 6)
        return torch.sigmoid(x @ self.weight + self.bias)

    def save(self, directory: Path) -> None:
        """Write ``trust.safetensors`` into a model directory."""
        save_file(
            {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}, directory / TRUST_FILE
        )

    @classmethod
    def load_if_present(cls, directory: Path) -> TrustHead | None:
        """The head of a model directory, or None where none was fitted."""
        path = directory / TRUST_FILE
        return cls(**load_file(path)) if path.is_file() else None
