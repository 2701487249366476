"""Several arms are one rig to the arbiter, and one silent arm makes the whole rig stale."""

import numpy as np
from hiwm_rig.codecs import Chunk
from hiwm_teleop.joining import ChunkJoiner, SampleJoiner


def test_one_arm_passes_through_also_when_its_clock_starts_again() -> None:
    joiner = SampleJoiner(1)
    for stamp in (5, 6, 6, 2):
        joined = joiner.add(0, np.array([1.0]), stamp)
        assert joined is not None and joined[1] == stamp


def test_two_arms_are_as_old_as_the_older_one() -> None:
    joiner = SampleJoiner(2)
    assert joiner.add(0, np.array([1.0]), 10) is None, "the other arm is not there yet"
    positions, stamp = joiner.add(1, np.array([2.0]), 12) or (None, None)
    assert positions is not None and positions.tolist() == [1.0, 2.0] and stamp == 10
    assert joiner.add(1, np.array([3.0]), 14) is None, "the other arm says nothing new"
    positions, stamp = joiner.add(0, np.array([4.0]), 15) or (None, None)
    assert positions is not None and positions.tolist() == [4.0, 3.0] and stamp == 14


def test_chunks_join_only_where_they_come_from_one_observation() -> None:
    joiner = ChunkJoiner(2)
    times = np.array([0.1, 0.2])

    def chunk(stamp: int, value: float) -> Chunk:
        return Chunk(stamp, times, np.full((2, 1), value))

    assert joiner.add(0, chunk(1, 1.0)) is None
    assert joiner.add(1, chunk(2, 2.0)) is None, "another observation"
    joined = joiner.add(0, chunk(2, 3.0))
    assert joined is not None and joined.positions.tolist() == [[3.0, 2.0], [3.0, 2.0]] and joined.stamp_ns == 2
