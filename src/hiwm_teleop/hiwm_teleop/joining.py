"""Samples of several arms as one sample of the rig. No ROS."""

from __future__ import annotations

import numpy as np
from hiwm_rig.codecs import Chunk
from hiwm_rig.types import FloatArray


class SampleJoiner:
    """Joint positions of all arms, arm after arm; as old as the oldest of them, so that a silent arm is noticed."""

    def __init__(self, arms: int) -> None:
        """Args: arms: how many there are."""
        self._positions: list[FloatArray | None] = [None] * arms
        self._stamps = [0] * arms
        self._joined_ns: int | None = None

    def add(self, arm: int, positions: FloatArray, stamp_ns: int) -> tuple[FloatArray, int] | None:
        """Take a sample of one arm; all arms' positions with a common stamp, where that is another than before."""
        self._positions[arm], self._stamps[arm] = positions, stamp_ns
        known = [p for p in self._positions if p is not None]
        oldest = min(self._stamps)
        if len(known) < len(self._positions) or (oldest == self._joined_ns and oldest != stamp_ns):
            return None
        self._joined_ns = oldest
        return np.concatenate(known), oldest


class ChunkJoiner:
    """Action chunks of all arms that were computed from one observation."""

    def __init__(self, arms: int) -> None:
        """Args: arms: how many there are."""
        self._chunks: list[Chunk | None] = [None] * arms

    def add(self, arm: int, chunk: Chunk) -> Chunk | None:
        """Take one arm's chunk; the whole rig's, once all arms have one with the same stamp and times."""
        self._chunks[arm] = chunk
        chunks = [c for c in self._chunks if c is not None]
        same = all(c.stamp_ns == chunk.stamp_ns and np.array_equal(c.offsets_s, chunk.offsets_s) for c in chunks)
        if len(chunks) < len(self._chunks) or not same:
            return None
        return Chunk(chunk.stamp_ns, chunk.offsets_s, np.concatenate([c.positions for c in chunks], axis=1))
