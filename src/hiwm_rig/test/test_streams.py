"""Alignment finds what was there at one time, loses nothing silently, and does not depend on arrival order."""

import pytest
from hiwm_rig.streams import StreamBuffer
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000


def test_the_nearest_sample_within_tolerance_is_taken():
    buffer = StreamBuffer(["image", "joints"])
    buffer.push("image", 100 * MS, "i")
    for t in (90, 98, 111):
        buffer.push("joints", t * MS, t)
    assert buffer.aligned(100 * MS, 5 * MS) == {"image": "i", "joints": 98}
    assert buffer.aligned(100 * MS, 1 * MS) is None
    assert buffer.counters["unaligned"] == 1


def test_a_missing_topic_aligns_nothing():
    buffer = StreamBuffer(["image", "joints"])
    buffer.push("image", 1, "i")
    assert buffer.aligned(1, 10**12) is None
    assert buffer.latest(10**12) is None


def test_a_held_topic_shows_its_last_value_never_a_future_one():
    buffer = StreamBuffer(["image", "driver"], hold=["driver"])
    buffer.push("image", 100, "i")
    buffer.push("driver", 10, "policy")
    buffer.push("driver", 101, "human")
    assert buffer.aligned(100, 0) == {"image": "i", "driver": "policy"}
    assert buffer.aligned(9, 100) is None


def test_latest_takes_the_newest_time_all_topics_share():
    buffer = StreamBuffer(["image", "joints"])
    for t in (0, 100, 200, 300):
        buffer.push("joints", t, t)
    for t in (0, 100, 200):
        buffer.push("image", t, t)
    assert buffer.latest(10) == (200, {"image": 200, "joints": 200})


def test_late_samples_are_sorted_in_and_counted():
    buffer = StreamBuffer(["a"], depth=3)
    for t in (30, 10, 20):
        assert buffer.push("a", t, t)
    assert buffer.stamps("a") == (10, 20, 30)
    assert buffer.counters["out_of_order"] == 2
    assert not buffer.push("a", 5, 5)
    assert buffer.counters["dropped"] == 1
    assert buffer.push("a", 25, 25)
    assert buffer.stamps("a") == (20, 25, 30)


def test_a_repeated_stamp_replaces_and_is_counted():
    buffer = StreamBuffer(["a"])
    buffer.push("a", 1, "old")
    buffer.push("a", 1, "new")
    assert buffer.at("a", 1) == "new"
    assert buffer.counters["duplicates"] == 1


def test_a_live_buffer_stays_small_and_a_bag_buffer_keeps_all():
    live, bag = StreamBuffer(["a"], depth=4), StreamBuffer(["a"], depth=None)
    for t in range(1000):
        live.push("a", t, t)
        bag.push("a", t, t)
    assert live.sizes() == {"a": 4} and bag.sizes() == {"a": 1000}
    assert live.at("a", 999) == 999


def test_clear_forgets_everything():
    buffer = StreamBuffer(["a"])
    buffer.push("a", 1, 1)
    buffer.clear()
    assert buffer.aligned(1, 0) is None


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="depth"):
        StreamBuffer(["a"], depth=0)
    with pytest.raises(KeyError, match="b"):
        StreamBuffer(["a"], hold=["b"])
    with pytest.raises(KeyError):
        StreamBuffer(["a"]).push("b", 1, 1)


@given(st.permutations(range(12)), st.integers(0, 60), st.integers(0, 3))
def test_the_answer_does_not_depend_on_the_order_of_arrival(order, at, tolerance):
    ordered, shuffled = StreamBuffer(["a"], depth=None), StreamBuffer(["a"], depth=None)
    for i in range(12):
        ordered.push("a", 5 * i, i)
    for i in order:
        shuffled.push("a", 5 * i, i)
    assert ordered.aligned(at, tolerance) == shuffled.aligned(at, tolerance)
