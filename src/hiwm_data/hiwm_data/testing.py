"""For tests: recordings made without a running system, with messages of the installed types. No ROS import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_rig.contract import Camera, Rig
from hiwm_rig.types import Driver, Outcome
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from hiwm_data.align import Event
from hiwm_data.bag_reader import BagMessage
from hiwm_data.bag_writer import BagFormat, BagWriter
from hiwm_data.definitions import find_definition
from hiwm_data.recorder import recording_metadata
from hiwm_data.segments import EventType
from hiwm_data.topics import (
    CONTROL_STATE,
    EPISODE_EVENT,
    IMAGE,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    WORLD_STATE,
    rig_topics,
)

NS = 1_000_000_000


class Messages:
    """Makes and serialises messages of a rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.store = get_typestore(Stores.ROS2_JAZZY)
        for kind in (CONTROL_STATE, EPISODE_EVENT, WORLD_STATE):
            types = get_types_from_msg(find_definition(kind).text, kind)
            self.store.register({k: v for k, v in types.items() if k not in self.store.fielddefs})

    def bytes(self, topic: str, message: Any, log_ns: int) -> BagMessage:
        """A message as a bag holds it."""
        kind = message.__msgtype__
        return BagMessage(topic, kind, log_ns, bytes(self.store.serialize_cdr(message, kind)))

    def image(self, camera: Camera, value: int, stamp_ns: int, log_ns: int = 0) -> BagMessage:
        """A camera image of one grey ``value``."""
        message = self._new(
            IMAGE,
            header=self._header(stamp_ns),
            height=camera.height,
            width=camera.width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * camera.width,
            data=np.full(3 * camera.width * camera.height, value, dtype=np.uint8),
        )
        return self.bytes(camera.image_topic, message, log_ns or stamp_ns)

    def joint_state(self, positions: np.ndarray, stamp_ns: int) -> BagMessage:
        """Joint states of the first arm."""
        arm = self.rig.arms[0]
        values = {"position": np.asarray(positions, dtype=np.float64), "velocity": np.zeros(0), "effort": np.zeros(0)}
        message = self._new(JOINT_STATE, header=self._header(stamp_ns), name=list(arm.joint_names), **values)
        return self.bytes(arm.joint_states, message, stamp_ns)

    def command(self, positions: np.ndarray, stamp_ns: int) -> BagMessage:
        """One single-point command to the first arm."""
        arm = self.rig.arms[0]
        empty = np.zeros(0)
        point = self._new(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            positions=np.asarray(positions, dtype=np.float64),
            velocities=empty,
            accelerations=empty,
            effort=empty,
            time_from_start=self._new("builtin_interfaces/msg/Duration", sec=0, nanosec=round(self.rig.period_s * NS)),
        )
        header = self._header(stamp_ns)
        message = self._new(JOINT_TRAJECTORY, header=header, joint_names=list(arm.joint_names), points=[point])
        return self.bytes(arm.command, message, stamp_ns)

    def control(self, driver: int, proposal: np.ndarray | None, stamp_ns: int) -> BagMessage:
        """The arbiter's state."""
        message = self._new(
            CONTROL_STATE,
            header=self._header(stamp_ns),
            driver=driver,
            reason="",
            leader_fresh=True,
            policy_fresh=True,
            rig_fresh=True,
            joint_names=list(self.rig.joint_names),
            command=np.zeros(0),
            policy_action=np.zeros(0) if proposal is None else np.asarray(proposal, dtype=np.float64),
        )
        return self.bytes(self.rig.topics.control_state, message, stamp_ns)

    def world(self, step: int, branch: int, trust: float, stamp_ns: int) -> BagMessage:
        """State of a world rig."""
        message = self._new(
            WORLD_STATE,
            header=self._header(stamp_ns),
            episode_id="episode",
            model="model",
            step=step,
            snapshot_id=step,
            branch_id=branch,
            success_probability=0.5,
            trust=trust,
            paused=False,
        )
        return self.bytes(self.rig.topics.world_state, message, stamp_ns)

    def event(self, event: Event) -> BagMessage:
        """An episode event."""
        message = self._new(
            EPISODE_EVENT,
            header=self._header(event.stamp_ns),
            type=event.type,
            episode_id=event.episode_id,
            task=event.task,
            branch_id=event.branch_id,
            parent_branch_id=event.parent_id,
            snapshot_id=event.snapshot_id,
            outcome=event.outcome,
            note="",
        )
        return self.bytes(self.rig.topics.episode, message, event.stamp_ns)

    def _header(self, stamp_ns: int) -> Any:
        stamp = self._new("builtin_interfaces/msg/Time", sec=stamp_ns // NS, nanosec=stamp_ns % NS)
        return self._new("std_msgs/msg/Header", stamp=stamp, frame_id="")

    def _new(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)


def write_bag(path: Path, rig: Rig, messages: Iterable[BagMessage], form: BagFormat | None = None) -> Path:
    """A complete bag of these messages."""
    topics = rig_topics(rig)
    definitions = {t.type: find_definition(t.type) for t in topics}
    writer = BagWriter(path, topics, definitions, recording_metadata(rig, {"policy": "test"}), form)
    for message in messages:
        writer.write(message.topic, message.data, message.log_ns, message.log_ns)
    writer.close()
    return path


def recorded_session(rig: Rig, ticks: int = 8, start_ns: int = 1000 * NS) -> list[BagMessage]:
    """One episode on a world rig, as its nodes publish it.

    The policy fails on branch 1; a person takes over on branch 2, from step 2 of it; on branch 3, from the same state,
    the policy drives again and succeeds.

    Args:
        rig: with one arm.
        ticks: frames of each branch.
        start_ns: stamp of the first frame.
    """
    messages = Messages(rig)
    period = round(rig.period_s * NS)
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
