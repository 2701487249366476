"""Next joint positions from joints and commands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiwm_world_model.nets.blocks import mlp

# Joint and command differences within one period are small; scaled they weigh as much as the positions.
DIFFERENCE_GAIN = 10.0
OUTPUT_GAIN = 0.1


class JointPredictor(nn.Module):
    """One control period of an arm under absolute joint targets.

    Takes and returns rad or m; the normalisation is part of the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, joints: int, width: int = 128) -> None:
        super().__init__()
        self.net = mlp(joints * 3, width, joints)
        self.register_buffer("mean", torch.zeros(joints))
        self.register_buffer("std", torch.ones(joints))

    @torch.no_grad()
    def fit_normalisation(self, joints: Tensor, floor: float = 1e-3) -> None:
        """Take mean and deviation from recorded joints [N, D]."""
        self.mean.copy_(joints.mean(0))
        self.std.copy_(joints.std(0) + floor)

    def normalise(self, joints: Tensor) -> Tensor:
        """Rad or m -> zero mean, unit deviation."""
        return (joints - self.mean) / self.std

    def forward(self, joints: Tensor, previous: Tensor, action: Tensor) -> Tensor:
        """[B, D] now, one period ago, and the target in effect -> [B, D] one period later."""
        now, before, target = self.normalise(joints), self.normalise(previous), self.normalise(action)
        inputs = torch.cat([now, (now - before) * DIFFERENCE_GAIN, (target - now) * DIFFERENCE_GAIN], -1)
        return joints + OUTPUT_GAIN * self.net(inputs) * self.std
