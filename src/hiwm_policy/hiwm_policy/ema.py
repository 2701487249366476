"""Exponential moving average of weights: what is saved and evaluated."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """A slowly following copy of a module.

    Args:
        module: what to follow.
        decay: limit of the decay; early on the average is shorter, so that it does not remember the initialisation.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Follow ``module`` after optimiser step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average: list[torch.Tensor] = list(self.module.parameters())
        current: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(average, current, 1 - decay)
        for buffer, value in zip(self.module.buffers(), module.buffers(), strict=True):
            buffer.copy_(value)
