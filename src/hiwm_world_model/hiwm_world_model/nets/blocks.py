"""Building blocks and their initialisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Residual branches start small: with Kaiming weights alone the variance doubles per block.
RESIDUAL_SCALE = 0.4


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class ResBlock(nn.Module):
    """Pre-activation residual block, [B, C, H, W] -> [B, C, H, W], with an optional embedding [B, E] added inside."""

    def __init__(self, channels: int, embedding: int = 0) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv(channels, channels)
        self.embed = nn.Linear(embedding, channels) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return x plus the residual branch."""
        h = self.first(F.silu(x))
        if self.embed is not None and embedding is not None:
            h = h + self.embed(embedding)[:, :, None, None]
        return x + self.second(F.silu(h))


def mlp(inputs: int, width: int, outputs: int, hidden: int = 2) -> nn.Sequential:
    """SiLU network with ``hidden`` hidden layers, [..., inputs] -> [..., outputs]."""
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.SiLU()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(width, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def initialise(module: nn.Module) -> nn.Module:
    """Kaiming weights, zero biases, scaled residual branches; PyTorch's own defaults hardly learn at these sizes."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    for m in module.modules():
        if isinstance(m, ResBlock):
            with torch.no_grad():
                m.second.weight.mul_(RESIDUAL_SCALE)
    return module


def count_parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
