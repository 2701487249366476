"""The plane that objects move in, as seen by the camera.

Coordinates used by the whole model:

- *image*: (x, y) with the origin in the image centre, x right, y down, in units of half the image width;
- *plane*: metric up to a scale, rotation-invariant: an object that turns keeps its shape here;
- a *pose* is (x, y, angle): x, y in image coordinates, the angle in the plane.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pixels_to_image(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., 2] pixel coordinates (centre of the first pixel is 0.5) -> image coordinates; size is (height, width)."""
    half = size[1] / 2
    return torch.stack([(pixels[..., 0] - half) / half, (pixels[..., 1] - size[0] / 2) / half], -1)


def image_to_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`pixels_to_image`."""
    half = size[1] / 2
    return torch.stack([points[..., 0] * half + half, points[..., 1] * half + size[0] / 2], -1)


class PlaneView(nn.Module):
    """A tilted plane under a camera without roll: foreshortening ``squash`` and perspective ``slope``.

    Both are found from data (the rotation search scores candidates) and refined by gradients.
    """

    unit: Tensor

    def __init__(self, squash: float = 1.0, slope: float = 0.0, unit: float = 0.25) -> None:
        super().__init__()
        self.squash = nn.Parameter(torch.tensor(float(squash)))
        self.slope = nn.Parameter(torch.tensor(float(slope)))
        self.register_buffer("unit", torch.tensor(float(unit)))  # image units per plane unit

    def to_plane(self, points: Tensor) -> Tensor:
        """Image [..., 2] -> plane [..., 2]."""
        x, y = points[..., 0], points[..., 1]
        scale = (1 + self.slope * y).clamp(min=0.1)
        return torch.stack([x / scale, y / (scale * self.squash)], -1) / self.unit

    def to_image(self, points: Tensor) -> Tensor:
        """Plane [..., 2] -> image [..., 2]."""
        x, y = points[..., 0] * self.unit, points[..., 1] * self.unit * self.squash
        scale = 1 / (1 - self.slope * y).clamp(min=0.1)
        return torch.stack([x * scale, y * scale], -1)


def wrap(angle: Tensor) -> Tensor:
    """Angle in -pi..pi, differentiable."""
    return torch.atan2(angle.sin(), angle.cos())
