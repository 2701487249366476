"""A dataset out of episodes of others, by re-indexing: nothing is decoded, and statistics come from what is stored.

Video files of which every episode is taken are copied as they are. Of the others the packets of the chosen episodes are
copied; only where an episode does not start with a key frame are its frames encoded again.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from hiwm_data import layout
from hiwm_data.features import DatasetError
from hiwm_data.reader import Dataset
from hiwm_data.stats import Moments, merge_all
from hiwm_data.video import VideoOptions, VideoSink, VideoSpan
from hiwm_data.video_cut import cut_file
from hiwm_data.writer import DataSink, data_schema, make_info, write_meta

_MOVED = ("episode_index", "index", "task_index")


@dataclass(frozen=True)
class Part:
    """Episodes of one dataset.

    Attributes:
        dataset: where they come from.
        episodes: their indices, in the order wanted; None for all.
        link: hard-link files that are taken whole (the source is about to be replaced) instead of copying them.
        meta: columns of the episodes table to set.
    """

    dataset: Dataset
    episodes: Sequence[int] | None = None
    link: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> list[int]:
        """Indices of the episodes."""
        return list(range(self.dataset.num_episodes)) if self.episodes is None else list(self.episodes)


def assemble(parts: Sequence[Part], out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the parts, in order, as one dataset.

    Raises:
        DatasetError: if there is no episode, ``out`` exists, or rigs, columns or rates differ (naming both datasets).
    """
    if not parts or not any(p.chosen for p in parts):
        raise DatasetError(f"{out}: no episode to write" if parts else "nothing to merge: no dataset was given")
    for part in parts[1:]:
        check_same(parts[0].dataset, part.dataset)
    root = Path(out)
    partial = layout.prepare_partial(root, overwrite)
    try:
        _Assembly(partial, parts).write()
        layout.commit_partial(partial, root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return root


def check_same(first: Dataset, other: Dataset) -> None:
    """Refuse datasets that do not fit together.

    Raises:
        DatasetError: if robot, frame rate or columns differ.
    """
    robots = [str(d.info.get("robot_type")) for d in (first, other)]
    if robots[0] != robots[1]:
        raise DatasetError(f"{other.root}: recorded on robot '{robots[1]}', but {first.root} on '{robots[0]}'")
    if first.fps != other.fps:
        raise DatasetError(f"{other.root}: {other.fps} frames/s, but {first.root} has {first.fps}")
    if first.features != other.features:
        differing = sorted(
            k for k in first.features.keys() | other.features.keys() if first.features.get(k) != other.features.get(k)
        )
        raise DatasetError(f"{other.root}: columns {differing} differ from those of {first.root}")


class _Assembly:
    """One run of :func:`assemble`."""

    def __init__(self, partial: Path, parts: Sequence[Part]) -> None:
        self._root = partial
        self._parts = parts
        self._first = parts[0].dataset
        self._cameras = [k for k, f in self._first.features.items() if f.is_video]
        self._files = dict.fromkeys(self._cameras, 0)
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._statistics: dict[str, Moments] = {}
        self._frames = 0
        self._sink = DataSink(partial, data_schema(self._first.features))

    def write(self) -> None:
        """All parts, then the ``meta`` folder."""
        try:
            bar = tqdm(total=sum(len(p.chosen) for p in self._parts), desc="writing episodes", unit="episode")
            with bar:
                for part in self._parts:
                    self._add(part, bar)
        finally:
            self._sink.close()
        counts = (len(self._rows), self._frames, len(self._tasks))
        robot, features = str(self._first.info.get("robot_type")), self._first.info["features"]
        info = make_info(robot, self._first.fps, features, *counts)
        write_meta(self._root, info, self._statistics, self._tasks, self._rows)

    def _add(self, part: Part, bar: tqdm) -> None:
        dataset, chosen = part.dataset, part.chosen
        statistics = dataset.episode_statistics()
        placed = {key: self._place_videos(part, key) for key in self._cameras}
        numbered = sorted(dataset.tasks) == list(range(len(dataset.tasks)))
        whole = part.link and not self._rows and numbered and chosen == list(range(dataset.num_episodes))
        tables: Any = self._linked_data(part) if whole else _tables(dataset, chosen)
        moved = []
        for episode, table in zip(chosen, tables, strict=True):
            row = {**dataset.rows[episode], **part.meta}
            length, index = int(row["length"]), len(self._rows)
            row |= {"episode_index": index, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length}
            stats = statistics[episode] or _measured(dataset, episode)
            if not whole:
                table = reindexed(table, index, self._frames, self._task_indices(dataset, table))
                row["data/chunk_index"], row["data/file_index"] = self._sink.add(table)
                stats = stats | {k: Moments.of(table.column(k).to_numpy()) for k in _MOVED}
            for key, spans in placed.items():
                row |= {f"videos/{key}/{name}": value for name, value in vars(spans[episode]).items()}
            row |= {f"stats/{k}/{name}": value for k, m in stats.items() for name, value in m.to_json().items()}
            moved.append(stats)
            self._rows.append(row)
            self._frames += length
            bar.update()
        known = dataset.stats if len(chosen) == dataset.num_episodes else None
        self._statistics = merge_all([self._statistics, _total(moved, known)])

    def _task_indices(self, dataset: Dataset, table: pa.Table) -> dict[int, int]:
        """New index of each task that the rows mention."""
        used = table.column("task_index").unique().to_pylist()
        unknown = [i for i in used if i not in dataset.tasks]
        if unknown:
            raise DatasetError(f"{dataset.root / layout.TASKS}: tasks {unknown} are missing; episodes refer to them")
        return {i: self._tasks.setdefault(dataset.tasks[i], len(self._tasks)) for i in sorted(used)}

    def _linked_data(self, part: Part) -> list[None]:
        """Take the data files of the first part as they are; its rows and indices stay what they were."""
        for number, path in enumerate(part.dataset.data_paths()):
            chunk, file = layout.chunk_and_file(number)
            target = self._root / layout.DATA_PATH.format(chunk_index=chunk, file_index=file)
            if path.relative_to(part.dataset.root) != target.relative_to(self._root):
                raise DatasetError(
                    f"{path}: expected {target.relative_to(self._root)}; merge into a new dataset instead"
                )
            _take(path, target, link=True)
            self._sink.skip()
        self._tasks.update({text: i for i, text in sorted(part.dataset.tasks.items())})
        return [None] * part.dataset.num_episodes

    def _place_videos(self, part: Part, key: str) -> dict[int, VideoSpan]:
        """Copy what is needed of one camera under the next free numbers; where each episode then lies."""
        dataset = part.dataset
        rows, fps = dataset.rows, dataset.fps
        by_file: dict[tuple[int, int], list[int]] = {}
        for i, row in enumerate(rows):
            by_file.setdefault((row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]), []).append(i)
        wanted = set(part.chosen)
        spans: dict[int, VideoSpan] = {}
        for (chunk, file), inside in by_file.items():
            taken = [i for i in inside if i in wanted]
            if not taken:
                continue
            source = dataset.root / dataset.info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)
            if not source.is_file():
                raise DatasetError(f"{source}: no such video file")
            place = layout.chunk_and_file(self._files[key])
            self._files[key] += 1
            target = self._root / layout.VIDEO_PATH.format(video_key=key, chunk_index=place[0], file_index=place[1])
            firsts = [round(rows[i][f"videos/{key}/from_timestamp"] * fps) for i in taken]
            lengths = [int(rows[i]["length"]) for i in taken]
            if len(taken) == len(inside):
                _take(source, target, part.link)
            else:
                if not cut_file(source, target, fps, list(zip(firsts, lengths, strict=True))):
                    self._encode(part, key, taken, target)
                firsts = [0, *np.cumsum(lengths)[:-1].tolist()]
            for i, first, length in zip(taken, firsts, lengths, strict=True):
                spans[i] = VideoSpan(*place, first / fps, (first + length) / fps)
        return spans

    def _encode(self, part: Part, key: str, episodes: Sequence[int], target: Path) -> None:
        """Encode episodes again, where their packets cannot be copied."""
        dataset = part.dataset
        options = VideoOptions(file_mb=float("inf"))
        sink = VideoSink(self._root / "encode", key, dataset.features[key].shape, dataset.fps, options)
        frames = dataset.images(key)
        for episode in episodes:
            sink.add(frames[dataset.episode_slice(episode)])
        sink.close()
        target.parent.mkdir(parents=True, exist_ok=True)
        sink.path.replace(target)
        shutil.rmtree(self._root / "encode")


