"""Writing a dataset: episodes are appended to a folder aside, which takes its name when it is complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hiwm_rig.files import write_json

from hiwm_data import layout
from hiwm_data.features import INDEX_FEATURES, DatasetError, Feature
from hiwm_data.stats import Moments, merge_all
from hiwm_data.video import VideoOptions, VideoSink

MetaValue = int | float | str | bool
_RESERVED_PREFIXES = ("videos/", "data/", "stats/", "meta/", "dataset_")
_RESERVED = {"episode_index", "tasks", "length"}


def column_type(feature: Feature) -> pa.DataType:
    """Arrow type of a stored column: scalars as they are, vectors as lists of fixed size."""
    scalar = pa.from_numpy_dtype(feature.numpy_dtype)
    return scalar if feature.shape == (1,) else pa.list_(scalar, feature.shape[0])


def data_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Schema of the data files: every column that is not video."""
    return pa.schema([(key, column_type(f)) for key, f in features.items() if not f.is_video])


def _to_arrow(feature: Feature, values: np.ndarray) -> pa.Array:
    flat = pa.array(values.reshape(-1), pa.from_numpy_dtype(feature.numpy_dtype))
    return flat if feature.shape == (1,) else pa.FixedSizeListArray.from_arrays(flat, feature.shape[0])


