"""Messages and arrays convert without loss, and a malformed message says what is wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
from hiwm_rig.codecs import Chunk, CodecError
from hiwm_rig.contract import load_rig
from hypothesis import given, settings
from hypothesis import strategies as st

from hiwm_rig import codecs

NAMES = ("a", "b", "c")


def stamp(ns=0):
    return SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9)


def image_msg(**change):
    fields = {"encoding": "rgb8", "height": 2, "width": 3, "step": 9, "data": bytes(range(18))}
    return SimpleNamespace(**(fields | change))


def test_importing_the_codecs_needs_no_ros(tmp_path):
    import subprocess
    import sys

    code = "import sys; import hiwm_rig.codecs, hiwm_rig.commands, hiwm_rig.streams; sys.exit('rclpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(ns=st.integers(0, 2**62))
@settings(max_examples=50, deadline=None)
def test_stamps_round_trip_to_the_nanosecond(ns):
    assert codecs.stamp_to_ns(codecs.ns_to_stamp(ns % (2**31 * 10**9))) == ns % (2**31 * 10**9)


@given(height=st.integers(1, 9), width=st.integers(1, 9), encoding=st.sampled_from(["rgb8", "bgr8"]))
@settings(max_examples=30, deadline=None)
def test_images_round_trip_in_both_encodings(height, width, encoding):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    msg = codecs.array_to_image(image, 5, "front", encoding)
    assert (msg.header.frame_id, msg.encoding, msg.step) == ("front", encoding, width * 3)
    np.testing.assert_array_equal(codecs.image_to_array(msg), image)


def test_padded_rows_are_cut_off():
    rows = np.zeros((2, 16), np.uint8)
    rows[:, :9] = np.arange(18).reshape(2, 9)
    array = codecs.image_to_array(image_msg(step=16, data=rows.tobytes()))
    np.testing.assert_array_equal(array.ravel(), np.arange(18))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"encoding": "mono16"}, "rgb8 or bgr8, got 'mono16'"),
        ({"data": b"123"}, "needs 18 bytes, got 3"),
        ({"step": 4}, "needs step >= 9, got 4"),
        ({"height": 0}, "image 3x0"),
    ],
)
def test_a_malformed_image_is_refused_with_a_reason(change, expected):
    with pytest.raises(CodecError, match=expected):
        codecs.image_to_array(image_msg(**change))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_only_rgb_uint8_arrays_become_images(image):
    with pytest.raises(CodecError, match="uint8"):
        codecs.array_to_image(image, 0, "")


def test_camera_info_is_a_centred_pinhole():
    camera = load_rig("push_t").camera("front")
    info = codecs.camera_to_info(camera, 7)
    assert info.distortion_model == "plumb_bob" and len(info.d) == 5
    assert (info.k[2], info.k[5]) == (camera.width / 2, camera.height / 2)
    half_angle = np.degrees(np.arctan(camera.height / 2 / info.k[4]))
    assert half_angle == pytest.approx(camera.fovy_deg / 2)
    assert info.header.frame_id == camera.frame_id


def test_joint_states_are_reordered_by_name():
    msg = codecs.sample_to_joint_state(("c", "x", "a", "b"), np.array([3.0, 9.0, 1.0, 2.0]), 11, np.arange(4.0))
    sample = codecs.joint_state_to_sample(msg, NAMES)
    assert sample.stamp_ns == 11
    np.testing.assert_array_equal(sample.positions, [1, 2, 3])
    np.testing.assert_array_equal(sample.velocities, [2, 3, 0])


@pytest.mark.parametrize(
    ("names", "positions", "velocities", "expected"),
    [
        (["a", "b"], [1.0, 2.0], [], r"lacks joints \['c'\]"),
        (["a", "b", "c"], [1.0, 2.0], [], "3 joints, has 2 positions"),
        (["a", "b", "c"], [1.0, 2.0, 3.0], [1.0], "1 velocities"),
        (["a", "b", "c"], [1.0, float("nan"), 3.0], [], "not finite"),
        (["a", "a", "b", "c"], [1.0] * 4, [], "twice"),
    ],
)
def test_a_malformed_joint_state_is_refused_with_a_reason(names, positions, velocities, expected):
    msg = SimpleNamespace(name=names, position=positions, velocity=velocities, header=SimpleNamespace(stamp=stamp()))
    with pytest.raises(CodecError, match=expected):
        codecs.joint_state_to_sample(msg, NAMES)


def test_chunks_round_trip_and_are_reordered():
    chunk = Chunk(123456789012, np.array([0.1, 0.2, 0.35]), np.arange(9.0).reshape(3, 3))
    msg = codecs.chunk_to_trajectory(NAMES, chunk)
    back = codecs.trajectory_to_chunk(msg, ("c", "a", "b"))
    assert back.stamp_ns == chunk.stamp_ns
    np.testing.assert_allclose(back.offsets_s, chunk.offsets_s, atol=1e-9)
    np.testing.assert_array_equal(back.positions, chunk.positions[:, [2, 0, 1]])


def trajectory(names=NAMES, points=((0.1, (1.0, 2.0, 3.0)),)):
    rows = [SimpleNamespace(positions=list(p), time_from_start=stamp(round(t * 1e9))) for t, p in points]
    return SimpleNamespace(joint_names=list(names), points=rows, header=SimpleNamespace(stamp=stamp(1)))


@pytest.mark.parametrize(
    ("msg", "expected"),
    [
        (trajectory(names=("a", "b", "z")), r"unknown joints \['z'\]"),
        (trajectory(names=("a", "b"), points=((0.1, (1.0, 2.0)),)), r"lacks joints \['c'\]"),
        (trajectory(points=()), "no points"),
        (trajectory(points=((0.1, (1.0,)),)), "needs 3 positions"),
        (trajectory(points=((0.2, (1, 2, 3)), (0.1, (1, 2, 3)))), "must increase"),
    ],
)
def test_a_malformed_trajectory_is_refused_with_a_reason(msg, expected):
    with pytest.raises(CodecError, match=expected):
        codecs.trajectory_to_chunk(msg, NAMES)


def test_arrays_of_the_wrong_size_do_not_become_messages():
    with pytest.raises(CodecError):
        codecs.sample_to_joint_state(NAMES, np.zeros(2), 0)
    with pytest.raises(CodecError):
        codecs.chunk_to_trajectory(NAMES, Chunk(0, np.array([0.1]), np.zeros((2, 3))))
