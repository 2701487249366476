"""Stamps, rates and calibration of camera pictures: no camera, no librealsense."""

import numpy as np
import pytest
from hiwm_rig.realsense.picture import Fit, Intrinsics
from hiwm_rig.realsense.stamps import Decimator, HardwareClock
from hypothesis import given
from hypothesis import strategies as st

NS = 1_000_000_000
START = 1_700_000_000 * NS


def arrivals(clock: HardwareClock, count: int, delay_ms: list[float], boot_ms: float = 5000.0) -> list[tuple[int, int]]:
    """(true, mapped) host time of frames taken every 33 ms that arrive after a delay."""
    result = []
    for i in range(count):
        taken = START + i * 33 * NS // 1000
        arrival = taken + round(delay_ms[i % len(delay_ms)] * 1e6)
        result.append((taken, clock.to_host(boot_ms + 33 * i, arrival)))
    return result


def test_a_late_frame_keeps_the_time_at_which_it_was_taken():
    pairs = arrivals(HardwareClock(), 100, [5.0, 5.0, 40.0, 9.0])
    intervals = np.diff([mapped for _, mapped in pairs[4:]])
    assert intervals == pytest.approx(33e6, abs=0.1e6)  # arrivals vary by 35 ms
    assert max(abs(mapped - taken - 5e6) for taken, mapped in pairs[4:]) < 0.5e6


def test_clocks_that_drift_apart_do_not_pile_up_an_error():
    clock = HardwareClock()
    for sign in (1, -1):
        for i in range(3000):
            taken = START + i * 33 * NS // 1000
            mapped = clock.to_host(1000.0 + 33 * i * (1 + sign * 50e-6), taken + 4_000_000)
        assert abs(mapped - taken) < 10e6, f"drift {sign}"


def test_a_stamp_on_the_hosts_clock_is_taken_as_it_is():
    arrival = START + 60_000_000
    assert HardwareClock().to_host(START / 1e6, arrival) == START


def test_a_recording_that_starts_again_keeps_stamps_increasing_and_near_now():
    clock, stamps = HardwareClock(), []
    for i in range(90):
        arrival = START + i * 33_000_000
        stamps.append(clock.to_host(7000 + 33 * (i % 30), arrival))
        assert 0 <= arrival - stamps[-1] < 50_000_000
    assert (np.diff(stamps) > 0).all() and clock.jumps == 2


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8), st.floats(0, 1e9))
def test_stamps_increase_and_never_lie_in_the_future(delays: list[float], boot_ms: float):
    clock, last = HardwareClock(), 0
    for i in range(40):
        arrival = START + i * 33_000_000 + round(delays[i % len(delays)] * 1e6)
        arrival = max(arrival, last + 2)
        stamp = clock.to_host(boot_ms + 33 * i, arrival)
        assert last < stamp <= arrival
        last = stamp


@pytest.mark.parametrize(("rate", "fps", "expected"), [(10, 30, 100), (30, 30, 300), (15, 30, 150), (60, 30, 300)])
def test_a_faster_camera_is_thinned_out_evenly(rate: float, fps: float, expected: int):
    decimator = Decimator(rate, fps)
    noise = np.random.default_rng(0).uniform(-2e6, 2e6, 300)
    stamps = [START + round(i * 1e9 / fps + noise[i]) for i in range(300)]
    kept = [s for s in stamps if decimator.due(s)]
    assert abs(len(kept) - expected) <= 2
    assert np.diff(kept) == pytest.approx(1e9 / min(rate, fps), abs=0.2e9 / fps)


def test_thinning_goes_on_after_a_gap_without_a_burst():
    decimator = Decimator(10, 30)
    stamps = [START + i * NS // 30 for i in range(30)] + [START + 10 * NS + i * NS // 30 for i in range(30)]
    assert sum(decimator.due(s) for s in stamps) in range(19, 22)


def test_a_point_in_space_stays_on_its_pixel_through_crop_and_scale():
    """The calibration that is published belongs to the picture that is published."""
    source = Intrinsics(640, 480, 600.0, 605.0, 330.0, 235.0)
    fit = Fit.between((640, 480), (128, 128))
    image = np.zeros((480, 640, 3), np.uint8)
    point = np.array([0.1, -0.05, 1.0])
    u, v = source.fx * point[0] + source.cx, source.fy * point[1] + source.cy
    image[round(v) - 8 : round(v) + 9, round(u) - 8 : round(u) + 9] = 255
    small, scaled = fit.colour(image), fit.intrinsics(source)
    rows, columns = np.nonzero(small[:, :, 0] > 127)
    assert small.shape == (128, 128, 3)
    assert columns.mean() == pytest.approx(scaled.fx * point[0] + scaled.cx, abs=0.6)
    assert rows.mean() == pytest.approx(scaled.fy * point[1] + scaled.cy, abs=0.6)


def test_scaled_depth_holds_no_depth_that_was_not_there():
    depth = np.where(np.arange(640) < 317, 500, 2000).astype(np.uint16)[None].repeat(480, axis=0)
    small = Fit.between((640, 480), (128, 96)).depth(depth)
    assert small.shape == (96, 128) and set(np.unique(small)) == {500, 2000}


def test_a_picture_of_the_right_size_is_left_alone():
    fit = Fit.between((128, 96), (128, 96))
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    assert fit.identity and np.array_equal(fit.colour(image), image)
