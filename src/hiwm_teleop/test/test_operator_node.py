"""The scripted operator's node: its hand moves on, whenever the next frame comes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from hiwm_bringup.testing import unique_domain
from hiwm_rig.codecs import array_to_image, sample_to_joint_state
from hiwm_rig.contract import load_rig
from hiwm_teleop.operator_node import OperatorNode
from rclpy.context import Context

RIG = load_rig("push_t")


@pytest.fixture
def node() -> Iterator[OperatorNode]:
    context = Context()
    with unique_domain() as domain:
        rclpy.init(context=context, domain_id=domain)
        try:
            node = OperatorNode(context=context)
            yield node
            node.close()
            node.destroy_node()
        finally:
            rclpy.shutdown(context=context)


def test_a_frame_that_arrives_does_not_pull_the_hand_back(node: OperatorNode, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def leader(periods: float) -> np.ndarray:
        asked.append(periods)
        return np.array(RIG.home)

    monkeypatch.setattr(node.core, "leader", leader)
    node.core.moves += 1  # the hand was given somewhere to go
    node._tick()
    time.sleep(0.05)
    stamp = 1_000_000_000
    node._on_joints(sample_to_joint_state(RIG.joint_names, np.array(RIG.home), stamp))
    image = array_to_image(np.zeros((128, 128, 3), np.uint8), stamp, RIG.cameras[0].frame_id)
    node._image_callback(RIG.cameras[0].name)(image)
    node._tick()
    assert node.counters["frames"] == 1, "the frame was seen"
    assert asked[0] < 0.1 and asked[1] > 0.4  # it goes on from where it was
    node.core.moves += 1
    node._tick()
    assert asked[2] < 0.1
