"""The denoiser: a residual MLP over the flattened chunk, modulated (FiLM) by the observation and the diffusion step.

A chunk of 16 x 7 numbers is small; an MLP costs a tenth of a 1D U-Net on a CPU, so more noise levels fit in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def step_embedding(steps: Tensor, dim: int) -> Tensor:
    """(B,) diffusion steps -> (B, dim) sines and cosines."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=steps.device) * (-math.log(10_000.0) / (half - 1)))
    angles = steps.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class FilmBlock(nn.Module):
    """A residual block whose normalised input is scaled and shifted by the condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, width), (B, condition) -> (B, width)."""
        scale, shift = self.film(condition).chunk(2, dim=-1)
        h = self.norm(x) * (1 + scale) + shift
        return x + self.down(nn.functional.silu(self.up(h)))


class Denoiser(nn.Module):
    """Noisy chunk scores, diffusion steps and observation features -> the prediction the scheduler expects."""

    def __init__(self, horizon: int, dim: int, condition: int, width: int, blocks: int, step_dim: int = 64) -> None:
        super().__init__()
        self.shape = (horizon, dim)
        self.step_dim = step_dim
        self.step = nn.Sequential(nn.Linear(step_dim, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.enter = nn.Linear(horizon * dim, width)
        self.blocks = nn.ModuleList(FilmBlock(width, condition) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * dim))

    def forward(self, noisy: Tensor, steps: Tensor, features: Tensor) -> Tensor:
        """(B, H, D), (B,), (B, condition) -> (B, H, D)."""
        condition = nn.functional.silu(features + self.step(step_embedding(steps, self.step_dim)))
        h = self.enter(noisy.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.leave(h)
        return out.view(-1, *self.shape)