class DataSink:
    """Appends tables to the numbered data files, one row group per episode."""

    def __init__(self, root: Path, schema: pa.Schema, file_mb: float = layout.DATA_FILE_MB) -> None:
        self._root = root
        self._schema = schema
        self._file_mb = file_mb
        self._number = -1
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> tuple[int, int]:
        """Append an episode; returns chunk and file index."""
        if self._writer is None or self._bytes > self._file_mb * 1e6:
            self.close()
            self._number += 1
            self._bytes = 0
            chunk, file = layout.chunk_and_file(self._number)
            path = self._root / layout.DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, self._schema, compression="snappy")
        self._writer.write_table(table)
        self._bytes += table.nbytes
        return layout.chunk_and_file(self._number)

    def skip(self) -> None:
        """Leave a number out: that file is there already."""
        self.close()
        self._number += 1

    def close(self) -> None:
        """Finish the open file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class DatasetWriter:
    """Writes a LeRobotDataset v3.

    Use as a context manager: the dataset appears under its name when the block ends without an exception; with one,
    nothing is left.

    Raises:
        DatasetError: if ``root`` exists (and ``overwrite`` is false), or a feature cannot be stored.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fps: float,
        features: Mapping[str, Feature],
        robot_type: str,
        overwrite: bool = False,
        video: VideoOptions | None = None,
    ) -> None:
        self.root = Path(root)
        self.fps = fps
        self._robot_type = robot_type
        self._video = video or VideoOptions()
        self._features = {k: f for k, f in features.items() if k not in INDEX_FEATURES}
        for key, feature in self._features.items():
            if len(feature.shape) != (3 if feature.is_video else 1):
                raise DatasetError(
                    f"column '{key}': expected a shape (H, W, 3) for video and (n,) otherwise, got {feature.shape}"
                )
        self._partial = layout.prepare_partial(self.root, overwrite)
        self._all = {**self._features, **INDEX_FEATURES}
        self._data = DataSink(self._partial, data_schema(self._all))
        self._sinks = {
            k: VideoSink(self._partial, k, f.shape, fps, self._video) for k, f in self._features.items() if f.is_video
        }
        self._episodes: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, Moments] = {}
        self._total = 0
        self._open = True

    @property
    def num_episodes(self) -> int:
        """Episodes added so far."""
        return len(self._episodes)

    def add_episode(
        self, frames: Mapping[str, np.ndarray], *, task: str, meta: Mapping[str, MetaValue] | None = None
    ) -> int:
        """Append an episode and return its index.

        Args:
            frames: every declared column, [T, ...]; images uint8 [T, H, W, 3] RGB; scalars [T].
            task: the instruction in words.
            meta: extra columns of the episodes table (outcome, source, seed, split, ...).

        Raises:
            DatasetError: naming the column that is missing, unknown or of the wrong shape or dtype.
        """
        meta = dict(meta or {})
        self._check_meta(meta)
        columns, length = self._check(frames)
        index = len(self._episodes)
        task_index = self._tasks.setdefault(task, len(self._tasks))
        columns |= {
            "timestamp": (np.arange(length) / self.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, index),
            "index": np.arange(self._total, self._total + length),
            "task_index": np.full(length, task_index),
        }
        row: dict[str, Any] = {"episode_index": index, "tasks": [task], "length": length}
        row |= {"dataset_from_index": self._total, "dataset_to_index": self._total + length}
        stored = {k: _to_arrow(f, columns[k]) for k, f in self._all.items() if not f.is_video}
        chunk, file = self._data.add(pa.table(stored, schema=data_schema(self._all)))
        row |= {"data/chunk_index": chunk, "data/file_index": file}
        for key, sink in self._sinks.items():
            row |= {f"videos/{key}/{name}": value for name, value in vars(sink.add(columns[key])).items()}
        stats = {
            k: Moments.of_frames(columns[k]) if f.is_video else Moments.of(columns[k]) for k, f in self._all.items()
        }
        self._stats = merge_all([self._stats, stats])
        row |= {f"stats/{k}/{name}": value for k, m in stats.items() for name, value in m.to_json().items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._episodes.append(row | meta)
        self._total += length
        return index

    def close(self) -> None:
        """Complete the dataset and give it its name.

        Raises:
            DatasetError: if it holds no episode.
        """
        if not self._open:
            return
        if not self._episodes:
            self.abort()
            raise DatasetError(f"{self.root}: no episode was added")
        try:
            self._close_sinks()
            write_meta(self._partial, self._info(), self._stats, self._tasks, self._episodes)
            layout.commit_partial(self._partial, self.root)
        except BaseException:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise

    def abort(self) -> None:
        """Throw away what was written."""
        if self._open:
            try:
                self._close_sinks()
            finally:
                shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _close_sinks(self) -> None:
        self._open = False
        self._data.close()
        for sink in self._sinks.values():
            sink.close()

    def _check(self, frames: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
        if not self._open:
            raise DatasetError(f"{self.root}: the writer is closed")
        given = set(frames) - set(INDEX_FEATURES)
        if given != set(self._features):
            missing, unknown = sorted(set(self._features) - given), sorted(given - set(self._features))
            raise DatasetError(f"{self.root}: missing columns {missing}, unknown columns {unknown}")
        length: int | None = None
        columns = {}
        for key, feature in self._features.items():
            columns[key] = feature.check(key, frames[key], length)
            length = len(columns[key])
        if not length:
            raise DatasetError(f"{self.root}: an episode needs at least one frame")
        return columns, length

    def _check_meta(self, meta: Mapping[str, MetaValue]) -> None:
        for key, value in meta.items():
            if key in _RESERVED or key.startswith(_RESERVED_PREFIXES):
                raise DatasetError(f"episode meta '{key}': the name is reserved by the format")
            if not isinstance(value, (bool, int, float, str, np.bool_, np.integer, np.floating)):
                raise DatasetError(
                    f"episode meta '{key}': expected a number, string or bool, got {type(value).__name__}"
                )

    def _info(self) -> dict[str, Any]:
        features = {k: f.to_json(self.fps, "h264") for k, f in self._all.items()}
        return make_info(self._robot_type, self.fps, features, len(self._episodes), self._total, len(self._tasks))


def make_info(
    robot_type: str, fps: float, features: Mapping[str, Any], episodes: int, frames: int, tasks: int
) -> dict[str, Any]:
    """Contents of ``info.json``."""
    return {
        "codebase_version": layout.CODEBASE_VERSION,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": layout.CHUNKS_SIZE,
        "data_files_size_in_mb": layout.DATA_FILE_MB,
        "video_files_size_in_mb": layout.VIDEO_FILE_MB,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH,
        "features": dict(features),
    }


def write_meta(
    root: Path,
    info: Mapping[str, Any],
    stats: Mapping[str, Moments],
    tasks: Mapping[str, int],
    episodes: list[dict[str, Any]],
) -> None:
    """Write the ``meta`` folder; columns that only some episodes have are null in the others."""
    keys = list(dict.fromkeys(key for row in episodes for key in row))
    table = pa.table({key: pa.array([_plain(row.get(key)) for row in episodes]) for key in keys})
    path = root / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    layout.write_tasks(root, tasks)
    write_json(root / layout.STATS, {k: m.to_json() for k, m in stats.items()})
    write_json(root / layout.INFO, info)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
