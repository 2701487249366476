"""Reading a dataset: columns as arrays, camera frames decoded once into a memory map."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from hiwm_data import layout
from hiwm_data.features import IMAGE_PREFIX, DatasetError, Feature
from hiwm_data.stats import Moments
from hiwm_data.video import fill_rows

_STRUCTURE_PREFIXES = ("videos/", "data/", "stats/", "meta/", "dataset_")
_STRUCTURE = {"episode_index", "tasks", "length"}


@dataclass(frozen=True)
class Episode:
    """One episode: rows ``start`` to ``start + length``; ``meta`` holds the extra columns that are set."""

    index: int
    start: int
    length: int
    task: str
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> slice:
        """Rows of this episode."""
        return slice(self.start, self.start + self.length)


class Dataset:
    """A LeRobotDataset v3 on disk.

    Args:
        root: the dataset's folder.
        cache_dir: where decoded frames go; default ``$HIWM_CACHE``, else ``.cache`` beside the dataset.

    Raises:
        DatasetError: naming the file, if it is not a readable v3 dataset.
    """

    def __init__(self, root: str | Path, cache_dir: str | Path | None = None) -> None:
        self.root = Path(root)
        default = os.environ.get("HIWM_CACHE") or self.root.resolve().parent / ".cache"
        self.cache_dir = Path(cache_dir or default)
        self.info = layout.read_json(self.root / layout.INFO)
        version = str(self.info.get("codebase_version"))
        if not version.startswith("v3"):
            raise DatasetError(f"{self.root / layout.INFO}: expected codebase_version v3.x, got {version}")
        self.features = {k: Feature.from_json(f) for k, f in self.info["features"].items()}
        self.fps = float(self.info["fps"])
        self.tasks = layout.read_tasks(self.root)
        self.rows = _read_episodes(self.root)
        self.episodes = [_episode(row) for row in self.rows]
        self.num_frames = sum(e.length for e in self.episodes)
        self._table: pa.Table | None = None
        self._columns: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self.num_frames

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    @property
    def cameras(self) -> list[str]:
        """Camera names, in the order of the features."""
        return [k.removeprefix(IMAGE_PREFIX) for k, f in self.features.items() if f.is_video]

    @property
    def stats(self) -> dict[str, Moments]:
        """Statistics by column."""
        return {k: Moments.from_json(v) for k, v in layout.read_json(self.root / layout.STATS).items()}

    def episode_slice(self, index: int) -> slice:
        """Rows of an episode."""
        return self.episodes[index].frames

    def column(self, name: str) -> np.ndarray:
        """A column as [N, ...] (scalars [N]), read-only.

        Raises:
            DatasetError: naming the columns there are.
        """
        if name not in self._columns:
            feature = self.features.get(name)
            if feature is None or feature.is_video:
                have = [k for k, f in self.features.items() if not f.is_video]
                raise DatasetError(f"{self.root}: no column '{name}'; it has {have}")
            array = _to_numpy(self._data().column(name), feature)
            array.flags.writeable = False
            self._columns[name] = array
        return self._columns[name]

    def episode_tables(self) -> Iterator[pa.Table]:
        """The stored columns of each episode, in order."""
        return (self._data().slice(e.start, e.length) for e in self.episodes)

    def images(self, camera: str) -> np.ndarray:
        """Frames of a camera as a read-only uint8 memory map [N, H, W, 3] RGB, decoded on first use.

        Raises:
            DatasetError: naming the cameras there are, or the file that cannot be decoded.
        """
        key = camera if camera in self.features else f"{IMAGE_PREFIX}{camera}"
        if key not in self.features or not self.features[key].is_video:
            raise DatasetError(f"{self.root}: no camera '{camera}'; it has {self.cameras}")
        path = (
            self.cache_dir / f"{self.root.resolve().name}-{key.removeprefix(IMAGE_PREFIX)}-{self._fingerprint(key)}.npy"
        )
        if not path.exists():
            with _locked(path):
                if not path.exists():
                    self._decode(key, path)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _data(self) -> pa.Table:
        if self._table is None:
            template = self.info["data_path"]
            places = dict.fromkeys((r["data/chunk_index"], r["data/file_index"]) for r in self.rows)
            names = [k for k, f in self.features.items() if not f.is_video]
            tables = [_read_parquet(self.root / template.format(chunk_index=c, file_index=f), names) for c, f in places]
            table = pa.concat_tables(tables)
            order = table.column("index").to_numpy()
            if len(order) != self.num_frames:
                raise DatasetError(
                    f"{self.root}: the data files hold {len(order)} frames, the episodes table says {self.num_frames}"
                )
            self._table = table if (np.diff(order) > 0).all() else table.take(pa.array(np.argsort(order)))
        return self._table

    def _video_files(self, key: str) -> dict[Path, np.ndarray]:
        """Per video file the dataset row of each of its frames, -1 where there is none."""
        spans: dict[Path, list[tuple[int, Episode]]] = {}
        for row, episode in zip(self.rows, self.episodes, strict=True):
            place = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
            path = self.root / self.info["video_path"].format(video_key=key, **place)
            spans.setdefault(path, []).append((round(row[f"videos/{key}/from_timestamp"] * self.fps), episode))
        files = {}
        for path, entries in spans.items():
            rows = np.full(max(first + e.length for first, e in entries), -1, dtype=np.int64)
            for first, episode in entries:
                rows[first : first + episode.length] = np.arange(episode.start, episode.start + episode.length)
            files[path] = rows
        return files

    def _fingerprint(self, key: str) -> str:
        digest = hashlib.sha256(f"{self.features[key].shape} {self.num_frames}".encode())
        for path in sorted(self._video_files(key)):
            if not path.is_file():
                raise DatasetError(f"{path}: no such video file")
            stat = path.stat()
            digest.update(f"{path.relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]

    def _decode(self, key: str, path: Path) -> None:
        aside = path.with_name(f"{path.name}{layout.PARTIAL_SUFFIX}-{os.getpid()}")
        shape = (self.num_frames, *self.features[key].shape)
        try:
            out = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
            with tqdm(total=self.num_frames, desc=f"decoding {key}", unit="frame", leave=False, mininterval=1.0) as bar:
                for file, rows in self._video_files(key).items():
                    fill_rows(file, self.fps, rows, out, bar.update)
            out.flush()
            del out
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process decodes; others that want the same frames wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot read: {error}") from error


def _read_episodes(root: Path) -> list[dict[str, Any]]:
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DatasetError(f"{root / 'meta' / 'episodes'}: no episodes table")
    rows: list[dict[str, Any]] = [row for path in paths for row in _read_parquet(path).to_pylist()]
    return sorted(rows, key=lambda row: int(row["episode_index"]))


def _episode(row: dict[str, Any]) -> Episode:
    meta = {
        k: v for k, v in row.items() if k not in _STRUCTURE and not k.startswith(_STRUCTURE_PREFIXES) and v is not None
    }
    task = row["tasks"][0] if row["tasks"] else ""
    return Episode(int(row["episode_index"]), int(row["dataset_from_index"]), int(row["length"]), task, meta)


def _to_numpy(column: pa.ChunkedArray, feature: Feature) -> np.ndarray:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if feature.shape == (1,) and not pa.types.is_nested(array.type):
        return np.array(array.to_numpy(zero_copy_only=False), dtype=feature.numpy_dtype)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    shape = (len(array),) if feature.shape == (1,) else (len(array), *feature.shape)
    return np.array(flat, dtype=feature.numpy_dtype).reshape(shape)
