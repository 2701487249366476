"""The picture of an arm from its joint positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiwm_world_model.nets.blocks import ResBlock, conv, initialise

UPSAMPLING = 8  # the decoder's last layers: pixel shuffles by 2 and 4


class ArmRenderer(nn.Module):
    """Joints -> colour and coverage of everything that moves with the joints, seen by one fixed camera.

    Trained with an L1 loss on whole frames it converges to the median image per joint configuration, which hides
    everything that does not depend on the joints. Coverage is not learned (a learned alpha collapsed into the
    background) but follows from the contrast to the background.
    """

    background: Tensor
    mean: Tensor
    std: Tensor
    contrast: Tensor

    def __init__(self, joints: int, size: tuple[int, int] = (128, 128), width: int = 48, code: int = 32) -> None:
        super().__init__()
        height, cols = size
        if height % UPSAMPLING or cols % UPSAMPLING:
            raise ValueError(f"image size {size} must be a multiple of {UPSAMPLING}")
        self.grid = (height // UPSAMPLING, cols // UPSAMPLING)
        self.code = code
        cells = self.grid[0] * self.grid[1]
        self.lift = nn.Sequential(nn.Linear(joints * 5, 160), nn.SiLU(), nn.Linear(160, code * cells))
        self.net = nn.Sequential(
            conv(code, width), ResBlock(width), nn.SiLU(), conv(width, width * 4), nn.PixelShuffle(2),
            ResBlock(width), nn.SiLU(), conv(width, 3 * 16), nn.PixelShuffle(4),
        )  # fmt: skip
        self.position = nn.Parameter(torch.randn(1, code, *self.grid) * 0.2)
        self.register_buffer("background", torch.zeros(1, 3, height, cols))
        self.register_buffer("mean", torch.zeros(joints))
        self.register_buffer("std", torch.ones(joints))
        self.register_buffer("contrast", torch.tensor([0.07, 0.21]))  # coverage 0 and 1; fit_contrast sets them
        initialise(self)
        last = self.net[-2]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():
            last.weight.mul_(0.2)

    @torch.no_grad()
    def fit_normalisation(self, joints: Tensor, floor: float = 1e-3) -> None:
        """Take mean and deviation from recorded joints [N, D]."""
        self.mean.copy_(joints.mean(0))
        self.std.copy_(joints.std(0) + floor)

    @torch.no_grad()
    def fit_contrast(self, noise: float) -> None:
        """Set where coverage starts and ends from the noise of the background (0..1 units)."""
        low = min(max(4.0 * noise, 0.05), 0.1)
        self.contrast.copy_(torch.tensor([low, 3.0 * low]))

    def coverage(self, colour: Tensor) -> Tensor:
        """[B, 3, H, W] rendered colour -> [B, 1, H, W] in 0..1."""
        low, high = self.contrast[0], self.contrast[1]
        difference = (colour - self.background).abs().amax(1, keepdim=True)
        return ((difference - low) / (high - low)).clamp(0, 1)

    def forward(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] rad or m -> colour [B, 3, H, W] in about 0..1 and coverage [B, 1, H, W]."""
        q = (joints - self.mean) / self.std
        features = torch.cat([q, q.sin(), q.cos(), (2 * q).sin(), (2 * q).cos()], -1)
        code = self.lift(features).view(-1, self.code, *self.grid) + self.position
        colour = self.background + self.net(code.contiguous(memory_format=torch.channels_last)).float()
        return colour, self.coverage(colour)


def over(colour: Tensor, coverage: Tensor, background: Tensor) -> Tensor:
    """Composite [B, 3, H, W] colour with [B, 1, H, W] coverage over a background."""
    return coverage * colour + (1 - coverage) * background
