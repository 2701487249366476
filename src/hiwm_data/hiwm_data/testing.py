"""For tests: recordings made without a running system, with messages of the installed types. No ROS import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, Outcome

from hiwm_data.align import Event
from hiwm_data.bag_reader import BagMessage
from hiwm_data.bag_writer import BagFormat, BagWriter
from hiwm_data.definitions import find_definition
from hiwm_data.messages import Messages
from hiwm_data.recorder import recording_metadata
from hiwm_data.segments import EventType
from hiwm_data.topics import rig_topics

__all__ = ["Messages", "recorded_session", "write_bag"]


def write_bag(path: Path, rig: Rig, messages: Iterable[BagMessage], form: BagFormat | None = None) -> Path:
    """A complete bag of these messages."""
    topics = rig_topics(rig)
    definitions = {t.type: find_definition(t.type) for t in topics}
    writer = BagWriter(path, topics, definitions, recording_metadata(rig, {"policy": "test"}), form)
    for message in messages:
        writer.write(message.topic, message.data, message.log_ns, message.log_ns)
    writer.close()
    return path


def recorded_session(rig: Rig, ticks: int = 8, start_ns: int = 1000 * NS_PER_S) -> list[BagMessage]:
    """One episode on a world rig, as its nodes publish it.

    The policy fails on branch 1; a person takes over on branch 2, from step 2 of it; on branch 3, from the same state,
    the policy drives again and succeeds.

    Args:
        rig: with one arm.
        ticks: frames of each branch.
        start_ns: stamp of the first frame.
    """
    messages = Messages(rig)
    period = round(rig.period_s * NS_PER_S)
    rng = np.random.default_rng(0)
    home, stamp = np.array(rig.home), start_ns

    def event(kind: EventType, stamp_ns: int, branch: int, parent: int, snapshot: int, outcome: Outcome) -> BagMessage:
        return messages.event(Event(stamp_ns, kind, "session", rig.task, branch, parent, snapshot, outcome))

    found = [event(EventType.BEGIN, stamp - period // 2, 1, -1, -1, Outcome.UNKNOWN)]
    branches = ((1, 0, Driver.POLICY), (2, 2, Driver.HUMAN), (3, 2, Driver.POLICY))
    for branch, first_step, driver in branches:
        if branch > 1:
            kind = EventType.ROLLBACK if branch == 2 else EventType.BRANCH
            found.append(event(kind, stamp - 1000, branch, branch - 1, first_step, Outcome.FAILURE))
        for step in range(first_step, first_step + ticks):
            found.append(messages.joint_state(home + 0.01 * step, stamp))
            found += [messages.image(c, int(rng.integers(256)), stamp) for c in rig.cameras]
            found.append(messages.world(step, branch, 0.9, stamp))
            proposal = home + 0.01 * step + 0.02
            target = proposal + 0.05 * (driver is Driver.HUMAN)
            found.append(messages.control(driver, proposal, stamp + period // 2))
            found.append(messages.command(target, stamp + period // 2 + 1000))
            stamp += period
    return [*found, event(EventType.END, stamp - period // 4, 3, 2, 2, Outcome.SUCCESS)]
