"""A camera's picture and its calibration, brought to the size that the rig file promises. No librealsense, no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hiwm_rig.types import Image


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera with plumb_bob distortion.

    Attributes:
        width: pixels.
        height: pixels.
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels.
        cy: principal point, pixels.
        coefficients: k1, k2, p1, p2, k3.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    coefficients: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Fit:
    """A centred crop followed by a scaling: how a picture of one size becomes one of another, undistorted.

    Attributes:
        x: left edge of the crop, pixels of the source.
        y: top edge of the crop.
        crop_width: of the crop.
        crop_height: of the crop.
        width: of the result.
        height: of the result.
    """

    x: int
    y: int
    crop_width: int
    crop_height: int
    width: int
    height: int

    @classmethod
    def between(cls, source: tuple[int, int], target: tuple[int, int]) -> Fit:
        """The largest centred crop of ``source`` (width, height) with the proportions of ``target``."""
        scale = max(target[0] / source[0], target[1] / source[1])
        width = min(source[0], round(target[0] / scale))
        height = min(source[1], round(target[1] / scale))
        return cls((source[0] - width) // 2, (source[1] - height) // 2, width, height, *target)

    @property
    def identity(self) -> bool:
        """Whether pictures stay as they are."""
        return (self.crop_width, self.crop_height) == (self.width, self.height) and self.x == 0 and self.y == 0

    def colour(self, image: Image) -> Image:
        """(H, W, 3) uint8, area-averaged."""
        return np.asarray(self._apply(image, cv2.INTER_AREA), dtype=np.uint8)

    def depth(self, depth: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """(H, W) uint16; nearest, for a mean of two depths is the depth of nothing."""
        return np.asarray(self._apply(depth, cv2.INTER_NEAREST), dtype=np.uint16)

    def intrinsics(self, source: Intrinsics) -> Intrinsics:
        """The calibration of the result; pixel centres are at whole coordinates."""
        sx, sy = self.width / self.crop_width, self.height / self.crop_height
        return Intrinsics(
            self.width,
            self.height,
            source.fx * sx,
            source.fy * sy,
            (source.cx - self.x + 0.5) * sx - 0.5,
            (source.cy - self.y + 0.5) * sy - 0.5,
            source.coefficients,
        )

    def _apply(self, image: npt.NDArray[Any], interpolation: int) -> npt.NDArray[Any]:
        cropped = image[self.y : self.y + self.crop_height, self.x : self.x + self.crop_width]
        if (self.crop_width, self.crop_height) == (self.width, self.height):
            return cropped
        return np.asarray(cv2.resize(cropped, (self.width, self.height), interpolation=interpolation))
