"""Messages of a rig made from values and serialised as a bag holds them; with the definitions of the installed types.

For recordings that come from elsewhere than running nodes: imported data, and tests. No ROS import.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Camera, Rig
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from hiwm_data.align import Event
from hiwm_data.bag_reader import BagMessage
from hiwm_data.definitions import find_definition
from hiwm_data.topics import CONTROL_STATE, EPISODE_EVENT, IMAGE, JOINT_STATE, JOINT_TRAJECTORY, WORLD_STATE


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
        return self.image_of(camera, np.full((camera.height, camera.width, 3), value, np.uint8), stamp_ns, log_ns)

    def image_of(self, camera: Camera, pixels: np.ndarray, stamp_ns: int, log_ns: int = 0) -> BagMessage:
        """A camera image of [H, W, 3] uint8 RGB ``pixels``."""
        message = self._new(
            IMAGE,
            header=self._header(stamp_ns, camera.frame_id),
            height=camera.height,
            width=camera.width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * camera.width,
            data=np.ascontiguousarray(pixels, dtype=np.uint8).reshape(-1),
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
        period = self._new("builtin_interfaces/msg/Duration", sec=0, nanosec=round(self.rig.period_s * NS_PER_S))
        point = self._new(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            positions=np.asarray(positions, dtype=np.float64),
            velocities=empty,
            accelerations=empty,
            effort=empty,
            time_from_start=period,
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

    def _header(self, stamp_ns: int, frame_id: str = "") -> Any:
        stamp = self._new("builtin_interfaces/msg/Time", sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)
        return self._new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _new(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)
