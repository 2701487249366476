"""Which messages of a bag are due, and with which stamps. No ROS and no clock: the caller says what time it is."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig

from hiwm_data.bag_reader import Bag, BagMessage
from hiwm_data.segments import EventType
from hiwm_data.topics import EPISODE_EVENT, IMAGE

_CDR_HEADER = 4
_STAMP_BYTES = 8


class ReplayTime(StrEnum):
    """Which time a replay lives in."""

    ORIGINAL = "original"
    """Stamps as recorded, no clock."""
    CLOCK = "clock"
    """Stamps as recorded and ``/clock``, which never runs backwards: after a loop or a seek both move on."""
    NOW = "now"
    """Stamps moved to the present: nodes that run on the wall clock take it for a rig."""


@dataclass(frozen=True)
class PlayerOptions:
    """How a bag is played.

    Attributes:
        rate: speed; 2 plays twice as fast.
        loop: play again and again.
        start_s: begin so many seconds after the first message.
        time: of the stamps.
    """

    rate: float = 1.0
    loop: bool = False
    start_s: float = 0.0
    time: ReplayTime = ReplayTime.ORIGINAL


class Player:
    """Plays a bag.

    Times are nanoseconds: ``now_ns`` of any steady clock that is also the wall clock where stamps are moved to now.

    Args:
        bag: to play.
        topics: only these.
        options: see :class:`PlayerOptions`.

    Raises:
        ValueError: a rate of 0 or less, or a start outside of the bag.
        BagError: the bag cannot be read.
    """

    def __init__(self, bag: Bag, topics: Collection[str], options: PlayerOptions) -> None:
        if not options.rate > 0:
            raise ValueError(f"rate must be above 0, got {options.rate}")
        self._bag = bag
        self._topics = set(topics)
        self._options = options
        summary = bag.summary()
        self._start_ns, self._end_ns = summary.start_ns, summary.end_ns
        self._stamped = {kind for kind in summary.types.values() if starts_with_header(bag.definition(kind))}
        self._stamped.add(IMAGE)
        self._episode_topics = [t for t, kind in summary.types.items() if kind == EPISODE_EVENT]
        self._events: list[BagMessage] | None = None
        self._before: list[BagMessage] = []
        self._shift_ns = 0
        self.paused = False
        self._anchor_now = self._anchor_bag = 0
        self.seek(options.start_s, 0)

    @property
    def length_s(self) -> float:
        """Seconds from the first to the last message."""
        return (self._end_ns - self._start_ns) / NS_PER_S

    @property
    def finished(self) -> bool:
        """Whether the last message has been played; never in a loop."""
        return not self._options.loop and self._next is None and not self._before

    def position_ns(self, now_ns: int) -> int:
        """Where the replay is, as log time of the bag."""
        if self.paused:
            return self._anchor_bag
        return self._anchor_bag + round((now_ns - self._anchor_now) * self._options.rate)

    def clock_ns(self, now_ns: int) -> int:
        """What ``/clock`` shows."""
        return self.position_ns(now_ns) + self._shift_ns

    def hold(self, now_ns: int) -> None:
        """Stay where the replay is while time goes on (until the first subscribers are there)."""
        self._anchor_now = now_ns

    def pause(self, paused: bool, now_ns: int) -> None:
        """Stop, or go on."""
        self._anchor_bag, self._anchor_now = self.position_ns(now_ns), now_ns
        self.paused = paused

    def seek(self, seconds: float, now_ns: int) -> None:
        """Go to so many seconds after the first message.

        The events of the episode that runs there are played first, as a latched topic would deliver them.

        Raises:
            ValueError: outside of the bag; the replay stays where it is.
        """
        if not 0 <= seconds <= self.length_s:
            raise ValueError(f"{seconds:g} s lies outside of the bag, which has {self.length_s:.1f} s")
        clock = self.clock_ns(now_ns)
        target = self._start_ns + round(seconds * NS_PER_S)
        self._messages: Iterator[BagMessage] = self._bag.messages(self._topics, target if seconds else 0)
        self._next = next(self._messages, None)
        self._before = self._running_events(target) if seconds else []
        self._anchor_bag, self._anchor_now = target, now_ns
        self._shift_ns += max(0, clock - self.clock_ns(now_ns))

    def due(self, now_ns: int) -> list[BagMessage]:
        """Messages to publish now, stamps included; at the end of a looping replay its beginning."""
        position = self.position_ns(now_ns)
        found = [self._stamp(m) for m in self._before]
        self._before = []
        while self._next is not None and self._next.log_ns <= position and not self.paused:
            found.append(self._stamp(self._next))
            self._next = next(self._messages, None)
        if self._next is None and self._options.loop and not found:
            self.seek(0.0, now_ns)
        return found

    def _stamp(self, message: BagMessage) -> BagMessage:
        if self._options.time is ReplayTime.ORIGINAL or message.type not in self._stamped:
            return message
        stamp = read_stamp(message.data)
        if not stamp:
            return message
        if self._options.time is ReplayTime.CLOCK:
            moved = stamp + self._shift_ns
        else:
            moved = self._anchor_now + round((stamp - self._anchor_bag) / self._options.rate)
        return message._replace(data=with_stamp(message.data, moved))

    def _running_events(self, before_ns: int) -> list[BagMessage]:
        """Events since the begin of the episode that runs at a time; empty between episodes."""
        wanted = [t for t in self._episode_topics if t in self._topics]
        if self._events is None:
            self._events = list(self._bag.messages(wanted)) if wanted else []
        running: list[BagMessage] = []
        for message in self._events:
            if message.log_ns >= before_ns:
                break
            kind = self._bag.decode(message).type
            running = [message] if kind == EventType.BEGIN else [*running, message]
            if kind == EventType.END:
                running = []
        return running


def rig_output(rig: Rig) -> list[str]:
    """Topics that a rig publishes, and the episode events: what users of a rig listen to."""
    topics = [t for c in rig.cameras for t in (c.image_topic, c.info_topic)]
    return [*topics, *(a.joint_states for a in rig.arms), rig.topics.world_state, rig.topics.episode]


def starts_with_header(definition: str) -> bool:
    """Whether the first field of a message is a ``std_msgs/Header``."""
    for line in definition.splitlines():
        words = line.split("#", 1)[0].split()
        if words and "=" not in line.split("#", 1)[0]:
            return words[0] in ("std_msgs/Header", "std_msgs/msg/Header", "Header")
    return False


def _stamp_format(data: bytes) -> str:
    return "<iI" if data[1] & 1 else ">iI"


def read_stamp(data: bytes) -> int:
    """Header stamp, ns, of a serialised message that starts with a header."""
    sec, nanosec = struct.unpack_from(_stamp_format(data), data, _CDR_HEADER)
    return int(sec) * NS_PER_S + int(nanosec)


def with_stamp(data: bytes, stamp_ns: int) -> bytes:
    """The message with another header stamp; nothing else is touched or decoded."""
    stamp = struct.pack(_stamp_format(data), stamp_ns // NS_PER_S, stamp_ns % NS_PER_S)
    return data[:_CDR_HEADER] + stamp + data[_CDR_HEADER + _STAMP_BYTES :]
