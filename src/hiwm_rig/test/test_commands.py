"""No wrong command reaches a rig, and a rig without a valid command holds."""

import re

import numpy as np
import pytest
from hiwm_rig.codecs import Chunk
from hiwm_rig.commands import CommandReceiver, Reason, interpolate, limit_velocity
from hiwm_rig.contract import Joint
from hypothesis import given
from hypothesis import strategies as st

S = 1_000_000_000
JOINTS = (
    Joint(name="a", lower=-1.0, upper=1.0, max_velocity=2.0),
    Joint(name="b", lower=0.0, upper=0.5, max_velocity=1.0),
)
HOME = np.array([0.1, 0.2])
NOW = 1000 * S


def receiver() -> CommandReceiver:
    return CommandReceiver(JOINTS, HOME, timeout_s=0.5)


def single(*positions, stamp_ns=NOW, offset_s=0.1) -> Chunk:
    return Chunk(stamp_ns, np.array([offset_s]), np.array([positions], dtype=float))


def test_before_any_command_home_is_held():
    target = receiver().target(NOW, NOW)
    assert not target.fresh
    np.testing.assert_array_equal(target.positions, HOME)


def test_a_single_target_applies_at_once():
    r = receiver()
    assert r.offer(single(0.5, 0.3), NOW) is None
    target = r.target(NOW, NOW)
    assert target.fresh
    np.testing.assert_array_equal(target.positions, [0.5, 0.3])


@pytest.mark.parametrize(
    ("positions", "reason", "text"),
    [
        ((float("nan"), 0.1), Reason.NOT_FINITE, "'a'"),
        ((0.0, float("inf")), Reason.NOT_FINITE, "'b'"),
        ((1.5, 0.1), Reason.OUT_OF_LIMITS, r"1.5000 of joint 'a' is outside \[-1.0, 1.0\]"),
        ((0.0, -0.2), Reason.OUT_OF_LIMITS, "joint 'b'"),
        ((0.0, 0.1, 0.1), Reason.MALFORMED, r"\(1, 2\)"),
    ],
)
def test_a_wrong_command_is_rejected_counted_and_the_last_valid_one_stays(positions, reason, text):
    r = receiver()
    r.offer(single(0.5, 0.3), NOW)
    rejection = r.offer(single(*positions), NOW)
    assert rejection is not None and rejection.reason is reason
    assert re.search(text, rejection.message)
    assert r.counters[reason.value] == 1 and r.counters["accepted"] == 1
    np.testing.assert_array_equal(r.target(NOW, NOW).positions, [0.5, 0.3])


def test_one_bad_point_rejects_the_whole_chunk():
    r = receiver()
    chunk = Chunk(NOW, np.array([0.1, 0.2]), np.array([[0.0, 0.1], [9.0, 0.1]]))
    assert r.offer(chunk, NOW) is not None
    assert not r.target(NOW, NOW).fresh


def test_rounding_outside_the_limits_is_clipped_not_rejected():
    r = receiver()
    assert r.offer(single(1.0005, 0.5), NOW) is None
    np.testing.assert_array_equal(r.target(NOW, NOW).positions, [1.0, 0.5])


def test_a_stale_command_is_held_and_counted_once():
    r = receiver()
    r.offer(single(0.5, 0.3), NOW)
    assert r.target(NOW, NOW + S // 2).fresh
    for _ in range(3):
        late = r.target(NOW, NOW + 7 * S // 10)
        assert not late.fresh
        np.testing.assert_array_equal(late.positions, [0.5, 0.3])
    assert r.counters["stale"] == 1


def test_a_chunk_is_interpolated_and_held_at_its_ends():
    r = receiver()
    r.offer(Chunk(NOW, np.array([0.1, 0.2]), np.array([[0.0, 0.1], [0.4, 0.3]])), NOW)
    for at, expected in [(0, [0, 0.1]), (0.1, [0, 0.1]), (0.15, [0.2, 0.2]), (0.2, [0.4, 0.3]), (0.6, [0.4, 0.3])]:
        np.testing.assert_allclose(r.target(NOW + round(at * S), NOW).positions, expected, atol=1e-12)


def test_a_chunk_ages_from_its_last_point():
    r = receiver()
    r.offer(Chunk(NOW, np.array([0.1, 1.0]), np.array([[0.0, 0.1], [0.4, 0.3]])), NOW)
    assert r.target(NOW, NOW + 14 * S // 10).fresh
    assert not r.target(NOW, NOW + 16 * S // 10).fresh


def test_a_command_that_had_run_out_before_it_came_is_rejected():
    r = receiver()
    rejection = r.offer(single(0.5, 0.3, stamp_ns=NOW - 5 * S), NOW)
    assert rejection is not None and rejection.reason is Reason.OLD


def test_a_stamp_of_zero_means_now():
    r = receiver()
    assert r.offer(single(0.5, 0.3, stamp_ns=0), NOW) is None
    assert r.target(NOW, NOW).fresh


def test_hold_forgets_the_command_in_force():
    r = receiver()
    r.offer(single(0.5, 0.3), NOW)
    r.hold(np.array([-0.5, 0.1]))
    target = r.target(NOW, NOW)
    assert not target.fresh
    np.testing.assert_array_equal(target.positions, [-0.5, 0.1])
    with pytest.raises(ValueError, match="finite"):
        r.hold(np.array([np.nan, 0.1]))


def test_unknown_joint_names_are_rejected_as_malformed():
    from hiwm_rig.codecs import chunk_to_trajectory

    r = receiver()
    rejection = r.offer_message(chunk_to_trajectory(("a", "elbow"), single(0.0, 0.1)), NOW)
    assert rejection is not None and "elbow" in rejection.message
    swapped = chunk_to_trajectory(("b", "a"), single(0.3, 0.5))
    assert r.offer_message(swapped, NOW) is None
    np.testing.assert_array_equal(r.target(NOW, NOW).positions, [0.5, 0.3])


values = st.floats(-1e3, 1e3)


@given(previous=st.tuples(values, values), target=st.tuples(values, values), dt=st.floats(1e-3, 1.0))
def test_limit_velocity_never_exceeds_the_limit_nor_overshoots(previous, target, dt):
    limits = np.array([2.0, 0.5])
    p, t = np.array(previous), np.array(target)
    moved = limit_velocity(p, t, limits, dt)
    assert (np.abs(moved - p) <= limits * dt + 1e-9).all()
    assert (np.abs(t - moved) <= np.abs(t - p) + 1e-9).all()


@given(at=st.integers(-S, 3 * S))
def test_interpolation_stays_between_its_points(at):
    chunk = Chunk(NOW, np.array([0.1, 0.7, 2.0]), np.array([[0.0], [1.0], [-1.0]]))
    assert -1.0 <= interpolate(chunk, NOW + at)[0] <= 1.0


def test_interpolation_at_a_point_is_exact():
    offsets = np.array([0.1, 0.2, 0.30000000000000004])
    chunk = Chunk(NOW, offsets, np.array([[0.1], [0.2], [0.3]]))
    for i, offset in enumerate((0.1, 0.2, 0.3)):
        assert interpolate(chunk, NOW + round(offset * S))[0] == pytest.approx(chunk.positions[i, 0], abs=1e-15)
