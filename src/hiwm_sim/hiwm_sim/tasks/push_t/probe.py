"""Measuring the T and the rod in pictures, for fidelity metrics. Never used in training."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Rig
from hiwm_rig.probe import ObjectView
from hiwm_rig.types import Image

from hiwm_sim.tasks.push_t.config import PushTConfig
from hiwm_sim.tasks.push_t.vision import DARK, TVision

PATCH = 10
"""Half the side of the patch around the rod's tip that is looked for, pixels at a width of 128."""
SEARCH = 8
"""How far it is looked for, pixels at a width of 128."""


class PushTProbe:
    """The T by its colour and shape, the rod's tip by the darkness of the arm around it."""

    def __init__(self, rig: Rig, config: PushTConfig) -> None:
        self._vision = TVision(rig, config)
        self._scale = rig.camera("front").width / 128

    def measure(self, image: Image, near: ObjectView | None = None) -> ObjectView | None:
        """The T in an (H, W, 3) picture; None where none is to be seen."""
        found = self._vision.measure(image, None if near is None else near.pose)
        return None if found is None else self._view(found.pose)

    def mask(self, image: Image) -> npt.NDArray[np.bool_]:
        """(H, W) pixels that are mostly T."""
        return self._vision.t_mask(image)

    def tip(self, joints: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 2) pixels of the rod's tip for joints (..., D)."""
        return self._vision.tip(joints)

    def tip_shift(self, predicted: Image, real: Image, joints: npt.ArrayLike) -> float:
        """Pixels between the rod's lower end in both pictures; NaN where it is outside the picture.

        The patch around the real tip, as darkness, is looked for in the prediction, to a fraction of a pixel.
        """
        patch, reach = round(PATCH * self._scale), round(SEARCH * self._scale)
        u, v = (round(float(x)) for x in self.tip(joints))
        height, width = real.shape[:2]
        outer = patch + reach
        if not (outer <= u < width - outer and outer <= v < height - outer):
            return float("nan")
        template = _darkness(real)[v - patch : v + patch + 1, u - patch : u + patch + 1]
        region = _darkness(predicted)[v - outer : v + outer + 1, u - outer : u + outer + 1]
        cost = np.asarray(cv2.matchTemplate(region, template, cv2.TM_SQDIFF), np.float64)
        row, column = np.unravel_index(int(cost.argmin()), cost.shape)
        dv = row - reach + _vertex(cost[:, column], int(row))
        du = column - reach + _vertex(cost[row], int(column))
        return float(np.hypot(du, dv))

    def label(self, row: npt.ArrayLike) -> ObjectView | None:
        """The T from the evaluation label (x, y, yaw, ...)."""
        return self._view(np.asarray(row, np.float64)[:3])

    def _view(self, pose: npt.NDArray[np.float64]) -> ObjectView:
        return ObjectView(self._vision.centroid(pose), float(pose[2]), pose)


def _darkness(image: Image) -> npt.NDArray[np.float32]:
    """(H, W) how much darker than :data:`DARK` a pixel is, smoothed a little, 0..1."""
    dark = np.clip(1.5 - image.max(-1).astype(np.float32) / DARK, 0.0, 1.0)
    return np.asarray(cv2.GaussianBlur(dark, (3, 3), 0.7), np.float32)


def _vertex(values: npt.NDArray[np.float64], at: int) -> float:
    """Offset in (-0.5, 0.5) of the lowest point of the parabola through three neighbours; 0 at the border."""
    if not 0 < at < len(values) - 1:
        return 0.0
    left, middle, right = values[at - 1 : at + 2]
    bend = left - 2 * middle + right
    return float(np.clip((left - right) / (2 * bend), -0.5, 0.5)) if bend > 0 else 0.0
