"""Replay as a node: publishes the messages of a bag again, at their own pace, serialised as they are."""

from __future__ import annotations

import sys
from typing import Any

from hiwm_rig.codecs import ns_to_stamp
from hiwm_rig.contract import Rig, RigFileError
from hiwm_rig.rig_node import StartupError, run_node
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMsg

from hiwm_data.bag_reader import Bag, BagError, rig_of_bag, rig_topic
from hiwm_data.player import Player, PlayerOptions, ReplayTime, rig_output
from hiwm_data.recorder_node import message_class, topic_qos
from hiwm_data.topics import IMAGE, TopicSpec, rig_topics
from hiwm_msgs.srv import Pause, Seek

_TICK_S = 0.002
_CLOCK_S = 0.01
_ACK_S = 5


class ReplayNode(Node):
    """Plays a bag once, or again and again; ``~/seek`` and ``~/pause`` while it plays.

    A timer publishes what has become due, so nothing sleeps in a callback.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("replay", **kwargs)
        path = str(self.declare_parameter("bag", "").value)
        as_rig = bool(self.declare_parameter("as_rig", False).value)
        topics = [t for t in str(self.declare_parameter("topics", "").value).split(",") if t]
        options = self._options()
        # A wall clock that is set while a bag plays must not stop the replay; stamps moved to now need the wall clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._time = self.get_clock() if options.time is ReplayTime.NOW else steady
        try:
            bag = Bag(path)
            rig = rig_of_bag(bag)
            types = _published(bag, rig, topics, as_rig)
            self.player = Player(bag, types, options)
        except (BagError, RigFileError) as error:
            raise StartupError(f"parameter bag: {error}") from error
        except ValueError as error:
            raise StartupError(f"{path}: {error}") from error
        self._out = self._make_publishers(types, rig)
        awaited = {t for t, kind in types.items() if kind == IMAGE} if as_rig else set(types)
        self._awaited = [self._out[t] for t in awaited]
        self.published = 0
        # Discovery takes a moment: what is published before it is lost.
        wait_s = float(self.declare_parameter("wait_s", 1.0).value)
        self._listeners = int(self.declare_parameter("listeners", 1).value)
        self._wait_until_ns = self._now_ns() + round(1e9 * wait_s)
        self.player.hold(self._now_ns())
        if options.time is ReplayTime.CLOCK:
            self._clock_publisher = self.create_publisher(ClockMsg, "/clock", 10)
            self.create_timer(_CLOCK_S, self._publish_clock, clock=steady)
        self.create_service(Seek, "~/seek", self._on_seek)
        self.create_service(Pause, "~/pause", self._on_pause)
        self.create_timer(_TICK_S, self._publish_due, clock=steady)
        self.get_logger().info(f"playing {self.player.length_s:.1f} s on {len(types)} topics of {path}")

    def _options(self) -> PlayerOptions:
        time = str(self.declare_parameter("time", ReplayTime.ORIGINAL.value).value)
        if time not in set(ReplayTime):
            raise StartupError(f"parameter time must be one of {[t.value for t in ReplayTime]}, got '{time}'")
        return PlayerOptions(
            rate=float(self.declare_parameter("rate", 1.0).value),
            loop=bool(self.declare_parameter("loop", False).value),
            start_s=float(self.declare_parameter("start_s", 0.0).value),
            time=ReplayTime(time),
        )

    def _make_publishers(self, types: dict[str, str], rig: Rig | None) -> dict[str, Any]:
        specs = {s.name: s for s in rig_topics(rig)} if rig is not None else {}
        publishers = {}
        for topic, kind in types.items():
            spec = specs.get(topic, TopicSpec(topic, kind))
            publishers[topic] = self.create_publisher(message_class(kind), topic, topic_qos(spec))
        return publishers

    def _now_ns(self) -> int:
        return int(self._time.now().nanoseconds)

    def _waiting(self) -> bool:
        """Until there are ``listeners`` on every topic (as a rig: of its images), but at most ``wait_s``."""
        if self.published or self._now_ns() >= self._wait_until_ns:
            return False
        return any(p.get_subscription_count() < self._listeners for p in self._awaited)

    def _publish_clock(self) -> None:
        self._clock_publisher.publish(ClockMsg(clock=ns_to_stamp(self.player.clock_ns(self._now_ns()))))

    def _publish_due(self) -> None:
        now = self._now_ns()
        if self._waiting():
            self.player.hold(now)
            return
        for message in self.player.due(now):
            self._out[message.topic].publish(message.data)
            self.published += 1
        if self.player.finished:
            # Reliable subscribers get the last messages before the publishers go.
            for publisher in self._out.values():
                publisher.wait_for_all_acked(Duration(seconds=_ACK_S))
            self.get_logger().info(f"played {self.published} messages")
            raise ExternalShutdownException

    def _on_seek(self, request: Seek.Request, response: Seek.Response) -> Any:
        try:
            self.player.seek(float(request.seconds), self._now_ns())
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, f"at {request.seconds:g} s of {self.player.length_s:.1f} s"
        return response

    def _on_pause(self, request: Pause.Request, response: Pause.Response) -> Any:
        self.player.pause(bool(request.paused), self._now_ns())
        response.success, response.message = True, "paused" if request.paused else "playing"
        return response


def _published(bag: Bag, rig: Rig | None, topics: list[str], as_rig: bool) -> dict[str, str]:
    """Message type by topic of what will be played.

    Raises:
        BagError: none of it, or not all of ``topics``, is in the bag; or the bag does not say which topics are a rig's.
    """
    types = {}
    for topic, kind in bag.summary().types.items():
        shown = rig_topic(topic, kind)
        types[shown] = IMAGE if shown != topic else kind
    missing = sorted(set(topics) - types.keys())
    if missing or not types:
        raise BagError(f"{bag.path}: no messages on {missing or 'any topic'}; it has {sorted(types)}")
    if as_rig and rig is None:
        raise BagError(f"{bag.path}: keeps no rig file, so the topics of its rig are not known; name them (topics)")
    chosen = set(topics) or set(types)
    if as_rig and rig is not None:
        chosen &= set(rig_output(rig))
    return {t: kind for t, kind in types.items() if t in chosen}


def main(args: list[str] | None = None) -> None:
    """Entry point of ``replay``."""
    sys.exit(run_node(ReplayNode, args))


if __name__ == "__main__":
    main()
