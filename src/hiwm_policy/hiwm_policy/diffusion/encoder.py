"""Camera frames -> features: a small convolutional network that says where things are (spatial softmax) and what."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _groups(channels: int) -> int:
    return max(g for g in (8, 4, 2, 1) if channels % g == 0)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions behind one GroupNorm; the second starts near zero, so that a stack starts as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv1.weight)
        nn.init.normal_(self.conv2.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        h = self.conv1(torch.relu(self.norm(x)))
        return x + self.conv2(torch.relu(h))


class ImageEncoder(nn.Module):
    """Frames of one camera -> keypoint positions and attended features.

    Positions are in the coordinates of the full image (-1..1), whatever crop was taken: a random crop then teaches the
    features not to depend on where they are, without making the position of an object relative to the robot ambiguous.
    """

    def __init__(self, frames: int, channels: tuple[int, int], keypoints: int, values: int = 4) -> None:
        super().__init__()
        fine, coarse = channels
        self.stem = nn.Conv2d(3 * frames, fine, 8, stride=4, padding=2)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.trunk = nn.Sequential(ResidualBlock(coarse), ResidualBlock(coarse))
        # Context decides what a map looks for (four fine cells per coarse one), the stem says exactly where it is.
        self.context_maps = nn.Conv2d(coarse, 4 * keypoints, 1)
        self.detail_maps = nn.Conv2d(fine, keypoints, 1)
        self.values = nn.Conv2d(coarse, keypoints * values, 1)
        self.keypoints = keypoints
        self.features = keypoints * (2 + values)
        for layer in (self.stem, self.down):
            nn.init.kaiming_normal_(layer.weight)
        for layer in (self.context_maps, self.detail_maps):
            # Peaked from the start: a softmax over near-equal logits is blind, and stays so for a thousand steps.
            nn.init.normal_(layer.weight, std=2.0 * layer.in_channels**-0.5)

    def forward(self, images: Tensor, window: Tensor) -> Tensor:
        """Encode cropped frames.

        Args:
            images: (B, 3 * frames, h, w) in -1..1; h and w are multiples of 8.
            window: (B, 4) the crop's left, top, right and bottom edge in full-image coordinates (-1..1).

        Returns:
            (B, features).
        """
        fine = torch.relu(self.stem(images))
        coarse = torch.relu(self.trunk(self.down(fine)))
        context = self.context_maps(coarse)
        maps = self.detail_maps(fine) + nn.functional.pixel_shuffle(context, 2)
        values = self.values(coarse).flatten(2).unflatten(1, (self.keypoints, -1))
        with torch.autocast(images.device.type, enabled=False):
            where = self._positions(maps.float(), window)
            attention = context.float().flatten(2).unflatten(1, (self.keypoints, 4)).mean(2).softmax(-1)
            what = torch.einsum("bkn,bkvn->bkv", attention, values.float())
        return torch.cat([where.flatten(1), what.flatten(1)], dim=1)

    @staticmethod
    def _positions(maps: Tensor, window: Tensor) -> Tensor:
        batch, keypoints, height, width = maps.shape
        weights = maps.flatten(2).softmax(-1).view(batch, keypoints, height, width)
        x = torch.linspace(0.5 / width, 1 - 0.5 / width, width, device=maps.device)
        y = torch.linspace(0.5 / height, 1 - 0.5 / height, height, device=maps.device)
        u = (weights.sum(2) * x).sum(-1)
        v = (weights.sum(3) * y).sum(-1)
        left, top, right, bottom = (edge[:, None] for edge in window.unbind(1))
        return torch.stack([left + u * (right - left), top + v * (bottom - top)], dim=-1)
