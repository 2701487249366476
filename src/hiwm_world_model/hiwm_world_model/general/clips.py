"""Training clips from recorded datasets: frames at the working resolution, joints, actions, labels.

Reads images, joints, actions and the recorded outcome; never a simulator's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from hiwm_data.dataset import ACTION, STATE, SUCCESS, CameraFrames, Dataset, DatasetError
from torch import Tensor

from hiwm_world_model.general.colour import resize
from hiwm_world_model.general.config import LATENT_STRIDE

Rows = npt.NDArray[np.int64]
VAL_SHARE = 0.1  # held out from the end where a dataset names no split


@dataclass(frozen=True)
class Span:
    """Rows ``start`` to ``stop`` of one episode."""

    start: int
    stop: int
    split: str
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.stop - self.start


class Recordings:
    """One or more datasets of the same rig as one sequence of rows.

    Args:
        roots: dataset directories.
        cameras: names, in the model's order.
        size: working height and width; frames of another size are resized once, in memory.

    Raises:
        DatasetError: if a dataset lacks a camera or a column.
    """

    def __init__(self, roots: Sequence[Path], cameras: Sequence[str], size: tuple[int, int]) -> None:
        if not roots:
            raise DatasetError("no dataset given; expected at least one directory")
        datasets = [Dataset(root) for root in roots]
        self.cameras, self.size = tuple(cameras), size
        self.fps = datasets[0].fps
        self.joints = np.concatenate([d.column(STATE) for d in datasets])
        self.actions = np.concatenate([d.column(ACTION) for d in datasets])
        labelled = all(SUCCESS in d.features for d in datasets)
        self.success = np.concatenate([d.column(SUCCESS) for d in datasets]).astype(bool) if labelled else None
        self.offsets = np.cumsum([0, *(d.num_frames for d in datasets)])
        self.spans = [s for d, offset in zip(datasets, self.offsets) for s in _spans(d, int(offset))]
        self._images = [[_at_size(d.images(c), size) for c in self.cameras] for d in datasets]

    def of(self, split: str) -> list[Span]:
        """Episodes of a split, ``train`` or ``val``."""
        return [s for s in self.spans if s.split == split]

    def frames(self, rows: Rows, corners: Rows | None = None, crop: int = 0) -> Tensor:
        """uint8 [*rows.shape, cameras, 3, h, w]; windows of ``crop`` pixels at ``corners`` [B, cameras, 2] if given."""
        if corners is not None:
            return self._windows(rows, corners, crop)
        flat = rows.reshape(-1)
        out = np.empty((len(flat), len(self.cameras), *self.size, 3), np.uint8)
        source = np.searchsorted(self.offsets, flat, side="right") - 1
        for index in np.unique(source):
            chosen = np.flatnonzero(source == index)
            local = flat[chosen] - self.offsets[index]
            for camera, images in enumerate(self._images[index]):
                out[chosen, camera] = images[local]
        return torch.from_numpy(out).permute(0, 1, 4, 2, 3).unflatten(0, tuple(rows.shape))

    def _windows(self, rows: Rows, corners: Rows, crop: int) -> Tensor:
        """[B, T] rows -> [B, T, cameras, 3, crop, crop]; the rows of one clip belong to one dataset."""
        out = np.empty((*rows.shape, len(self.cameras), crop, crop, 3), np.uint8)
        source = np.searchsorted(self.offsets, rows[:, 0], side="right") - 1
        for i, index in enumerate(source):
            local = rows[i] - self.offsets[index]
            for camera, images in enumerate(self._images[index]):
                y, x = corners[i, camera]
                out[i, :, camera] = images[local, y : y + crop, x : x + crop]
        return torch.from_numpy(out).permute(0, 1, 2, 5, 3, 4)


def _spans(dataset: Dataset, offset: int) -> list[Span]:
    named = any("split" in e.meta for e in dataset.episodes)
    first_val = round(len(dataset.episodes) * (1 - VAL_SHARE))
    spans = []
    for episode in dataset.episodes:
        split = str(episode.meta.get("split", "train")) if named else ("val" if episode.index >= first_val else "train")
        start = offset + episode.start
        spans.append(Span(start, start + episode.length, split, dict(episode.meta)))
    return spans


def _at_size(images: CameraFrames, size: tuple[int, int]) -> np.ndarray | CameraFrames:
    """[N, H, W, 3] uint8 at ``size``; what is read from disk on demand where nothing is to be done."""
    if images.shape[1:3] == size:
        return images
    out = np.empty((len(images), *size, 3), np.uint8)
    for first in range(0, len(images), 64):
        chunk = torch.from_numpy(np.array(images[first : first + 64])).permute(0, 3, 1, 2).float()
        out[first : first + 64] = resize(chunk, size).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return out


def random_starts(spans: Sequence[Span], length: int, count: int, rng: np.random.Generator) -> Rows:
    """First rows of ``count`` windows of ``length`` + 1 frames, uniform over all places; longer episodes count more.

    Raises:
        DatasetError: if no episode is long enough.
    """
    fits = [s for s in spans if s.length > length]
    if not fits:
        raise DatasetError(f"no episode has more than {length} frames; record longer ones or lower the rollout length")
    places = np.cumsum([s.length - length for s in fits])
    drawn = rng.integers(0, places[-1], count)
    which = np.searchsorted(places, drawn, side="right")
    starts = np.array([s.start for s in fits])
    return starts[which] + drawn - np.concatenate([[0], places])[which]


class CoverageSource(Protocol):
    """Where the arm is in recorded frames; see :class:`hiwm_world_model.general.cover.CoverageCache`."""

    def frames(self, rows: Rows) -> Tensor:
        """uint8 [*rows.shape, cameras, 1, H, W]."""
        ...

    def windows(self, rows: Rows, corners: Rows, crop: int) -> Tensor:
        """uint8 [B, T, cameras, 1, crop, crop]."""
        ...


class ClipSource:
    """Draws clips: a share of them where something moves that is not the arm."""

    def __init__(self, recordings: Recordings, spans: Sequence[Span]) -> None:
        self.recordings, self.spans = recordings, list(spans)
        rows = len(recordings.joints)
        self.first, self.last = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        for span in self.spans:
            self.first[span.start : span.stop], self.last[span.start : span.stop] = span.start, span.stop - 1
        self.places: Rows = np.zeros(0, np.int64)
        self.busy: Rows = np.zeros(0, np.int64)
        self.centres: Rows = np.zeros((0, len(recordings.cameras), 2), np.int64)
        self.weights = np.zeros(0)

    def use(self, rows: Rows, motion: npt.NDArray[np.floating], centres: Rows) -> None:
        """Draw clips around these rows only: how much moves from each on, and where in each camera.

        Rows with more motion than the median are drawn in proportion to it, outliers capped; the others evenly.
        """
        self.places = rows
        keep = motion > max(1e-6, float(np.quantile(motion, 0.5)))
        cap = float(np.quantile(motion, 0.9)) if len(motion) else 1.0
        self.busy, self.centres = rows[keep], centres[keep]
        weights = np.minimum(motion[keep], cap)
        self.weights = weights / weights.sum() if len(weights) else weights

    def draw(
        self, rng: np.random.Generator, count: int, burn_in: int, unroll: int, share: float, crop: int
    ) -> tuple[Rows, Rows | None]:
        """First rows of ``count`` clips of burn_in + unroll periods, and the corners of their windows.

        A ``share`` of them has motion in the unrolled part; windows lie around the motion.
        """
        length = burn_in + unroll
        rows = random_starts(self.spans, length, count, rng)
        if len(self.places):
            near = rng.choice(self.places, count)
            first, last = self.first[near], self.last[near]
            rows = np.where(last - first >= length, np.clip(near, first, last - length), rows)
        height, width = self.recordings.size
        shape = (count, len(self.recordings.cameras))
        centres = np.stack([rng.integers(0, height, shape), rng.integers(0, width, shape)], -1)
        if len(self.busy):
            which = rng.choice(len(self.busy), count, p=self.weights)
            before = burn_in + rng.integers(0, max(1, unroll // 2), count)
            drawn = (self.busy[which] - before).clip(0)
            first, last = self.first[self.busy[which]], self.last[self.busy[which]]
            drawn = np.clip(drawn, first, last - length)
            chosen = (rng.random(count) < share) & (last - first >= length)
            rows = np.where(chosen, drawn, rows)
            jitter = rng.integers(-crop // 4, crop // 4 + 1, (*shape, 2))
            centres = np.where(chosen[:, None, None], self.centres[which] + jitter, centres)
        corners = None
        if 0 < crop < min(height, width):
            limit = np.array([height - crop, width - crop])
            corners = np.clip((centres - crop // 2 + LATENT_STRIDE // 2) // LATENT_STRIDE * LATENT_STRIDE, 0, limit)
            corners = corners // LATENT_STRIDE * LATENT_STRIDE
        return rows, corners

    def clip(
        self,
        rows: Rows,
        burn_in: int,
        unroll: int,
        corners: Rows | None = None,
        crop: int = 0,
        cover: CoverageSource | None = None,
    ) -> dict[str, Tensor]:
        """Tensors of clips that start at ``rows``.

        Returns:
            ``first`` uint8 [B, 2, cameras, 3, h, w]: the frame before the start and the start;
            ``targets`` uint8 [B, unroll, cameras, 3, h, w]: the frames after the burn-in;
            ``joints`` [B, burn_in + unroll + 2, D], from the frame before the start;
            ``actions`` [B, burn_in + unroll, D];
            ``corners`` [B, cameras, 2] top and left, where the frames are windows of ``crop`` pixels;
            ``coverage`` uint8 [B, burn_in + unroll + 2, cameras, 1, h, w], where there is an arm layer.
        """
        source, length = self.recordings, burn_in + unroll
        before = np.maximum(rows - 1, self.first[rows])
        times = rows[:, None] + np.arange(length + 1)
        moments = np.concatenate([before[:, None], times], 1)
        tensors = {
            "first": source.frames(np.stack([before, rows], 1), corners, crop),
            "targets": source.frames(times[:, burn_in + 1 :], corners, crop),
            "joints": torch.from_numpy(source.joints[moments].astype(np.float32)),
            "actions": torch.from_numpy(source.actions[times[:, :-1]].astype(np.float32)),
        }
        if cover is not None:
            tensors["coverage"] = cover.frames(moments) if corners is None else cover.windows(moments, corners, crop)
        return tensors if corners is None else {**tensors, "corners": torch.from_numpy(corners)}
