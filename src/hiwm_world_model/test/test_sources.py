"""A virtual robot can start from the first frames of a recorded bag, and says what a bag lacks."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.testing import Messages
from hiwm_data.testing import write_bag as recorded
from hiwm_rig.contract import load_rig
from hiwm_world_model.sources import SourceError, first_frame_of_bag
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

RIG = load_rig("push_t")
STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types


def header(stamp_ns: int) -> object:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="front_color_optical_frame")


def write_bag(path: Path, images: list[np.ndarray], joints: list[np.ndarray]) -> Path:
    with Writer(path, version=9) as bag:
        for topic, name, values in (
            (RIG.cameras[0].image_topic, "sensor_msgs/msg/Image", images),
            (RIG.arms[0].joint_states, "sensor_msgs/msg/JointState", joints),
        ):
            connection = bag.add_connection(topic, name, typestore=STORE)
            for i, value in enumerate(values):
                stamp = 10**9 + i * 10**8
                if name.endswith("Image"):
                    message = TYPES[name](header(stamp), 128, 128, "rgb8", 0, 384, value.ravel())
                else:
                    names = list(reversed(RIG.joint_names))
                    message = TYPES[name](header(stamp), names, value[::-1].copy(), np.zeros(0), np.zeros(0))
                bag.write(connection, stamp, STORE.serialize_cdr(message, name))
    return path


def test_the_first_frame_of_a_bag_is_found_whatever_its_joint_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (128, 128, 3), dtype=np.uint8) for _ in range(3)]
    joints = [rng.normal(size=7) for _ in range(3)]
    found, positions = first_frame_of_bag(write_bag(tmp_path / "bag", images, joints), RIG)
    assert np.array_equal(found["front"], images[0])
    np.testing.assert_allclose(positions, joints[0])


def test_a_bag_without_a_camera_or_none_at_all_is_named(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [], [np.zeros(7)])
    with pytest.raises(SourceError, match=r"bag.*no message on /camera/front/color/image_raw"):
        first_frame_of_bag(bag, RIG)
    with pytest.raises(SourceError, match=r"nowhere.*cannot start from this bag"):
        first_frame_of_bag(tmp_path / "nowhere", RIG)


def test_a_bag_whose_recorder_was_killed_still_gives_its_first_frame(tmp_path: Path) -> None:
    made, joints = Messages(RIG), np.linspace(0, 0.03, 7)
    image = partial(made.image, RIG.cameras[0])
    frames = [f(v, 10**9 + i * 10**8) for i in range(400) for f, v in ((image, i % 250), (made.joint_state, joints))]
    bag = recorded(tmp_path / "bag", RIG, frames)
    [file] = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (bag / "metadata.yaml").unlink()
    found, positions = first_frame_of_bag(bag, RIG)
    assert (found["front"] == 0).all()
    np.testing.assert_allclose(positions, joints)