def _take(source: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(source, target)
            return
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK):
                raise
    shutil.copyfile(source, target)


def _tables(dataset: Dataset, chosen: Sequence[int]) -> Iterator[pa.Table]:
    if list(chosen) == sorted(chosen):
        wanted = set(chosen)
        return (t for i, t in enumerate(dataset.episode_tables()) if i in wanted)
    tables = list(dataset.episode_tables())
    return (tables[i] for i in chosen)


def reindexed(table: pa.Table, episode: int, start: int, remap: dict[int, int]) -> pa.Table:
    """The rows of an episode as episode ``episode`` from row ``start`` on, task indices by ``remap``."""
    columns = {
        "episode_index": np.full(len(table), episode),
        "index": np.arange(start, start + len(table)),
        "task_index": np.array([remap[i] for i in table.column("task_index").to_pylist()]),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.int64()))
    return table


def _measured(dataset: Dataset, episode: int) -> dict[str, Moments]:
    """Statistics of an episode of a dataset that does not keep them."""
    rows = dataset.episode_slice(episode)
    return {
        k: Moments.of_frames(dataset.images(k)[rows]) if f.is_video else Moments.of(dataset.column(k)[rows])
        for k, f in dataset.features.items()
    }


def _total(episodes: Sequence[dict[str, Moments]], known: dict[str, Moments] | None) -> dict[str, Moments]:
    """Statistics of a part: those its dataset keeps where all of it is taken, else put together from its episodes."""
    total = merge_all(episodes)
    if known is not None:
        total |= {k: m for k, m in known.items() if k not in _MOVED}
    return total
