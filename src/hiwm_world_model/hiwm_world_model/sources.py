"""Real frames to reset a virtual robot to: of a bag. Library starts are in :mod:`hiwm_world_model.library`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hiwm_data.bag_reader import Bag, BagError
from hiwm_rig.codecs import CodecError, image_to_array, joint_state_to_sample
from hiwm_rig.contract import Rig

from hiwm_world_model.interface import Images


class SourceError(RuntimeError):
    """A source without the frames that were asked for; the text says what is missing."""


def first_frame_of_bag(path: str | Path, rig: Rig) -> tuple[dict[str, Images], npt.NDArray[np.float64]]:
    """The first image of every camera and the first joint positions in a rosbag2 (MCAP or sqlite3).

    Returns:
        Camera -> [H, W, 3] uint8 RGB, and [D] rad or m in the rig file's order.

    Raises:
        SourceError: naming the bag and the topics it lacks.
    """
    cameras = {c.image_topic: c.name for c in rig.cameras}
    arms = {a.joint_states: a for a in rig.arms}
    images: dict[str, Images] = {}
    joints: dict[str, npt.NDArray[np.float64]] = {}
    try:
        bag = Bag(path)  # reads a bag whose recorder was killed as well
        for message in bag.messages([*cameras, *arms]):
            topic = message.topic
            if topic in cameras and cameras[topic] not in images:
                images[cameras[topic]] = image_to_array(bag.decode(message)).copy()
            elif topic in arms and topic not in joints:
                joints[topic] = joint_state_to_sample(bag.decode(message), arms[topic].joint_names).positions
            if len(images) == len(cameras) and len(joints) == len(arms):
                return images, np.concatenate([joints[a.joint_states] for a in rig.arms])
    except (BagError, CodecError, OSError) as error:
        raise SourceError(f"{path}: cannot start from this bag: {error}") from error
    missing = [t for t, name in cameras.items() if name not in images] + [t for t in arms if t not in joints]
    raise SourceError(f"{path}: cannot start from this bag: no message on {', '.join(missing)}")
