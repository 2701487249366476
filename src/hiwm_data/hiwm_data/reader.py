"""Reading a dataset: columns as arrays, camera frames decoded where they are asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hiwm_data import layout
from hiwm_data.camera_frames import CameraFrames, VideoPlaces, camera_frames
from hiwm_data.features import ACTION, IMAGE_PREFIX, STATE, DatasetError, Feature
from hiwm_data.frame_cache import remove_others
from hiwm_data.stats import Moments

DEFAULT_CACHE_GB = 32.0

_INFO_KEYS = ("codebase_version", "fps", "features", "data_path", "video_path")
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
        cache_gb: at most so much of them, all cameras together; default ``$HIWM_CACHE_GB``, else 32. 0 keeps none.

    Raises:
        DatasetError: naming the file, if it is not a readable v3 dataset.
    """

    def __init__(self, root: str | Path, cache_dir: str | Path | None = None, cache_gb: float | None = None) -> None:
        self.root = Path(root)
        default = os.environ.get("HIWM_CACHE") or self.root.resolve().parent / ".cache"
        self.cache_dir = Path(cache_dir or default)
        self.cache_gb = _cache_gb() if cache_gb is None else cache_gb
        self.info = layout.read_json(self.root / layout.INFO)
        self._check_version()
        self.features = {k: Feature.from_json(f) for k, f in self.info["features"].items()}
        self.fps = float(self.info["fps"])
        self.tasks = layout.read_tasks(self.root)
        self.rows = _read_episodes(self.root)
        self.episodes = [_episode(row) for row in self.rows]
        self.num_frames = sum(e.length for e in self.episodes)
        self._columns: dict[str, np.ndarray] = {}
        self._cameras: dict[str, CameraFrames] = {}

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

    def check_joints(self, names: Sequence[str]) -> None:
        """Make sure that states and actions are those of a rig with these joints.

        Raises:
            DatasetError: naming the joints of both, if it was recorded on another rig.
        """
        for column in (STATE, ACTION):
            feature = self.features.get(column)
            if feature is None:
                raise DatasetError(f"{self.root}: no column '{column}'; it has {list(self.features)}")
            have = feature.names or feature.shape
            if feature.shape != (len(names),) or (feature.names is not None and feature.names != tuple(names)):
                raise DatasetError(f"{self.root}: '{column}' holds {list(have)}, expected {list(names)}: another rig")

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
            array = self._read_column(name, feature)
            array.flags.writeable = False
            self._columns[name] = array
        return self._columns[name]

    def episode_tables(self) -> Iterator[pa.Table]:
        """The stored columns of each episode, in order, one data file in memory at a time."""
        names = [k for k, f in self.features.items() if not f.is_video]
        for path, episodes in self._data_files().items():
            table = self._read_file(path, names, sum(e.length for e in episodes))
            for episode in episodes:
                yield table.slice(episode.start - episodes[0].start, episode.length)

    def images(self, camera: str) -> CameraFrames:
        """Frames of a camera, read like a uint8 array [N, H, W, 3] RGB: only the rows asked for are decoded.

        Raises:
            DatasetError: naming the cameras there are, or a file that is missing.
        """
        key = camera if camera in self.features else f"{IMAGE_PREFIX}{camera}"
        if key not in self.features or not self.features[key].is_video:
            raise DatasetError(f"{self.root}: no camera '{camera}'; it has {self.cameras}")
        if key not in self._cameras:
            height, width, channels = self.features[key].shape
            places = self._video_places(key)
            prefix = (
                f"{self.root.resolve().name}-{_digest(str(self.root.resolve()), 6)}-{key.removeprefix(IMAGE_PREFIX)}-"
            )
            limit = int(self.cache_gb * 1e9 / len(self.cameras))
            path = self.cache_dir / f"{prefix}{self._fingerprint(key, places)}-{limit}.frames"
            shape = (self.num_frames, height, width, channels)
            self._cameras[key] = camera_frames(places, shape, self.fps, path, limit)
            remove_others(self.cache_dir, prefix, path)
        return self._cameras[key]

    def episode_statistics(self) -> list[dict[str, Moments]]:
        """Statistics of each episode by column, as far as its table has them; read from disk at each call."""
        tables = _episode_tables(self.root, lambda name: name == "episode_index" or name.startswith("stats/"))
        rows = sorted((row for t in tables for row in t.to_pylist()), key=lambda row: int(row["episode_index"]))
        return [_statistics(row) for row in rows]

    def _check_version(self) -> None:
        path = self.root / layout.INFO
        missing = [k for k in _INFO_KEYS if not isinstance(self.info, dict) or k not in self.info]
        version = "none" if "codebase_version" in missing else str(self.info["codebase_version"])
        if version.startswith("v3"):
            if missing:
                raise DatasetError(f"{path}: keys {missing} are missing")
            return
        advice = ""
        if version.startswith("v2"):
            advice = (
                ". Convert it with lerobot (0.4 or newer): python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 "
                f"--repo-id=local/{self.root.resolve().name} --root={self.root} --push-to-hub=false"
            )
            if version != "v2.1":
                advice += " (v2.0: to v2.1 first)"
        raise DatasetError(f"{path}: expected codebase_version v3.x, got {version}{advice}")

    def data_paths(self) -> list[Path]:
        """The data files, in order."""
        return list(self._data_files())

    def _data_files(self) -> dict[Path, list[Episode]]:
        """Data files in order, with the episodes that lie in them."""
        files: dict[Path, list[Episode]] = {}
        for row, episode in zip(self.rows, self.episodes, strict=True):
            place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            files.setdefault(self.root / self.info["data_path"].format(**place), []).append(episode)
        return files

    def _read_column(self, name: str, feature: Feature) -> np.ndarray:
        files = self._data_files()
        tables = [self._read_file(p, [name], sum(e.length for e in episodes)) for p, episodes in files.items()]
        return _to_numpy(pa.concat_tables(tables).column(name), feature)

    def _read_file(self, path: Path, names: list[str], length: int) -> pa.Table:
        """Columns of a data file in the order of ``index``."""
        table = layout.read_parquet(path, list(dict.fromkeys([*names, "index"])))
        if len(table) != length:
            raise DatasetError(f"{path}: it holds {len(table)} frames, the episodes table says {length}")
        order = table.column("index").to_numpy()
        return table if (np.diff(order) > 0).all() else table.take(pa.array(np.argsort(order, kind="stable")))

    def _video_places(self, key: str) -> VideoPlaces:
        """Where the episodes of a camera lie.

        Raises:
            DatasetError: naming a video file that is missing.
        """
        files: dict[Path, int] = {}
        number, file = [], []
        for row in self.rows:
            place = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
            path = self.root / self.info["video_path"].format(video_key=key, **place)
            file.append(files.setdefault(path, len(files)))
            number.append(round(row[f"videos/{key}/from_timestamp"] * self.fps))
        for path in files:
            if not path.is_file():
                raise DatasetError(f"{path}: no such video file")
        columns = (file, number, [e.start for e in self.episodes], [e.length for e in self.episodes])
        return VideoPlaces(tuple(files), *(np.array(c, dtype=np.int64) for c in columns))

    def _fingerprint(self, key: str, places: VideoPlaces) -> str:
        facts = [f"{self.features[key].shape} {self.num_frames}"]
        for path in sorted(places.files):
            stat = path.stat()
            facts.append(f"{path.relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}")
        return _digest(" ".join(facts), 16)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _cache_gb() -> float:
    text = os.environ.get("HIWM_CACHE_GB", "")
    try:
        value = float(text) if text else DEFAULT_CACHE_GB
    except ValueError as error:
        raise DatasetError(f"HIWM_CACHE_GB: expected a number of gigabytes, got '{text}'") from error
    if not value >= 0:
        raise DatasetError(f"HIWM_CACHE_GB: expected a number of gigabytes, got '{text}'")
    return value


