"""Images as 8-bit luma at full and chroma at half resolution (YCbCr 4:2:0, full range): half the bytes of RGB.

Recorded video is stored like this anyway, so nothing of a recorded frame is lost.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLUE, RED = 0.564, 0.713  # ITU-R BT.601 chroma scales


def to_planes(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """RGB [N, 3, H, W] in 0..1 -> luma [N, 1, H, W] and chroma [N, 2, H/2, W/2], both in 0..1."""
    red, green, blue = rgb[:, 0:1], rgb[:, 1:2], rgb[:, 2:3]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.cat([(blue - luma) * BLUE, (red - luma) * RED], 1) + 0.5
    return luma, F.avg_pool2d(chroma, 2)


def to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """The inverse of :func:`to_planes`, [N, 3, H, W] in 0..1."""
    full = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False) - 0.5
    blue, red = luma + full[:, 0:1] / BLUE, luma + full[:, 1:2] / RED
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return torch.cat([red, green, blue], 1).clamp(0, 1)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, C, H, W] to another size: averaged when it gets smaller, interpolated when it gets larger."""
    if tuple(images.shape[-2:]) == size:
        return images
    shrinks = size[0] <= images.shape[-2] and size[1] <= images.shape[-1]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=shrinks)


def to_bytes(values: Tensor) -> Tensor:
    """0..1 -> uint8, rounded."""
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def from_bytes(values: Tensor) -> Tensor:
    """uint8 -> 0..1 float32."""
    return values.float() / 255
