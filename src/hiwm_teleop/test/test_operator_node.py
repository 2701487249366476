"""The scripted operator's node: its hand moves on whenever the next frame comes, and the world waits for its head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event

import numpy as np
import pytest
import rclpy
from hiwm_bringup.testing import unique_domain
from hiwm_rig.codecs import NS_PER_S, array_to_image, sample_to_joint_state
from hiwm_rig.contract import load_rig
from hiwm_teleop.operator_node import OperatorNode
from hiwm_teleop.operator_table import Phase
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from hiwm_msgs.srv import Pause

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


def show(node: OperatorNode, stamp_ns: int) -> None:
    """One frame arrives."""
    node._on_joints(sample_to_joint_state(RIG.joint_names, np.array(RIG.home), stamp_ns))
    image = array_to_image(np.zeros((128, 128, 3), np.uint8), stamp_ns, RIG.cameras[0].frame_id)
    node._image_callback(RIG.cameras[0].name)(image)


def test_a_frame_that_arrives_does_not_pull_the_hand_back(node: OperatorNode, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def leader(periods: float) -> np.ndarray:
        asked.append(periods)
        return np.array(RIG.home)

    monkeypatch.setattr(node.core, "leader", leader)
    node.core.moves += 1  # the hand was given somewhere to go
    node._tick()
    time.sleep(0.05)
    show(node, NS_PER_S)
    node._tick()
    assert node.counters["frames"] == 1, "the frame was seen"
    assert asked[0] < 0.1 and asked[1] > 0.4  # it goes on from where it was
    node.core.moves += 1
    node._tick()
    assert asked[2] < 0.1


@pytest.fixture
def pauses(node: OperatorNode) -> Iterator[tuple[list[bool], Callable[[int], None]]]:
    """What a world beside the operator is told, and how to spin both until it was told so often."""
    told: list[bool] = []

    def on_pause(request: Pause.Request, response: Pause.Response) -> Pause.Response:
        told.append(request.paused)
        return response

    world = rclpy.create_node("world", context=node.context)
    world.create_service(Pause, "/hiwm/pause", on_pause)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(world)
    executor.add_node(node)

    def until(count: int) -> None:
        deadline = time.monotonic() + 10
        while (len(told) < count or not node._pause_client.service_is_ready()) and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.02)

    yield told, until
    executor.shutdown()
    world.destroy_node()


def test_the_world_waits_while_the_operator_plans_and_goes_on_afterwards(
    node: OperatorNode, pauses: tuple[list[bool], Callable[[int], None]]
) -> None:
    told, until = pauses
    until(0)
    node.core.phase = Phase.PLAN
    show(node, NS_PER_S)
    until(1)
    show(node, 2 * NS_PER_S)
    node.core.phase = Phase.CORRECT
    until(2)
    assert told == [True, False], "asked for once, not with each frame"


def test_the_world_waits_for_a_look_that_takes_longer_than_a_frame(
    node: OperatorNode, pauses: tuple[list[bool], Callable[[int], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, until = pauses
    until(0)
    seen = Event()
    monkeypatch.setattr(node.core, "observe", lambda view: seen.wait(10) and ())
    node.core.phase = Phase.CORRECT
    show(node, NS_PER_S)
    show(node, 2 * NS_PER_S)
    until(1)
    assert told == [True]
    seen.set()
    until(2)
    assert told == [True, False] and node.counters["dropped_frames"] == 1
