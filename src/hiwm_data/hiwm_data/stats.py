"""Running statistics of columns: min, max, mean, std, count, in the layout of ``stats.json``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_IMAGE_SAMPLES = 8
_IMAGE_STRIDE = 4


@dataclass(frozen=True)
class Moments:
    """Statistics of ``count`` samples; every array has the shape of one sample, at least 1-d."""

    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    count: int

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Statistics of [T, ...] over the first axis."""
        data = (
            np.atleast_2d(np.asarray(values, dtype=np.float64).T).T
            if values.ndim == 1
            else np.asarray(values, dtype=np.float64)
        )
        return cls(data.min(0), data.max(0), data.mean(0), data.var(0), len(data))

    @classmethod
    def of_frames(cls, frames: np.ndarray) -> Moments:
        """Per-channel statistics (C, 1, 1) of [T, H, W, C] uint8 in 0..1, from a few frames and every few pixels."""
        picked = frames[:: max(1, len(frames) // _IMAGE_SAMPLES), ::_IMAGE_STRIDE, ::_IMAGE_STRIDE]
        flat = picked.reshape(-1, frames.shape[-1]).astype(np.float64) / 255.0
        low, high, mean, variance = (s.reshape(-1, 1, 1) for s in (flat.min(0), flat.max(0), flat.mean(0), flat.var(0)))
        return cls(low, high, mean, variance, len(frames))

    def merge(self, other: Moments) -> Moments:
        """Statistics of both sets of samples together (Chan et al., parallel variance)."""
        count = self.count + other.count
        weight = other.count / count
        delta = other.mean - self.mean
        variance = self.variance * (1 - weight) + other.variance * weight + delta**2 * weight * (1 - weight)
        return Moments(
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.mean + delta * weight,
            variance,
            count,
        )

    def to_json(self) -> dict[str, Any]:
        """The entry of ``stats.json``."""
        return {
            "min": self.minimum.tolist(),
            "max": self.maximum.tolist(),
            "mean": self.mean.tolist(),
            "std": np.sqrt(self.variance).tolist(),
            "count": [self.count],
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Moments:
        """Read an entry written by :meth:`to_json`."""
        arrays = {k: np.asarray(entry[k], dtype=np.float64) for k in ("min", "max", "mean", "std")}
        return cls(arrays["min"], arrays["max"], arrays["mean"], arrays["std"] ** 2, int(entry["count"][0]))


def merge_all(stats: Iterable[dict[str, Moments]]) -> dict[str, Moments]:
    """Statistics by column over several datasets or episodes."""
    total: dict[str, Moments] = {}
    for one in stats:
        for key, moments in one.items():
            total[key] = total[key].merge(moments) if key in total else moments
    return total
