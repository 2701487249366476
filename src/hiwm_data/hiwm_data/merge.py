"""Putting datasets together by re-indexing; video files are copied as they are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hiwm_data import layout
from hiwm_data.features import DatasetError
from hiwm_data.reader import Dataset
from hiwm_data.stats import Moments, merge_all
from hiwm_data.writer import DataSink, data_schema, make_info, write_meta


def merge_datasets(roots: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Path:
    """Merge datasets with the same columns and frame rate, in the order given.

    Raises:
        DatasetError: if there is none, ``out`` exists, or columns or rates differ (naming both datasets).
    """
    if not roots:
        raise DatasetError("nothing to merge: no dataset was given")
    parts = [Dataset(root) for root in roots]
    for part in parts[1:]:
        _check_same(parts[0], part)
    root = Path(out)
    partial = layout.prepare_partial(root, overwrite)
    try:
        _merge_into(partial, parts)
    except BaseException:
        shutil.rmtree(partial)
        raise
    layout.commit_partial(partial, root)
    return root


def _check_same(first: Dataset, other: Dataset) -> None:
    if first.fps != other.fps:
        raise DatasetError(f"{other.root}: {other.fps} frames/s, but {first.root} has {first.fps}")
    if first.features != other.features:
        differing = sorted(
            k for k in first.features.keys() | other.features.keys() if first.features.get(k) != other.features.get(k)
        )
        raise DatasetError(f"{other.root}: columns {differing} differ from those of {first.root}")


def _merge_into(partial: Path, parts: Sequence[Dataset]) -> None:
    first = parts[0]
    sink = DataSink(partial, data_schema(first.features))
    tasks: dict[str, int] = {}
    episodes: list[dict[str, Any]] = []
    files = {k: 0 for k, f in first.features.items() if f.is_video}
    frames = 0
    for part in parts:
        remap = {old: tasks.setdefault(text, len(tasks)) for old, text in sorted(part.tasks.items())}
        placed = {key: _copy_videos(part, key, partial, files) for key in files}
        for row, table in zip(part.rows, part.episode_tables(), strict=True):
            start, length = frames, int(row["length"])
            chunk, file = sink.add(_reindexed(table, len(episodes), start, remap))
            merged = row | {
                "episode_index": len(episodes),
                "dataset_from_index": start,
                "dataset_to_index": start + length,
            }
            merged |= {
                "data/chunk_index": chunk,
                "data/file_index": file,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            merged |= _moved_index_stats(row, len(episodes), start, table, remap)
            for key, places in placed.items():
                new = places[row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]]
                merged |= {f"videos/{key}/chunk_index": new[0], f"videos/{key}/file_index": new[1]}
            episodes.append(merged)
            frames += length
    sink.close()
    stats = _merged_stats(parts, episodes)
    info = make_info(
        str(first.info.get("robot_type")), first.fps, first.info["features"], len(episodes), frames, len(tasks)
    )
    write_meta(partial, info, stats, tasks, episodes)


def _copy_videos(
    part: Dataset, key: str, partial: Path, files: dict[str, int]
) -> dict[tuple[int, int], tuple[int, int]]:
    """Copy the files of one camera under the next free numbers; returns old place -> new place."""
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for row in part.rows:
        old = (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        if old in places:
            continue
        places[old] = layout.chunk_and_file(files[key])
        files[key] += 1
        source = part.root / part.info["video_path"].format(video_key=key, chunk_index=old[0], file_index=old[1])
        target = partial / layout.VIDEO_PATH.format(
            video_key=key, chunk_index=places[old][0], file_index=places[old][1]
        )
        if not source.is_file():
            raise DatasetError(f"{source}: no such video file")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return places


def _reindexed(table: pa.Table, episode: int, start: int, remap: dict[int, int]) -> pa.Table:
    columns = {
        "episode_index": np.full(len(table), episode),
        "index": np.arange(start, start + len(table)),
        "task_index": np.array([remap[i] for i in table.column("task_index").to_pylist()]),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.int64()))
    return table


def _moved_index_stats(
    row: dict[str, Any], episode: int, start: int, table: pa.Table, remap: dict[int, int]
) -> dict[str, Any]:
    """Per-episode statistics of the columns that re-indexing changes."""
    if "stats/index/min" not in row:
        return {}
    moved = _reindexed(table, episode, start, remap)
    stats = {k: Moments.of(moved.column(k).to_numpy()) for k in ("episode_index", "index", "task_index")}
    return {f"stats/{k}/{name}": value for k, m in stats.items() for name, value in m.to_json().items()}


def _merged_stats(parts: Sequence[Dataset], episodes: list[dict[str, Any]]) -> dict[str, Moments]:
    total = merge_all(part.stats for part in parts)
    for key in ("episode_index", "index", "task_index"):
        entries = [
            {n: row[f"stats/{key}/{n}"] for n in ("min", "max", "mean", "std", "count")}
            for row in episodes
            if f"stats/{key}/min" in row
        ]
        if len(entries) == len(episodes):
            total |= merge_all({key: Moments.from_json(e)} for e in entries)
    return total
