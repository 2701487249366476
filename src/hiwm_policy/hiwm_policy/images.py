"""Crops and augmentation of camera frames, on tensors; no dataset, no model."""

from __future__ import annotations

import torch
from torch import Tensor

Size = tuple[int, int]


def center_windows(count: int, full: Size, size: Size) -> Tensor:
    """(count, 2) top-left corners (row, column) of the central crop."""
    return torch.tensor([[(full[0] - size[0]) // 2, (full[1] - size[1]) // 2]]).expand(count, 2)


def random_windows(count: int, full: Size, size: Size, generator: torch.Generator) -> Tensor:
    """(count, 2) random top-left corners (row, column)."""
    rows = torch.randint(0, full[0] - size[0] + 1, (count,), generator=generator)
    columns = torch.randint(0, full[1] - size[1] + 1, (count,), generator=generator)
    return torch.stack([rows, columns], dim=1)


def crop_images(frames: Tensor, corners: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Crop, and stack the frames of each row as channels.

    Args:
        frames: (B, T, H, W, 3) uint8.
        corners: (B, 2) top-left corner of each row's crop.
        size: rows and columns of the crop.

    Returns:
        (B, 3 * T, h, w) float in -1..1, and (B, 4) left, top, right, bottom in full-image coordinates (-1..1).
    """
    height, width = frames.shape[2:4]
    rows = corners[:, 0, None] + torch.arange(size[0])
    columns = corners[:, 1, None] + torch.arange(size[1])
    batch = torch.arange(len(frames))[:, None, None]
    cropped = frames.permute(0, 2, 3, 1, 4)[batch, rows[:, :, None], columns[:, None, :]]
    images = cropped.flatten(3).permute(0, 3, 1, 2).float().mul_(1 / 127.5).sub_(1.0)
    top, left = corners[:, 0] * 2 / height - 1, corners[:, 1] * 2 / width - 1
    window = torch.stack([left, top, left + 2 * size[1] / width, top + 2 * size[0] / height], dim=1).float()
    return images, window


def jitter_colors(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Scale and shift every row's channels a little: light and white balance change, what is in the picture does not.

    Args:
        images: (B, 3 * T, h, w) in -1..1.
        amount: about the standard deviation of gain and offset; 0 leaves the images alone.
        generator: source of the randomness.
    """
    if amount <= 0:
        return images
    batch, channels = images.shape[:2]
    draw = torch.randn(batch, 2 + 3, 2, generator=generator) * amount
    gain = 1 + draw[:, 0, 0, None] + 0.5 * draw[:, 2:, 0]
    offset = draw[:, 1, 0, None] + 0.5 * draw[:, 2:, 1]
    repeat = channels // 3
    return torch.addcmul(offset.repeat(1, repeat)[:, :, None, None], images, gain.repeat(1, repeat)[:, :, None, None])
