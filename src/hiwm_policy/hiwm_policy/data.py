"""Training windows out of recorded datasets: which frames may start a chunk, and batches drawn from them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from hiwm_data.dataset import ACTION, STATE, Dataset, DatasetError
from torch import Tensor

from hiwm_policy.policy import CameraInput, PolicySpec

INTERVENTION = "intervention"
BRANCH = "branch_id"
TRUST = "trust"


class DataError(ValueError):
    """A dataset that a policy cannot be trained on; the text names it and says why."""


@dataclass(frozen=True)
class Batch:
    """B training samples; the frames are not yet cropped.

    Attributes:
        images: camera -> (B, image_steps, H, W, 3) uint8.
        joints: (B, history, D) rad or m.
        chunk: (B, H, D) absolute joint targets, rad or m.
        mask: (B, H) 1 where the target was recorded (or held at an episode's end), 0 where it says nothing.
    """

    images: Mapping[str, Tensor]
    joints: Tensor
    chunk: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Frames:
    """Frames of one dataset that may start a chunk.

    Attributes:
        index: (W,) rows of the dataset.
        first: (W,) first row of the episode (or branch) they lie in: history does not reach before it.
        last: (W,) last row whose action belongs to the chunk.
        hold: (W,) whether the last action is held beyond ``last`` (the recording ended there) or masked out.
    """

    index: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    hold: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)


def demonstration_frames(dataset: Dataset, split: str = "train", episodes: int | None = None) -> Frames:
    """Every frame of the successful demonstrations of ``split``; the last target is held at the end.

    Episodes that carry no split, source or outcome count as what is asked for; play and failures are left out.

    Args:
        dataset: what was recorded.
        split: ``train`` or ``val``.
        episodes: use only the first so many.
    """
    wanted = {"split": split, "source": "demonstration", "outcome": "success"}
    chosen = [e for e in dataset.episodes if all(e.meta.get(key, value) == value for key, value in wanted.items())]
    parts = []
    for episode in chosen[:episodes]:
        rows = np.arange(episode.start, episode.start + episode.length)
        parts.append((rows, np.full_like(rows, rows[0]), np.full_like(rows, rows[-1]), np.ones(len(rows), bool)))
    return _frames(parts)


def correction_frames(dataset: Dataset, handback: int = 4, min_trust: float = 0.0, minimum: int = 4) -> Frames:
    """Frames in which a person drove, with chunks that stay inside the correction plus ``handback`` frames after it.

    Args:
        dataset: with the column ``intervention`` (and ``branch_id``, where there are branches).
        handback: frames after the correction whose targets still count: the policy takes over smoothly there.
        min_trust: frames that the world model trusted less do not start a chunk (where the dataset has ``trust``).
        minimum: corrections shorter than this many frames say too little and are left out.

    Raises:
        DataError: if the dataset has no such column.
    """
    if INTERVENTION not in dataset.features:
        raise DataError(
            f"{dataset.root}: corrections need the column '{INTERVENTION}'; it has {sorted(dataset.features)}"
        )
    human = dataset.column(INTERVENTION).astype(bool)
    branch = dataset.column(BRANCH) if BRANCH in dataset.features else np.zeros(dataset.num_frames, np.int64)
    trusted = dataset.column(TRUST) >= min_trust if TRUST in dataset.features else np.ones(dataset.num_frames, bool)
    parts = []
    for episode in dataset.episodes:
        for start, stop in _runs(branch[episode.frames], episode.start):
            for begin, end in _runs(human[start:stop], start):
                if not human[begin] or end - begin < minimum:
                    continue
                rows = begin + np.flatnonzero(trusted[begin:end])
                last = min(end - 1 + handback, stop - 1)
                parts.append((rows, np.full_like(rows, start), np.full_like(rows, last), np.zeros(len(rows), bool)))
    return _frames(parts)


def has_split(dataset: Dataset, split: str) -> bool:
    """Whether any episode is explicitly marked as belonging to ``split``."""
    return any(e.meta.get("split") == split for e in dataset.episodes)


def _runs(values: npt.NDArray[np.generic], offset: int) -> list[tuple[int, int]]:
    """Half-open runs of equal values, as rows of the dataset."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return [(offset + a, offset + b) for a, b in itertools.pairwise(bounds) if b > a]


def _frames(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> Frames:
    if not parts:
        empty = np.zeros(0, np.int64)
        return Frames(empty, empty, empty, np.zeros(0, bool))
    return Frames(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class WindowSource:
    """Chunks of one dataset.

    Args:
        dataset: what was recorded; only images, joints and actions are read.
        frames: which frames may start a chunk.
        spec: what the policy reads and writes.
        image_steps: newest frames that are loaded.

    Raises:
        DataError: if there are no frames, or the dataset lacks what the policy reads.
    """

    def __init__(self, dataset: Dataset, frames: Frames, spec: PolicySpec, image_steps: int) -> None:
        if len(frames) == 0:
            raise DataError(f"{dataset.root}: no frame to train on")
        _check(dataset, spec)
        self.frames = frames
        self._spec = spec
        self._image_steps = image_steps
        self._joints = dataset.column(STATE).astype(np.float32, copy=False)
        self._actions = dataset.column(ACTION).astype(np.float32, copy=False)
        self._images = {c.name: dataset.images(c.name) for c in spec.cameras}

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def episodes(self) -> int:
        """How many episodes (or corrections) the windows come from."""
        return len(np.unique(np.stack([self.frames.first, self.frames.last]), axis=1).T)

    def newest_and_chunks(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(W, D) newest joints and (W, H, D) chunks of all windows, for the normaliser."""
        return self._joints[self.frames.index], self._actions[self._targets(np.arange(len(self)))[0]]

    def batch(self, picks: npt.NDArray[np.int64]) -> Batch:
        """The windows number ``picks``."""
        index, first = self.frames.index[picks], self.frames.first[picks]
        back = np.arange(-self._spec.history + 1, 1)
        past = np.maximum(index[:, None] + back, first[:, None])
        targets, mask = self._targets(picks)
        return Batch(
            images={n: torch.from_numpy(v[past[:, -self._image_steps :]]) for n, v in self._images.items()},
            joints=torch.from_numpy(self._joints[past]),
            chunk=torch.from_numpy(self._actions[targets]),
            mask=torch.from_numpy(mask),
        )

    def _targets(self, picks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        rows = self.frames.index[picks, None] + np.arange(self._spec.horizon)
        last = self.frames.last[picks, None]
        mask = (rows <= last) | self.frames.hold[picks, None]
        return np.minimum(rows, last), mask.astype(np.float32)


def _check(dataset: Dataset, spec: PolicySpec) -> None:
    try:
        dataset.check_joints(spec.joint_names)
    except DatasetError as error:
        raise DataError(str(error)) from error
    for camera in spec.cameras:
        have = dataset.features.get(f"observation.images.{camera.name}")
        if have is None or tuple(have.shape) != (camera.height, camera.width, 3):
            raise DataError(
                f"{dataset.root}: camera '{camera.name}' must be {camera.width}x{camera.height}, "
                f"found {have and have.shape}"
            )


class MixedSampler:
    """Batches drawn from several sources at fixed shares; the batch of a step depends on the seed and the step alone,
    so that a resumed training continues as if it had not stopped.
    """

    def __init__(self, sources: Sequence[WindowSource], shares: Sequence[float], batch_size: int, seed: int) -> None:
        weights = np.asarray(shares, dtype=np.float64)
        if len(sources) != len(shares) or not len(sources) or (weights < 0).any() or weights.sum() <= 0:
            raise ValueError(f"need one non-negative share per source, got {list(shares)} for {len(sources)} sources")
        self._sources = list(sources)
        self._shares = weights / weights.sum()
        self._size = batch_size
        self._seed = seed

    def batch(self, step: int, rank: int = 0) -> Batch:
        """The batch of a training step on process ``rank``."""
        rng = np.random.default_rng([self._seed, step, rank])
        counts = np.floor(self._shares * self._size).astype(int)
        remainder = self._shares * self._size - counts
        extra = self._size - counts.sum()
        if extra:
            counts += np.bincount(rng.choice(len(counts), extra, p=remainder / remainder.sum()), minlength=len(counts))
        parts = [s.batch(rng.integers(0, len(s), n)) for s, n in zip(self._sources, counts, strict=True) if n]
        return Batch(
            images={name: torch.cat([p.images[name] for p in parts]) for name in parts[0].images},
            joints=torch.cat([p.joints for p in parts]),
            chunk=torch.cat([p.chunk for p in parts]),
            mask=torch.cat([p.mask for p in parts]),
        )


def infer_spec(dataset: Dataset, *, history: int = 2, horizon: int = 16, execute: int = 8) -> PolicySpec:
    """The specification of a policy for what ``dataset`` holds.

    Raises:
        DataError: if the dataset names no joints.
    """
    feature = dataset.features.get(STATE)
    names = getattr(feature, "names", None)
    if not names:
        raise DataError(f"{dataset.root}: '{STATE}' must name its joints")
    cameras = tuple(
        CameraInput(name=name, height=shape[0], width=shape[1])
        for name, shape in ((c, dataset.features[f"observation.images.{c}"].shape) for c in dataset.cameras)
    )
    return PolicySpec(
        cameras=cameras,
        joint_names=tuple(names),
        rate_hz=dataset.fps,
        history=history,
        horizon=horizon,
        execute=execute,
    )


def open_dataset(root: str | Path) -> Dataset:
    """Open a dataset for training."""
    return Dataset(root)
