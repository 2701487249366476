"""Where the files of a LeRobotDataset v3 lie, and writing them aside then renaming."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hiwm_rig.files import PARTIAL_SUFFIX

from hiwm_data.features import DatasetError

CODEBASE_VERSION = "v3.0"
CHUNKS_SIZE = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"


def chunk_and_file(number: int) -> tuple[int, int]:
    """Chunk and file index of the ``number``-th file of a kind."""
    return divmod(number, CHUNKS_SIZE)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DatasetError: naming the file, if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file; expected a LeRobotDataset {CODEBASE_VERSION} folder") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: not JSON: {error}") from error


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read columns of a parquet file; all where None.

    Raises:
        DatasetError: naming the file, if it cannot be read or lacks a column.
    """
    try:
        table = pq.ParquetFile(path).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot read: {error}") from error
    missing = sorted(set(columns or ()) - set(table.column_names))
    if missing:
        raise DatasetError(f"{path}: columns {missing} are missing; it has {table.column_names}")
    return table


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns of a parquet file.

    Raises:
        DatasetError: naming the file, if it cannot be read.
    """
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot read: {error}") from error


def write_tasks(root: Path, tasks: Mapping[str, int]) -> None:
    """Write ``meta/tasks.parquet``: task_index by task, the task being a pandas index (as lerobot reads it)."""
    ordered = sorted(tasks.items(), key=lambda item: item[1])
    table = pa.table(
        {
            "task_index": pa.array([i for _, i in ordered], pa.int64()),
            "task": pa.array([t for t, _ in ordered], pa.string()),
        }
    )
    column = {
        "field_name": "task_index",
        "metadata": None,
        "name": "task_index",
        "numpy_type": "int64",
        "pandas_type": "int64",
    }
    index = {"field_name": "task", "metadata": None, "name": "task", "numpy_type": "object", "pandas_type": "unicode"}
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": [column, index], "pandas_version": "2.2.0"}
    table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
    path = root / TASKS
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def read_tasks(root: Path) -> dict[int, str]:
    """Task text by task index.

    Raises:
        DatasetError: if the file is missing or has other columns.
    """
    path = root / TASKS
    columns = read_parquet(path).to_pydict()
    text = columns.get("task", columns.get("__index_level_0__"))
    if text is None or "task_index" not in columns:
        raise DatasetError(f"{path}: expected the columns task and task_index, got {sorted(columns)}")
    return {int(i): str(t) for i, t in zip(columns["task_index"], text, strict=True)}


def prepare_partial(root: Path, overwrite: bool) -> Path:
    """Make an empty ``ROOT.partial`` to write into.

    Raises:
        DatasetError: if ``root`` exists and ``overwrite`` is false, or the folder cannot be made.
    """
    if root.exists() and not overwrite:
        raise DatasetError(f"{root}: exists already; choose another folder or ask for overwriting")
    partial = root.with_name(root.name + PARTIAL_SUFFIX)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(f"{root}: cannot be written: {error}") from error
    return partial


def commit_partial(partial: Path, root: Path) -> None:
    """Put a finished ``ROOT.partial`` in place; an older ``ROOT`` is removed only after that."""
    old = root.with_name(f"{root.name}.old-{os.getpid()}")
    if root.exists():
        root.rename(old)
    partial.rename(root)
    if old.exists():
        shutil.rmtree(old)
