"""Root-to-leaf paths through the branches of a dataset, put together without storing a frame twice.

A branch is stored once, from the state it started from on (see :mod:`hiwm_data.segments`). Its path is what came before
that state in the branch it left, and before that in the branch that one left, and then its own frames. The recorded
``start_step`` says where: a frame's step is its episode's ``start_step`` plus its number.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from hiwm_data.features import INDEX_FEATURES
from hiwm_data.reader import Dataset, Episode
from hiwm_data.writer import DatasetWriter

_TREE = ("bag", "episode_id")
_LIMIT = 1 << 62


@dataclass(frozen=True)
class Piece:
    """Frames ``start`` to ``stop`` of an episode (a branch); the first of them is step ``step`` of the recording."""

    episode: int
    start: int
    stop: int
    step: int

    @property
    def end_step(self) -> int:
        """Step after the last frame."""
        return self.step + self.stop - self.start


@dataclass(frozen=True)
class BranchPath:
    """From the root of a recorded episode to the end of a branch that no other branch leaves at its end.

    Attributes:
        leaf: episode whose end is the path's end.
        pieces: in the order of time; each frame of a path is in one piece.
        complete: whether the path begins at a root and no frame is missing on the way.
    """

    leaf: int
    pieces: tuple[Piece, ...]
    complete: bool

    @property
    def length(self) -> int:
        """Frames on the path."""
        return sum(p.stop - p.start for p in self.pieces)

    def rows(self, dataset: Dataset) -> npt.NDArray[np.int64]:
        """Dataset rows of its frames, in order."""
        starts = [dataset.episodes[p.episode].start for p in self.pieces]
        return np.concatenate([np.arange(s + p.start, s + p.stop) for s, p in zip(starts, self.pieces, strict=True)])


def branch_paths(dataset: Dataset) -> list[BranchPath]:
    """One path per branch, in the order of the branches; episodes without branches are their own path.

    Every branch is a leaf: it was left where an operator jumped back, which ends a course of events. Only a piece
    before a gap, which another piece of the same branch continues, is no end.
    """
    tree = _Tree(dataset)
    return [tree.path(e) for e in dataset.episodes if not tree.continues(e)]


class _Tree:
    """Episodes by the branch they are a part of."""

    def __init__(self, dataset: Dataset) -> None:
        self._parts: dict[Hashable, list[Episode]] = {}
        for episode in dataset.episodes:
            self._parts.setdefault(_key(episode, episode.meta.get("branch_id")), []).append(episode)

    def continues(self, episode: Episode) -> bool:
        """Whether a later episode is the same branch after a gap."""
        return any(
            e.index > episode.index and int(e.meta.get("part", 0)) > int(episode.meta.get("part", 0))
            for e in self._same_start(episode)
        )

    def path(self, leaf: Episode) -> BranchPath:
        """The way from the root to the end of ``leaf``."""
        pieces: list[Piece] = []
        episode: Episode | None = leaf
        limit, complete = _LIMIT, True
        while episode is not None:
            own = [p for e in self._up_to(episode) if (p := _piece(e, limit)) is not None]
            pieces[:0] = own
            limit = min(limit, _start(self._up_to(episode)[0]))
            parent = episode.meta.get("parent_id", -1)
            if parent is None or int(parent) < 0:
                break
            episode = self._parent(episode, limit)
            complete = complete and episode is not None
        unbroken = all(a.end_step == b.step for a, b in itertools.pairwise(pieces))
        return BranchPath(leaf.index, tuple(pieces), complete and unbroken and pieces[0].start == 0)

    def _same_start(self, episode: Episode) -> list[Episode]:
        parts = self._parts[_key(episode, episode.meta.get("branch_id"))]
        return [e for e in parts if _origin(e) == _origin(episode)]

    def _up_to(self, episode: Episode) -> list[Episode]:
        """The episode and, of the same branch, the parts before the gaps before it."""
        return [e for e in self._same_start(episode) if e.index <= episode.index]

    def _parent(self, episode: Episode, limit: int) -> Episode | None:
        """The last part of the branch it left that was recorded before it."""
        if _start(episode) < 0:
            return None
        candidates = self._parts.get(_key(episode, episode.meta["parent_id"]), [])
        earlier = [e for e in candidates if e.index < episode.index]
        return earlier[-1] if earlier else None


def _key(episode: Episode, branch: Any) -> Hashable:
    """Branches of one recorded episode belong together; without a branch an episode stands alone."""
    if branch is None:
        return ("alone", episode.index)
    return (*(episode.meta.get(k, "") for k in _TREE), int(branch))


def _origin(episode: Episode) -> tuple[Any, ...]:
    return tuple(episode.meta.get(k) for k in ("parent_id", "snapshot_id"))


def _start(episode: Episode) -> int:
    return int(episode.meta.get("start_step", -1))


def _piece(episode: Episode, limit: int) -> Piece | None:
    start = _start(episode)
    length = episode.length if start < 0 else min(episode.length, limit - start)
    return Piece(episode.index, 0, length, max(start, 0)) if length > 0 else None


def write_paths(dataset: Dataset, out: str | Path, *, overwrite: bool = False) -> list[BranchPath]:
    """Write each complete path as one linear episode, for tools that know no branches; returns the paths written.

    What branches share is then stored once per path. Outcome and success are those of the leaf.

    Raises:
        DatasetError: if ``out`` exists, or no path is complete.
    """
    paths = [p for p in branch_paths(dataset) if p.complete]
    columns = [k for k in dataset.features if k not in INDEX_FEATURES]
    with DatasetWriter(
        out,
        fps=dataset.fps,
        features={k: dataset.features[k] for k in columns},
        robot_type=str(dataset.info.get("robot_type")),
        overwrite=overwrite,
    ) as writer:
        for path in tqdm(paths, desc="writing paths", unit="path"):
            rows, leaf = path.rows(dataset), dataset.episodes[path.leaf]
            frames = {k: _values(dataset, k, rows) for k in columns}
            meta = {k: v for k, v in leaf.meta.items() if k not in ("start_step", "part", "snapshot_id")}
            writer.add_episode(frames, task=leaf.task, meta=meta | {"branches": len(path.pieces)})
    return paths


def _values(dataset: Dataset, key: str, rows: npt.NDArray[np.int64]) -> np.ndarray:
    return dataset.images(key)[rows] if dataset.features[key].is_video else dataset.column(key)[rows]
