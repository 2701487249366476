"""The topics of a rig as a bag holds them: name, type, quality of service. No ROS."""

from __future__ import annotations

from dataclasses import dataclass

from hiwm_rig.contract import Qos, Rig

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
JOINT_STATE = "sensor_msgs/msg/JointState"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
CONTROL_STATE = "hiwm_msgs/msg/ControlState"
EPISODE_EVENT = "hiwm_msgs/msg/EpisodeEvent"
WORLD_STATE = "hiwm_msgs/msg/WorldState"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"

_RECORDER_DEPTH = 100
_IMAGE_DEPTH = 50
"""Images the middleware may keep for a recorder that gets no processor time: five seconds at 10 Hz."""
_NO_DURATION = "{sec: 9223372036, nsec: 854775807}"


@dataclass(frozen=True)
class TopicSpec:
    """One recorded topic.

    Attributes:
        name: absolute topic name.
        type: ``package/msg/Name``.
        reliability: ``reliable`` or ``best_effort``.
        depth: messages the recorder keeps until it has taken them.
        latched: whether late joiners get the last messages (transient local).
    """

    name: str
    type: str
    reliability: str = "reliable"
    depth: int = _RECORDER_DEPTH
    latched: bool = False

    @property
    def qos_yaml(self) -> str:
        """``offered_qos_profiles`` as rosbag2 stores them, so that a replay offers the same."""
        lines = [
            "- history: keep_last",
            f"  depth: {self.depth}",
            f"  reliability: {self.reliability}",
            f"  durability: {'transient_local' if self.latched else 'volatile'}",
            f"  deadline: {_NO_DURATION}",
            f"  lifespan: {_NO_DURATION}",
            "  liveliness: automatic",
            f"  liveliness_lease_duration: {_NO_DURATION}",
            "  avoid_ros_namespace_conventions: false",
        ]
        return "\n".join(lines)


def rig_topics(rig: Rig) -> list[TopicSpec]:
    """Every topic of a rig and of the nodes around it."""
    specs: list[TopicSpec] = []
    for camera in rig.cameras:
        specs.append(_spec(camera.image_topic, IMAGE, rig.qos.images, _IMAGE_DEPTH))
        specs.append(_spec(camera.info_topic, CAMERA_INFO, rig.qos.images))
    for arm in rig.arms:
        specs.append(_spec(arm.joint_states, JOINT_STATE, rig.qos.joint_states))
        specs.append(_spec(arm.leader_joint_states, JOINT_STATE, rig.qos.joint_states))
        commands = (arm.command, arm.policy_command, arm.leader_command)
        specs.extend(_spec(topic, JOINT_TRAJECTORY, rig.qos.commands) for topic in commands)
    topics = rig.topics
    specs.append(TopicSpec(topics.control_state, CONTROL_STATE))
    specs.append(TopicSpec(topics.episode, EPISODE_EVENT, latched=True))
    specs.append(TopicSpec(topics.world_state, WORLD_STATE))
    specs.append(TopicSpec(topics.diagnostics, DIAGNOSTICS))
    return specs


def _spec(name: str, kind: str, qos: Qos, depth: int = _RECORDER_DEPTH) -> TopicSpec:
    return TopicSpec(name, kind, qos.reliability, depth)
