"""Topics, types and quality of service, as discovery shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from hiwm_rig.conformance.registry import Finding, check
from hiwm_rig.conformance.session import Session
from hiwm_rig.conformance.user import CLOCK_TOPIC, NODE_NAME
from hiwm_rig.contract import Qos
from hiwm_rig.rig_node import qos_profile

IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
STATE, COMMAND = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
_ANSWER_S = 3.0


def _publishers(session: Session, topic: str) -> list[Any]:
    session.recording  # noqa: B018  # discovery has had its time when the recording is there
    return [e for e in session.user.node.get_publishers_info_by_topic(topic) if e.node_name != NODE_NAME]


def _subscribers(session: Session, topic: str) -> list[Any]:
    session.recording  # noqa: B018
    return [e for e in session.user.node.get_subscriptions_info_by_topic(topic) if e.node_name != NODE_NAME]


def _names(endpoints: Sequence[Any]) -> str:
    return ", ".join(f"{e.node_namespace.rstrip('/')}/{e.node_name} ({e.topic_type})" for e in endpoints) or "nobody"


def _one_publisher(session: Session, topics: Sequence[str], kind: str) -> Iterator[Finding]:
    for topic in topics:
        found = _publishers(session, topic)
        passed = len(found) == 1 and found[0].topic_type == kind
        yield Finding(topic, passed, f"one publisher of {kind}", _names(found))


@check("interface")
def image_topics(session: Session) -> Iterator[Finding]:
    """Each camera has one publisher of images."""
    yield from _one_publisher(session, [c.image_topic for c in session.rig.cameras], IMAGE)


@check("interface")
def camera_info_topics(session: Session) -> Iterator[Finding]:
    """Each camera has one publisher of its camera_info."""
    yield from _one_publisher(session, [c.info_topic for c in session.rig.cameras], INFO)


@check("interface")
def joint_state_topics(session: Session) -> Iterator[Finding]:
    """Each arm has one publisher of joint states."""
    yield from _one_publisher(session, [a.joint_states for a in session.rig.arms], STATE)


@check("interface")
def command_topics(session: Session) -> Iterator[Finding]:
    """Each arm listens to its command topic."""
    for arm in session.rig.arms:
        found = [e for e in _subscribers(session, arm.command) if e.topic_type == COMMAND]
        yield Finding(arm.command, bool(found), f"a subscriber of {COMMAND}", _names(found))


@check("interface")
def nobody_else_commands(session: Session) -> Iterator[Finding]:
    """A rig does not publish commands to itself."""
    for i, arm in enumerate(session.rig.arms):
        session.recording  # noqa: B018  # commands are counted while it records
        count = session.user.foreign_commands[i]
        yield Finding(arm.command, count == 0, "no command but those of this suite", f"{count} commands")


@check("interface")
def diagnostics_topic(session: Session) -> Iterator[Finding]:
    """The rig publishes diagnostics."""
    topic = session.rig.topics.diagnostics
    found = [e for e in _publishers(session, topic) if e.topic_type == DIAGNOSTICS]
    yield Finding(topic, bool(found), f"a publisher of {DIAGNOSTICS}", _names(found))


def _describe(profile: Any) -> str:
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def _served(session: Session, topics: Sequence[str], qos: Qos) -> Iterator[Finding]:
    """A subscriber with the contract's QoS is served: the publisher offers no less than is asked for."""
    wanted = qos_profile(qos)
    for topic in topics:
        for endpoint in _publishers(session, topic) or [None]:
            if endpoint is None:
                yield Finding(topic, False, _describe(wanted), "no publisher")
                continue
            offered = endpoint.qos_profile
            strict = wanted.reliability == ReliabilityPolicy.RELIABLE
            passed = not strict or offered.reliability == ReliabilityPolicy.RELIABLE
            yield Finding(topic, passed, f"offers at least {_describe(wanted)}", f"offers {_describe(offered)}")


@check("interface")
def image_qos(session: Session) -> Iterator[Finding]:
    """Images serve a subscriber with the contract's quality of service."""
    yield from _served(session, [c.image_topic for c in session.rig.cameras], session.rig.qos.images)


@check("interface")
def camera_info_qos(session: Session) -> Iterator[Finding]:
    """Camera infos serve a subscriber with the contract's quality of service."""
    yield from _served(session, [c.info_topic for c in session.rig.cameras], session.rig.qos.images)


@check("interface")
def joint_state_qos(session: Session) -> Iterator[Finding]:
    """Joint states serve a subscriber with the contract's quality of service."""
    yield from _served(session, [a.joint_states for a in session.rig.arms], session.rig.qos.joint_states)


@check("interface")
def command_qos(session: Session) -> Iterator[Finding]:
    """The arm's subscription takes what a publisher with the contract's quality of service sends."""
    wanted = qos_profile(session.rig.qos.commands)
    for arm in session.rig.arms:
        found = _subscribers(session, arm.command)
        asked = [e.qos_profile for e in found]
        good = [
            (wanted.reliability == ReliabilityPolicy.RELIABLE or q.reliability != ReliabilityPolicy.RELIABLE)
            and q.durability != DurabilityPolicy.TRANSIENT_LOCAL
            for q in asked
        ]
        seen = "; ".join(f"asks for {_describe(q)}" for q in asked) or "no subscriber"
        yield Finding(arm.command, bool(good) and all(good), f"asks for no more than {_describe(wanted)}", seen)


@check("interface")
def sim_time_has_a_clock(session: Session) -> Iterator[Finding]:
    """A node of the rig with use_sim_time finds a publisher of /clock; else its stamps stand still."""
    node, published = session.user.node, session.user.node.count_publishers(CLOCK_TOPIC) > 0
    topics = [c.image_topic for c in session.rig.cameras] + [a.joint_states for a in session.rig.arms]
    nodes = {f"{e.node_namespace.rstrip('/')}/{e.node_name}" for t in topics for e in _publishers(session, t)}
    for name in sorted(nodes):
        service = f"{name}/get_parameters"
        if not any(s == service for s, _ in node.get_service_names_and_types()):
            yield Finding(name, True, "use_sim_time only with /clock", "a node without parameters")
            continue
        answer = session.user.call(GetParameters, service, GetParameters.Request(names=["use_sim_time"]), _ANSWER_S)
        if answer is None:
            yield Finding(name, False, "use_sim_time only with /clock", f"{service} does not answer")
            continue
        uses = bool(answer.values) and bool(answer.values[0].bool_value)
        seen = f"use_sim_time {uses}, /clock {'is' if published else 'is not'} published"
        yield Finding(name, published or not uses, "use_sim_time only with /clock", seen)
