"""The newest frames of another rig, to reset a virtual robot to what a real camera shows now. Needs ROS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_rig.codecs import CodecError, image_to_array, joint_state_to_sample
from hiwm_rig.contract import Rig
from hiwm_rig.rig_node import qos_profile
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from hiwm_world_model.interface import Images
from hiwm_world_model.sources import SourceError


class LiveSource:
    """Listens under a topic prefix (``/real``), so that the real rig and the virtual one do not share topics.

    Args:
        node: owner of the subscriptions.
        rig: the contract both rigs follow.
        prefix: put before every topic of the rig file; without one nothing is listened to.
    """

    def __init__(self, node: Node, rig: Rig, prefix: str) -> None:
        self._rig = rig
        self._prefix = prefix.rstrip("/")
        self._newest: dict[str, Any] = {}
        if not self._prefix:
            return
        for camera in rig.cameras:
            topic = self._prefix + camera.image_topic
            node.create_subscription(Image, topic, self._keep(camera.image_topic), qos_profile(rig.qos.images))
        for arm in rig.arms:
            topic = self._prefix + arm.joint_states
            node.create_subscription(JointState, topic, self._keep(arm.joint_states), qos_profile(rig.qos.joint_states))

    def newest(self) -> tuple[dict[str, Images], npt.NDArray[np.float64]]:
        """Camera -> [H, W, 3] uint8 RGB, and [D] joint positions in the rig file's order.

        Raises:
            SourceError: saying which topics have shown nothing yet, or what is wrong with a message.
        """
        if not self._prefix:
            raise SourceError("source 'live' needs the parameter live_prefix: where the real rig's topics are")
        wanted = [c.image_topic for c in self._rig.cameras] + [a.joint_states for a in self._rig.arms]
        missing = [self._prefix + t for t in wanted if t not in self._newest]
        if missing:
            raise SourceError(f"nothing received yet on {', '.join(missing)}")
        try:
            images = {c.name: image_to_array(self._newest[c.image_topic]).copy() for c in self._rig.cameras}
            joints = [joint_state_to_sample(self._newest[a.joint_states], a.joint_names) for a in self._rig.arms]
        except CodecError as error:
            raise SourceError(f"live frame: {error}") from error
        return images, np.concatenate([j.positions for j in joints])

    def _keep(self, topic: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self._newest[topic] = message

        return keep
