"""Whether a recording is good enough to learn from: lost, repeated and unusable messages, topic by topic. No ROS."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hiwm_data.align import RigStreams
from hiwm_data.bag_reader import BagError

LOST = "lost_frames"
UNALIGNED = "unaligned"


@dataclass(frozen=True)
class TopicQuality:
    """What is wrong with one topic, in messages.

    Attributes:
        topic: name.
        messages: that are in the bag.
        lost: expected at the control rate inside episodes, and not there.
        rejected: that do not hold what the rig file says; ``reason`` is that of the first.
        backwards: stamped before the message before them.
        repeated: with the stamp of the message before them.
    """

    topic: str
    messages: int
    lost: int = 0
    rejected: int = 0
    backwards: int = 0
    repeated: int = 0
    reason: str = ""

    @property
    def dropped(self) -> int:
        """Messages that cannot be used, or are not there."""
        return self.lost + self.rejected + self.backwards + self.repeated

    @property
    def share(self) -> float:
        """``dropped`` by what there should have been."""
        return self.dropped / max(1, self.messages + self.lost)

    def text(self) -> str:
        """One line for people."""
        parts = [
            f"{count} {what}"
            for count, what in (
                (self.lost, "lost"),
                (self.backwards, "with a stamp that goes backwards"),
                (self.repeated, "with the stamp of the one before"),
                (self.rejected, f"rejected ({self.reason})"),
            )
            if count
        ]
        return f"{self.topic}: {self.dropped} of {self.messages + self.lost} messages dropped: {', '.join(parts)}"


def topic_quality(streams: RigStreams, counters: Counter[str]) -> list[TopicQuality]:
    """One entry for every topic that frames and actions are made of, those with losses or not.

    Args:
        streams: with everything the bag holds.
        counters: of the alignment and of the segments (``lost_frames``, ``unaligned <topic>``).
    """
    reference = streams.rig.cameras[0].image_topic
    found = []
    for topic in streams.required:
        lost = counters[LOST] if topic == reference else counters[f"{UNALIGNED} {topic}"]
        found.append(
            TopicQuality(
                topic,
                streams.received[topic],
                lost,
                streams.rejected[topic],
                streams.backwards[topic],
                streams.repeated[topic],
                streams.reasons.get(topic, ""),
            )
        )
    return found


def require_quality(source: str, topics: list[TopicQuality], max_dropped: float) -> None:
    """Refuse a recording with too many drops.

    Args:
        source: name of the bag, for the message.
        topics: of the bag.
        max_dropped: largest accepted share, 0..1, of each topic.

    Raises:
        BagError: naming the bag, each such topic, its counts, and how to take the bag all the same.
    """
    bad = [t for t in topics if t.share > max_dropped]
    if bad:
        lines = "; ".join(t.text() for t in bad)
        raise BagError(f"{source}: {lines}. At most {max_dropped:.0%} are accepted (--max-dropped)")
