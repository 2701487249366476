"""Pose of the object from one frame: find it in the residual, crop, and regress."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiwm_world_model.layered.config import Sizes
from hiwm_world_model.layered.discovery import RESIDUAL_GAIN
from hiwm_world_model.layered.plane import pixels_to_image
from hiwm_world_model.nets import ResBlock, conv, initialise


def locate(inputs: Tensor, sizes: Sizes) -> Tensor:
    """Integer centre (x, y) of the largest unexplained blob, [B, 4, H, W] -> [B, 2] long pixels."""
    height, width = inputs.shape[2:]
    mask = (inputs[:, :3].abs().amax(1, keepdim=True) > sizes.residual_threshold * RESIDUAL_GAIN * 0.85).float()
    mask = (F.avg_pool2d(mask, 3, 1, 1) > 0.6).float()
    window = 2 * int(sizes.radius * 0.45) + 1
    # One axis after the other: a square window of this size is ten times slower.
    density = F.avg_pool2d(mask, (1, window), 1, (0, window // 2))
    peak = F.avg_pool2d(density, (window, 1), 1, (window // 2, 0)).flatten(1).argmax(1)
    centre = torch.stack([peak % width, peak // width], 1).float() + 0.5
    x = torch.arange(width, device=inputs.device)[None, None, :] + 0.5
    y = torch.arange(height, device=inputs.device)[None, :, None] + 0.5
    for _ in range(3):
        near = (x - centre[:, 0, None, None]) ** 2 + (y - centre[:, 1, None, None]) ** 2 < (1.05 * sizes.radius) ** 2
        weight = mask[:, 0] * near
        columns, rows = weight.sum(1), weight.sum(2)
        total = rows.sum(1).clamp(min=1e-3)
        moved = torch.stack([(columns * x[:, 0]).sum(1) / total, (rows * y[..., 0]).sum(1) / total], 1)
        centre = torch.where((total > 3)[:, None], moved, centre)
    limit = torch.tensor([width - 1, height - 1], device=inputs.device)
    return torch.minimum(centre.round().long().clamp(min=0), limit)


def crop(images: Tensor, centre: Tensor, half: int) -> Tensor:
    """Square windows with zeros outside the image, [B, C, H, W] and [B, 2] long -> [B, C, 2 half, 2 half]."""
    padded = F.pad(images, (half, half, half, half))
    reach = torch.arange(2 * half, device=images.device)
    rows = (centre[:, 1, None] + reach)[:, None, :, None]
    columns = (centre[:, 0, None] + reach)[:, None, None, :]
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[batch, channel, rows, columns]


class PoseEncoder(nn.Module):
    """Residual and arm around the object -> pose. A full-frame encoder overfitted; the crop does not."""

    def __init__(self, sizes: Sizes, size: tuple[int, int], unit: float, width: int = 64) -> None:
        super().__init__()
        self.sizes, self.size, self.unit = sizes, size, unit
        cells = (sizes.crop_half // 4) ** 2  # the crop, shuffled by 4 and halved once
        self.net = nn.Sequential(
            nn.PixelUnshuffle(4), conv(64, width), ResBlock(width), nn.SiLU(), conv(width, 64, 3, 2),
            ResBlock(64), ResBlock(64), nn.SiLU(), conv(64, 24), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(24 * cells + 2, 160), nn.SiLU(), nn.Linear(160, 4))
        initialise(self)

    def local(self, window: Tensor, centre: Tensor) -> Tensor:
        """Crop [B, 4, 2h, 2h] taken around pixel [B, 2] -> (x, y, cos, sin) [B, 4], image units; not normalised."""
        where = pixels_to_image(centre.float(), self.size)
        features = self.net(window.contiguous(memory_format=torch.channels_last)).float().flatten(1)
        out = self.head(torch.cat([features, where], 1)).float()
        return torch.cat([where + out[:, :2] * self.unit, out[:, 2:]], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Residual and coverage [B, 4, H, W] -> (x, y, cos, sin) [B, 4]."""
        with torch.no_grad():
            centre = locate(inputs, self.sizes)
        return self.local(crop(inputs, centre, self.sizes.crop_half), centre)


def pose_of(encoded: Tensor) -> Tensor:
    """(x, y, cos, sin) [..., 4] -> pose (x, y, angle) [..., 3]."""
    return torch.cat([encoded[..., :2], torch.atan2(encoded[..., 3:4], encoded[..., 2:3])], -1)
