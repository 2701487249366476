"""Two nodes never fight over a topic: on one machine the lock decides at once, across machines discovery does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from hiwm_bringup.testing import Probe, unique_domain
from hiwm_rig.rig_node import StartupError
from hiwm_rig.single_publisher import SinglePublisher
from std_msgs.msg import String

from hiwm_rig import single_publisher

TOPIC = "/follower/joint_trajectory"


@pytest.fixture
def domain() -> Iterator[int]:
    with unique_domain() as number:
        yield number


def knows_the_name(probe: Probe, name: str) -> None:
    """Discovery tells of a publisher first and whose it is later."""

    def named() -> bool:
        return any(o.node_name == name for o in probe.node.get_publishers_info_by_topic(TOPIC))

    probe.spin_until(named, 60, f"the publisher of {name}")


def test_of_two_nodes_that_start_together_exactly_one_goes_on(domain: int) -> None:
    with Probe(domain, "first") as first, Probe(domain, "second") as second:
        held = SinglePublisher(first.node, TOPIC, 0.0)  # neither has a publisher yet: discovery shows nothing
        with pytest.raises(StartupError, match="/follower/joint_trajectory is already published"):
            SinglePublisher(second.node, TOPIC, 0.0)
        held.release()
        SinglePublisher(second.node, TOPIC, 0.0)


def test_the_topic_is_free_again_when_its_node_has_gone(domain: int) -> None:
    with Probe(domain, "first") as first:
        first.node._only = SinglePublisher(first.node, TOPIC, 0.0)  # type: ignore[attr-defined]
    with Probe(domain, "second") as second:
        SinglePublisher(second.node, TOPIC, 0.0)


def test_another_topic_and_another_domain_are_free(domain: int) -> None:
    with Probe(domain, "first") as first, unique_domain() as other, Probe(other, "second") as second:
        held = SinglePublisher(first.node, TOPIC, 0.0)
        SinglePublisher(first.node, "other", 0.0)
        SinglePublisher(second.node, TOPIC, 0.0)
        held.release()


def test_a_publisher_on_another_machine_is_found_by_discovery_and_named(domain: int) -> None:
    with Probe(domain, "far_arbiter") as far, Probe(domain, "near") as near:
        far.node.create_publisher(String, TOPIC, 1)
        knows_the_name(near, "far_arbiter")
        with pytest.raises(StartupError, match="far_arbiter"):
            SinglePublisher(near.node, TOPIC, 5.0)


def test_a_publisher_that_discovery_shows_late_stops_the_younger_node(domain: int) -> None:
    with Probe(domain, "near") as near, Probe(domain, "far") as far:
        held = SinglePublisher(near.node, TOPIC, 0.0)
        near.node.create_publisher(String, TOPIC, 1)
        far.node.create_publisher(String, TOPIC, 1)
        with pytest.raises(StartupError, match="already published"):
            near.spin_for(single_publisher.WATCH_S)
        held.release()


def test_without_a_place_for_lock_files_discovery_still_decides(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_publisher.tempfile, "gettempdir", lambda: "/proc/nowhere")
    with Probe(domain, "near") as near, Probe(domain, "far") as far:
        SinglePublisher(near.node, TOPIC, 0.0).release()
        far.node.create_publisher(String, TOPIC, 1)
        knows_the_name(near, "far")
        with pytest.raises(StartupError, match="far"):
            SinglePublisher(near.node, TOPIC, 5.0)
