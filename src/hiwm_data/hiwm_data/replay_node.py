"""Replay as a node: publishes the messages of a bag again, at their own pace, serialised as they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from hiwm_rig.contract import Rig
from hiwm_rig.rig_node import StartupError, run_node
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from hiwm_data.bag_reader import Bag, BagError, BagMessage, rig_of_bag
from hiwm_data.recorder_node import message_class, topic_qos
from hiwm_data.topics import TopicSpec, rig_topics

_TICK_S = 0.002
_ACK_S = 5


class ReplayNode(Node):
    """Plays a bag once, or again and again.

    A timer publishes what has become due, so nothing sleeps in a callback.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("replay", **kwargs)
        path = str(self.declare_parameter("bag", "").value)
        self.rate = float(self.declare_parameter("rate", 1.0).value)
        self.loop = bool(self.declare_parameter("loop", False).value)
        wanted = [t for t in str(self.declare_parameter("topics", "").value).split(",") if t]
        if self.rate <= 0:
            raise StartupError(f"parameter rate must be above 0, got {self.rate}")
        try:
            self._bag = Bag(path)
            summary = self._bag.summary()
            rig = rig_of_bag(self._bag)
        except BagError as error:
            raise StartupError(f"parameter bag: {error}") from error
        missing = sorted(set(wanted) - summary.types.keys())
        if missing or not summary.types:
            raise StartupError(f"{path}: no messages on {missing or 'any topic'}; it has {sorted(summary.types)}")
        self._topics = set(wanted or summary.types)
        self._out = self._make_publishers({t: summary.types[t] for t in self._topics}, rig)
        self._start_ns = summary.start_ns
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.published = 0
        # Discovery takes a moment: what is published before it is lost.
        self._wait_until_ns = self._steady.now().nanoseconds + round(1e9 * self._wait_s())
        self._begin()
        self.create_timer(_TICK_S, self._publish_due, clock=self._steady)

    def _make_publishers(self, types: dict[str, str], rig: Rig | None) -> dict[str, Any]:
        specs = {s.name: s for s in rig_topics(rig)} if rig is not None else {}
        publishers = {}
        for topic, kind in types.items():
            spec = specs.get(topic, TopicSpec(topic, kind))
            publishers[topic] = self.create_publisher(message_class(kind), topic, topic_qos(spec))
        return publishers

    def _wait_s(self) -> float:
        return float(self.declare_parameter("wait_s", 1.0).value)

    def _waiting(self) -> bool:
        """Until every topic has a subscriber, for at most the parameter ``wait_s``."""
        if self.published or self._steady.now().nanoseconds >= self._wait_until_ns:
            return False
        return any(p.get_subscription_count() == 0 for p in self._out.values())

    def _begin(self) -> None:
        self._messages: Iterator[BagMessage] = self._bag.messages(self._topics)
        self._next = next(self._messages, None)
        self._began_ns = self._steady.now().nanoseconds

    def _publish_due(self) -> None:
        if self._waiting():
            self._began_ns = self._steady.now().nanoseconds
            return
        elapsed = (self._steady.now().nanoseconds - self._began_ns) * self.rate
        while self._next is not None and self._next.log_ns - self._start_ns <= elapsed:
            self._out[self._next.topic].publish(self._next.data)
            self.published += 1
            self._next = next(self._messages, None)
        if self._next is None:
            if not self.loop:
                # Reliable subscribers get the last messages before the publishers go.
                for publisher in self._out.values():
                    publisher.wait_for_all_acked(Duration(seconds=_ACK_S))
                self.get_logger().info(f"played {self.published} messages")
                raise ExternalShutdownException
            self._begin()


def main(args: list[str] | None = None) -> None:
    """Entry point of ``replay``."""
    sys.exit(run_node(ReplayNode, args))


if __name__ == "__main__":
    main()
