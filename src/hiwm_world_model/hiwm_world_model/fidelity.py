"""How close a predicted picture is to the real one: general measures, and those of a task's object. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from hiwm_rig.probe import ObjectView

from hiwm_world_model.interface import Floats, Images

Array = npt.NDArray[np.float64]

BLOCK = 8
"""Edge of the blocks of :func:`worst_block`, pixels at a width of 128."""
LOST_SHIFT = 0.25
"""Centroid error (fraction of image width) where the predicted picture shows no object at all."""
LOST_ANGLE = 90.0
"""Angle error (degrees) where the predicted picture shows no object at all."""
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def mean_absolute_error(predicted: Images, real: Images) -> float:
    """Mean absolute difference of two (H, W, 3) uint8 pictures, as a fraction of full scale."""
    return float(np.abs(predicted.astype(np.int16) - real.astype(np.int16)).mean() / 255)


def psnr(predicted: Images, real: Images) -> float:
    """Peak signal-to-noise ratio in dB; 100 for equal pictures."""
    mse = float(((predicted.astype(np.float32) - real.astype(np.float32)) ** 2).mean())
    return 100.0 if mse == 0 else min(100.0, 10 * float(np.log10(255**2 / mse)))


def ssim(predicted: Images, real: Images) -> float:
    """Structural similarity of the luma (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5)."""
    a, b = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY).astype(np.float32) for i in (predicted, real))

    def blur(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float32)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    score = (2 * mean_a * mean_b + _SSIM_C1) * (2 * cov + _SSIM_C2)
    return float((score / ((mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2))).mean())


def worst_block(predicted: Images, real: Images) -> float:
    """Largest mean absolute difference over blocks, as a fraction of full scale.

    Says whether something that matters is in the wrong place, however small it is in the picture: the error that trust
    is calibrated against.
    """
    difference = cv2.absdiff(predicted, real).astype(np.float32).mean(axis=2)
    size = max(round(BLOCK * real.shape[1] / 128), 1)
    return float(cv2.blur(difference, (size, size)).max() / 255)


def moved(before: ObjectView, after: ObjectView, width: int) -> bool:
    """Whether the object moved by more than 1.5 % of the image width or 0.1 rad."""
    return _shift(before, after) > 0.015 * width or _turn(before, after) > 0.1


def object_errors(predicted: ObjectView | None, real: ObjectView, width: int) -> dict[str, float]:
    """Centroid error as a fraction of image width, and angle error in degrees."""
    if predicted is None:
        return {"centroid": LOST_SHIFT, "angle_deg": LOST_ANGLE, "lost": 1.0}
    shift = min(_shift(predicted, real) / width, LOST_SHIFT)
    return {"centroid": shift, "angle_deg": float(np.degrees(_turn(predicted, real))), "lost": 0.0}


def mask_iou(predicted: npt.NDArray[np.bool_], real: npt.NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((predicted | real).sum())
    return float((predicted & real).sum() / union) if union else 1.0


def _shift(a: ObjectView, b: ObjectView) -> float:
    return float(np.linalg.norm(a.centroid - b.centroid))


def _turn(a: ObjectView, b: ObjectView) -> float:
    return abs((a.angle - b.angle + np.pi) % (2 * np.pi) - np.pi)


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Median, mean and 90th percentile of every measure over windows; measures that are NaN are left out."""
    summary = {}
    for key in sorted({k for row in rows for k in row}):
        values = np.array([row[key] for row in rows if key in row], np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            quantities = np.median(values), values.mean(), np.percentile(values, 90)
            summary[key] = dict(zip(("median", "mean", "p90"), map(float, quantities))) | {"n": int(values.size)}
    return summary


def auroc(scores: Floats | Array, positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks (ties count half); NaN where there is only one class."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if count == 0 or others == 0:
        return float("nan")
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def calibration_error(probability: Floats | Array, positive: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error over equally filled bins."""
    order = np.argsort(probability)
    parts: list[Any] = [p for p in np.array_split(order, bins) if len(p)]
    gaps = [len(p) * abs(float(np.mean(probability[p])) - float(np.mean(positive[p]))) for p in parts]
    return float(sum(gaps) / len(order))
