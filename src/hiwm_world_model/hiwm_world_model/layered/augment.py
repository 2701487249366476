"""Synthetic training crops for the pose encoder: clean views of the object, turned, moved and hidden by the arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiwm_world_model.layered.config import Sizes
from hiwm_world_model.layered.data import Index, Recording
from hiwm_world_model.layered.discovery import RESIDUAL_GAIN, arm_layers, encoder_input
from hiwm_world_model.layered.encoder import crop
from hiwm_world_model.layered.plane import PlaneView, image_to_pixels, pixels_to_image
from hiwm_world_model.nets import ArmRenderer
from hiwm_world_model.nets.fit import Batch

TURNED = 0.85  # share of the crops that are turned; the rest keeps its true light and sides
OCCLUDED = 0.8
HIDDEN_LIMIT = 0.65  # with more than this hidden the pose cannot be known


@dataclass
class CropBank:
    """Views to draw from.

    Attributes:
        windows: [K, 3, 2s, 2s] float16 residual around the whole-pixel centre.
        centres: [K, 2] pixels.
        angles: [K] rad.
        arms: [A, 1, H, W] uint8 coverage of the arm in random frames.
    """

    windows: Tensor
    centres: Tensor
    angles: Tensor
    arms: Tensor
    view: PlaneView
    sizes: Sizes

    @classmethod
    def collect(
        cls, arm: ArmRenderer, recording: Recording, frames: Index, found: tuple[Tensor, Tensor],
        others: Index, view: PlaneView, sizes: Sizes,
    ) -> CropBank:  # fmt: skip
        """Cut clean ``frames`` (with ``found`` centres and angles), and take arms from ``others``."""
        centres, angles = found
        half = int(1.5 * sizes.crop_half)
        windows, first = [], 0
        for chosen, image, composite, coverage in arm_layers(arm, recording, frames):
            inputs = encoder_input(image, composite.clamp(0, 1), coverage)[:, :3]
            corner = centres[first : first + len(chosen)].floor().long()
            windows.append(crop(inputs, corner, half).half())
            first += len(chosen)
        arms = [(c * 255).round().to(torch.uint8) for _, _, _, c in arm_layers(arm, recording, others)]
        return cls(torch.cat(windows), centres, angles, torch.cat(arms), view, sizes)

    def _grid(self, source: Tensor, target: Tensor, corner: Tensor, turn: Tensor, size: tuple[int, int]) -> Tensor:
        """Where each pixel of the target crop comes from, in the coordinates of ``grid_sample``."""
        half = self.sizes.crop_half
        reach = torch.arange(-half, half) + 0.5
        y, x = torch.meshgrid(reach, reach, indexing="ij")
        pixels = corner[:, None, None].float() + torch.stack([x, y], -1)
        with torch.no_grad():
            centre_to = self.view.to_plane(pixels_to_image(target, size))[:, None, None]
            centre_from = self.view.to_plane(pixels_to_image(source, size))[:, None, None]
            d = self.view.to_plane(pixels_to_image(pixels, size)) - centre_to
            c, s = turn.cos()[:, None, None], turn.sin()[:, None, None]
            back = torch.stack([c * d[..., 0] + s * d[..., 1], -s * d[..., 0] + c * d[..., 1]], -1)
            origin = image_to_pixels(self.view.to_image(back + centre_from), size)
        return (origin - source.floor()[:, None, None]) / (self.windows.shape[-1] / 2)

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> Batch:
        """A batch for :class:`~hiwm_world_model.layered.objectives.EncoderObjective`."""
        rows = torch.from_numpy(rng.integers(0, len(self.windows), count))
        source = self.centres[rows]
        other = self.centres[torch.from_numpy(rng.integers(0, len(self.windows), count))]
        moved = other + torch.from_numpy(rng.normal(0, 0.25 * self.sizes.radius, (count, 2))).float()
        target = torch.where(torch.from_numpy(rng.random((count, 1)) < 0.8), moved, source)
        target = torch.minimum(target.clamp(min=1), torch.tensor([size[1] - 1.0, size[0] - 1.0]))
        turn = torch.from_numpy(rng.uniform(-np.pi, np.pi, count) * (rng.random(count) < TURNED)).float()
        reach = max(1, int(0.35 * self.sizes.radius))
        corner = target.floor().long() + torch.from_numpy(rng.integers(-reach, reach + 1, (count, 2)))
        mode = "bilinear" if rng.random() < 0.5 else "nearest"
        grid = self._grid(source, target, corner, turn, size)
        seen = F.grid_sample(self.windows[rows].float(), grid, mode=mode, align_corners=False)
        arm = self._arms(rng, corner, size)
        visible = (seen.abs().amax(1) > self.sizes.residual_threshold * RESIDUAL_GAIN).float()
        hidden = (visible * arm[:, 0]).sum((1, 2)) / visible.sum((1, 2)).clamp(min=1)
        angle = self.angles[rows] + turn
        place = pixels_to_image(target, size)
        return {
            "window": torch.cat([seen * (1 - arm), arm], 1),
            "centre": corner,
            "pose": torch.cat([place, angle.cos()[:, None], angle.sin()[:, None]], 1),
            "weight": (hidden < HIDDEN_LIMIT).float()[:, None],
        }

    def _arms(self, rng: np.random.Generator, corner: Tensor, size: tuple[int, int]) -> Tensor:
        chosen = self.arms[torch.from_numpy(rng.integers(0, len(self.arms), len(corner)))].float() / 255
        shifted = corner + torch.from_numpy(rng.integers(-3, 4, tuple(corner.shape)))
        shifted = torch.minimum(shifted.clamp(min=0), torch.tensor([size[1] - 1, size[0] - 1]))
        arms = crop(chosen, shifted, self.sizes.crop_half)
        keep = torch.from_numpy((rng.random((len(corner), 1, 1, 1)) < OCCLUDED).astype(np.float32))
        return arms * keep
