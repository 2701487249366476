"""The object's appearance as an implicit function of pose, arm and pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiwm_world_model.layered.plane import PlaneView, image_to_pixels, pixels_to_image
from hiwm_world_model.nets.blocks import mlp

# sigmoid(3) * SHADE_RANGE = 1: without a shadow the picture below is unchanged; it may also get a little brighter.
SHADE_RANGE = 1.0 / 0.9525741268224334
FREQUENCIES = (1.5, 3.0, 6.0, 12.0)  # per plane unit; the last resolves about a pixel


@dataclass(frozen=True)
class Patch:
    """Rendered pixels around the object and where they belong.

    Attributes:
        colour: [B, 3, h, w] object over what is below it.
        coverage: [B, 1, h, w].
        rows: [B, h, 1] long.
        columns: [B, 1, w] long.
    """

    colour: Tensor
    coverage: Tensor
    rows: Tensor
    columns: Tensor

    def take(self, image: Tensor) -> Tensor:
        """The patch's pixels of [B, 3, H, W]."""
        return image[self._index()]

    def _index(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = torch.arange(len(self.rows), device=self.rows.device)[:, None, None, None]
        channel = torch.arange(3, device=self.rows.device)[None, :, None, None]
        return batch, channel, self.rows[:, None], self.columns[:, None]

    def paste(self, image: Tensor) -> Tensor:
        """A copy of [B, 3, H, W] with the patch in its place."""
        out = image.clone()
        batch, channel, rows, columns = self._index()
        out[batch, channel, rows, columns] = self.colour.to(out.dtype)
        return out

    def paste_coverage(self, like: Tensor, value: Tensor | None = None) -> Tensor:
        """The coverage (or another value of its shape) on a full frame [B, 1, H, W]."""
        out = torch.zeros_like(like[:, :1])
        batch, _, rows, columns = self._index()
        out[batch, torch.zeros_like(batch), rows, columns] = (self.coverage if value is None else value).to(out.dtype)
        return out


class ObjectRenderer(nn.Module):
    """Pose, joints and the arm's picture -> the object's pixels, in front of or behind the arm.

    A small network is asked for every pixel of the patch around the pose: its coordinates in the object's own frame
    (sines of several frequencies), the pose, and what the arm shows there. Being a function of the pose it passes
    gradients of the image loss on to the encoder.
    """

    def __init__(
        self, joints: int, half: int, view: PlaneView, size: tuple[int, int], width: int = 80, hidden: int = 3
    ) -> None:
        super().__init__()
        self.reach, self.size, self.view = half, size, view
        if 2 * half > min(size):
            raise ValueError(f"the object's patch of {2 * half} pixels does not fit into an image of {size}")
        inputs = 4 + 8 * len(FREQUENCIES) + 4 + 4 + 2
        self.net = mlp(inputs, width, 5, hidden)
        self.tool = mlp(joints, 48, 2, 1)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -0.5, 3.0]))

    def _pixels(self, pose: Tensor, every: int, phase: tuple[int, int]) -> tuple[Tensor, Tensor]:
        height, width = self.size
        centre = image_to_pixels(pose[:, :2].detach(), self.size).floor().long()
        offsets = torch.arange(-self.reach, self.reach, device=pose.device)
        columns = centre[:, 0].clamp(self.reach, width - self.reach)[:, None] + offsets
        rows = centre[:, 1].clamp(self.reach, height - self.reach)[:, None] + offsets
        return rows[:, phase[0] :: every, None], columns[:, None, phase[1] :: every]

    def _features(self, pose: Tensor, joints: Tensor, rows: Tensor, columns: Tensor, detail: float) -> list[Tensor]:
        shape = (len(pose), rows.shape[1], columns.shape[2])
        pixels = torch.stack([columns.expand(shape), rows.expand(shape)], -1).float() + 0.5
        image = pixels_to_image(pixels, self.size)
        offset = self.view.to_plane(image) - self.view.to_plane(pose[:, :2])[:, None, None]
        direction = F.normalize(pose[:, 2:], dim=1)
        cosine, sine = direction[:, 0, None, None], direction[:, 1, None, None]
        dx, dy = offset[..., 0], offset[..., 1]
        u, v = cosine * dx + sine * dy, -sine * dx + cosine * dy
        out = [u, v, dx, dy]
        for level, frequency in enumerate(FREQUENCIES):
            weight = min(max(detail * len(FREQUENCIES) - level, 0.0), 1.0)
            for value in (u, v, dx, dy):
                out += [weight * torch.sin(frequency * value), weight * torch.cos(frequency * value)]
        one = torch.ones_like(u)
        out += [cosine * one, sine * one, pose[:, 0, None, None] * one, pose[:, 1, None, None] * one]
        tool = (image - self.tool(joints)[:, None, None]) / self.view.unit
        return out + [tool[..., 0], tool[..., 1]]

    def forward(
        self, pose: Tensor, joints: Tensor, below: Tensor, arm: Tensor, coverage: Tensor,
        detail: float = 1.0, every: int = 1, phase: tuple[int, int] = (0, 0),
    ) -> Patch:  # fmt: skip
        """Render.

        Args:
            pose: [B, 4] (x, y, cos, sin), image coordinates and plane angle; cos and sin need not be normalised.
            joints: [B, D] normalised.
            below: [B, 3, H, W] arm over background: what shows where the object does not.
            arm: [B, 3, H, W] what the arm adds to the background (zero where there is no arm), so that the result
                does not depend on the background.
            coverage: [B, 1, H, W] of the arm.
            detail: share of the frequencies in use; training goes from coarse to fine, which keeps the pose from
                locking on to a wrong edge.
            every: only each n-th row and column, starting at ``phase``; training does not need them all.
            phase: first row and column.
        """
        rows, columns = self._pixels(pose, every, phase)
        features = self._features(pose, joints, rows, columns, detail)
        batch = torch.arange(len(pose), device=pose.device)[:, None, None, None]
        stack = torch.cat([below, arm, coverage], 1)
        channel = torch.arange(stack.shape[1], device=pose.device)[None, :, None, None]
        seen = stack[batch, channel, rows[:, None], columns[:, None]]
        inputs = torch.stack([*features, *seen[:, 3:].unbind(1)], -1)
        out = self.net(inputs).float().permute(0, 3, 1, 2)
        alpha = torch.sigmoid(3 * out[:, 3:4])
        shade = torch.sigmoid(out[:, 4:5])  # the object's shadow darkens what is below it
        colour = alpha * torch.sigmoid(out[:, :3]) + (1 - alpha) * shade * seen[:, :3] * SHADE_RANGE
        return Patch(colour, alpha, rows, columns)
