"""Frames of one camera of a dataset, read like an array: only what is asked for is decoded, and kept in a cache."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from hiwm_data.features import DatasetError
from hiwm_data.frame_cache import FrameCache
from hiwm_data.video import ClipReader

BLOCK = 10
"""Frames that are decoded and kept together: the distance of key frames in files written here."""
_SHOW_PROGRESS = 2000


@dataclass(frozen=True)
class VideoPlaces:
    """Where the episodes of one camera lie.

    Attributes:
        files: video files.
        file: [E] index into ``files``.
        number: [E] number of the first frame in its file.
        start: [E] dataset row of the first frame, ascending from 0.
        length: [E] frames.
    """

    files: Sequence[Path]
    file: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


class CameraFrames:
    """uint8 [N, H, W, 3] RGB, read-only. Indices of the first axis work as in NumPy: number, slice, array of any shape.

    Blocks of ten frames of an episode are decoded at once, from the key frame before them. Safe to use from several
    threads and from worker processes, forked or sent there.

    Args:
        places: where the frames lie.
        shape: (N, H, W, 3).
        fps: frames per second.
        cache: of blocks of :data:`BLOCK` frames.
    """

    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, places: VideoPlaces, shape: tuple[int, int, int, int], fps: float, cache: FrameCache) -> None:
        self.shape = shape
        self._places = places
        self._fps = fps
        blocks = -(-places.length // BLOCK)
        self._first_block = np.concatenate([[0], np.cumsum(blocks)])
        self._cache = cache
        self._clips = ClipReader(fps, shape[1:])
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return CameraFrames, (self._places, self.shape, self._fps, self._cache)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All frames; as large as the camera's whole recording."""
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, rows: Any) -> npt.NDArray[np.uint8]:
        """Frames at ``rows``: a number gives [H, W, 3], a slice [n, H, W, 3], an array [*rows.shape, H, W, 3].

        Raises:
            IndexError: if a row is outside.
            DatasetError: naming the file that cannot be decoded.
        """
        if isinstance(rows, tuple):
            head, *rest = rows
            across = 1 if isinstance(head, slice) else np.ndim(head)
            return self[head][(*(slice(None),) * across, *rest)]
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        index = np.asarray(rows)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        flat = index.astype(np.int64, casting="same_kind").reshape(-1)
        flat = np.where(flat < 0, flat + len(self), flat)
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"row outside of {len(self)} frames")
        out = np.empty((len(flat), *self.shape[1:]), np.uint8)
        self._fill(flat, out)
        return out.reshape(*index.shape, *self.shape[1:])

    def _fill(self, rows: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        places = self._places
        episodes = np.searchsorted(places.start, rows, side="right") - 1
        offsets = rows - places.start[episodes]
        blocks = (self._first_block[episodes] + offsets // BLOCK).tolist()
        inside = (offsets % BLOCK).tolist()
        missing: dict[int, list[int]] = {}
        for i, (block, frame) in enumerate(zip(blocks, inside, strict=True)):
            if not self._cache.read(block, frame, out[i]):
                missing.setdefault(block, []).append(i)
        quiet = len(missing) * BLOCK < _SHOW_PROGRESS
        for block in tqdm(sorted(missing), desc="decoding", unit="block", leave=False, disable=quiet, mininterval=1.0):
            frames = self._decode(block, int(episodes[missing[block][0]]))
            for i in missing[block]:
                out[i] = frames[inside[i]]

    def _decode(self, block: int, episode: int) -> npt.NDArray[np.uint8]:
        places = self._places
        first = int(block - self._first_block[episode]) * BLOCK
        count = min(BLOCK, int(places.length[episode]) - first)
        path = places.files[int(places.file[episode])]
        with self._lock:
            frames = self._clips.read(path, int(places.number[episode]) + first, count)
        self._cache.write(block, frames)
        return frames


def camera_frames(
    places: VideoPlaces,
    shape: tuple[int, int, int, int],
    fps: float,
    cache_path: Path,
    cache_bytes: int,
) -> CameraFrames:
    """Frames with a cache of at most ``cache_bytes`` at ``cache_path``.

    Raises:
        DatasetError: if the places do not fit the number of frames, or the cache cannot be made.
    """
    if int(places.length.sum()) != shape[0] or (np.diff(places.start) != places.length[:-1]).any():
        raise DatasetError(f"{places.files[0]}: the episodes table does not list {shape[0]} frames in one sequence")
    frame_bytes = int(np.prod(shape[1:]))
    blocks = int((-(-places.length // BLOCK)).sum())
    slots = min(blocks, cache_bytes // (BLOCK * frame_bytes))
    return CameraFrames(places, shape, fps, FrameCache(cache_path, slots, BLOCK, frame_bytes))