def _episode_tables(root: Path, wanted: Callable[[str], bool]) -> list[pa.Table]:
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DatasetError(f"{root / 'meta' / 'episodes'}: no episodes table")
    return [layout.read_parquet(path, [n for n in layout.parquet_columns(path) if wanted(n)]) for path in paths]


def _read_episodes(root: Path) -> list[dict[str, Any]]:
    """Rows of the episodes table without its statistics, which are most of it."""
    tables = _episode_tables(root, lambda name: not name.startswith("stats/"))
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
    missing = [k for k in (*_STRUCTURE, "dataset_from_index", "dataset_to_index") if rows and k not in rows[0]]
    if missing or not rows:
        raise DatasetError(
            f"{root / 'meta' / 'episodes'}: columns {missing} are missing" if rows else f"{root}: no episode"
        )
    return sorted(rows, key=lambda row: int(row["episode_index"]))


def _statistics(row: dict[str, Any]) -> dict[str, Moments]:
    keys = [k.removeprefix("stats/").removesuffix("/min") for k in row if k.startswith("stats/") and k.endswith("/min")]
    names = ("min", "max", "mean", "std", "count")
    entries = {key: {n: row.get(f"stats/{key}/{n}") for n in names} for key in keys}
    return {k: Moments.from_json(e) for k, e in entries.items() if all(v is not None for v in e.values())}


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
