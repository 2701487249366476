"""Writing a bag again whose recorder was killed, so that it has its index. No ROS."""

from __future__ import annotations

from pathlib import Path

from hiwm_data.bag_reader import Bag, BagError
from hiwm_data.bag_writer import BagWriter
from hiwm_data.definitions import Definition
from hiwm_data.topics import EPISODE_EVENT, TopicSpec


def recover_bag(source: str | Path, out: str | Path) -> int:
    """Copy every complete message of a bag into a new, complete bag; returns how many.

    Raises:
        BagError: if there is no bag, or no message in it.
        RecordingError: if ``out`` exists or cannot be written.
    """
    bag = Bag(source)
    summary = bag.summary()
    if not summary.types:
        raise BagError(f"{source}: no complete message to recover")
    # Type by type what the bag itself holds, so that no message package needs to be installed.
    definitions = {kind: Definition(kind, bag.definition(kind), "") for kind in summary.types.values()}
    topics = [TopicSpec(t, kind, latched=kind == EPISODE_EVENT) for t, kind in summary.types.items()]
    writer = BagWriter(out, topics, definitions, summary.metadata)
    for message in bag.messages():
        writer.write(message.topic, message.data, message.log_ns, message.log_ns)
    writer.close()
    return writer.message_count
