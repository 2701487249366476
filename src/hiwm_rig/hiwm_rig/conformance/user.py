"""A user of a rig: subscribes with the contract's QoS, commands, and keeps evidence. Needs rclpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_rig.codecs import stamp_to_ns
from hiwm_rig.conformance.evidence import Frame, Info, State, frame_of, info_of, state_of
from hiwm_rig.contract import Rig
from hiwm_rig.participant import Probe
from hiwm_rig.rig_node import now_ns, qos_profile

NODE_NAME = "rig_check"
CLOCK_TOPIC = "/clock"
_DISCOVERY_S = 1.0


@dataclass(frozen=True)
class Status:
    """One ``DiagnosticStatus``; ``level`` 0 is OK."""

    name: str
    level: int
    values: dict[str, str]
    received_ns: int
    stamp_ns: int


class RigUser:
    """A node that sees a rig as any of its users does. Use as a context manager.

    Attributes:
        frames: evidence of images by camera name, oldest first.
        infos: evidence of camera infos by camera name.
        states: evidence of joint states by arm.
        foreign_commands: by arm, commands that did not come from here.
    """

    def __init__(self, rig: Rig, domain: int | None = None) -> None:
        self.rig = rig
        self.probe = Probe(domain, NODE_NAME)
        self.node = self.probe.node
        self.frames: dict[str, list[Frame]] = {c.name: [] for c in rig.cameras}
        self.infos: dict[str, list[Info]] = {c.name: [] for c in rig.cameras}
        self.states: list[list[State]] = [[] for _ in rig.arms]
        self.statuses: list[Status] = []
        self._excess: list[tuple[float, str]] = [(0.0, "") for _ in rig.arms]
        self.foreign_commands = [0 for _ in rig.arms]
        self._sent = [0 for _ in rig.arms]
        commands = qos_profile(rig.qos.commands)
        self._commands = [self.node.create_publisher(JointTrajectory, a.command, commands) for a in rig.arms]
        self._listen()

    def __enter__(self) -> RigUser:
        return self

    def __exit__(self, *exc: object) -> None:
        self.probe.close()

    def _listen(self) -> None:
        images, states = qos_profile(self.rig.qos.images), qos_profile(self.rig.qos.joint_states)
        for camera in self.rig.cameras:
            self._keep(Image, camera.image_topic, images, frame_of, self.frames[camera.name])
            self._keep(CameraInfo, camera.info_topic, images, info_of, self.infos[camera.name])
        for i, arm in enumerate(self.rig.arms):
            self.node.create_subscription(JointState, arm.joint_states, partial(self._on_state, i), states)
            self.node.create_subscription(
                JointTrajectory, arm.command, partial(self._on_command, i), qos_profile(self.rig.qos.commands)
            )
        self.node.create_subscription(DiagnosticArray, self.rig.topics.diagnostics, self._on_diagnostics, 10)

    def _keep(self, kind: Any, topic: str, qos: Any, reduce: Callable[[Any, int], Any], into: list[Any]) -> None:
        self.node.create_subscription(kind, topic, lambda msg: into.append(reduce(msg, self.now_ns())), qos)

    def _on_state(self, arm: int, msg: JointState) -> None:
        state = state_of(msg, self.now_ns())
        self.states[arm].append(state)
        limits = {j.name: j for j in self.rig.arms[arm].joints}
        for name, position in zip(state.names, state.positions, strict=False):
            if name in limits:
                outside = max(limits[name].lower - position, position - limits[name].upper)
                if outside > self._excess[arm][0]:
                    self._excess[arm] = (outside, name)

    def excess(self, arm: int) -> tuple[float, str]:
        """How far any joint of an arm has ever been outside its limits, rad or m, and which one; (0, "") for none."""
        return self._excess[arm]

    def _on_command(self, arm: int, msg: JointTrajectory) -> None:
        if self._sent[arm] == 0:
            self.foreign_commands[arm] += 1

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        stamp = stamp_to_ns(msg.header.stamp)
        for s in msg.status:
            level = s.level[0] if isinstance(s.level, bytes) else int(s.level)
            values = {v.key: v.value for v in s.values}
            self.statuses.append(Status(s.name, level, values, self.now_ns(), stamp))

    def now_ns(self) -> int:
        """The clock that the rig's users go by: the wall's, or ``/clock`` where somebody publishes it."""
        return now_ns(self.node)

    def adopt_clock(self) -> bool:
        """Go by ``/clock`` from now on where it is published; True where it is."""
        self.spin_for(_DISCOVERY_S)
        published = self.node.count_publishers(CLOCK_TOPIC) > 0
        if published:
            self.node.set_parameters([Parameter("use_sim_time", value=True)])
        return published

    def spin_for(self, seconds: float) -> None:
        """Receive for a time."""
        self.probe.spin_for(seconds)

    def spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Receive until a condition holds; False where it did not."""
        try:
            self.probe.spin_until(condition, timeout_s)
        except TimeoutError:
            return False
        return True

    def wait_for_rig(self, timeout_s: float, hopeless: Callable[[], bool] = lambda: False) -> list[str]:
        """Receive until every topic of the rig has shown something, or it is ``hopeless``; the topics that have not."""
        self.spin_until(lambda: not self._silent() or hopeless(), timeout_s)
        return self._silent()

    def _silent(self) -> list[str]:
        silent = [c.image_topic for c in self.rig.cameras if not self.frames[c.name]]
        silent += [c.info_topic for c in self.rig.cameras if not self.infos[c.name]]
        return silent + [a.joint_states for a, s in zip(self.rig.arms, self.states, strict=True) if not s]

    def is_heard(self, arm: int) -> bool:
        """Whether somebody beside this node subscribes to what :meth:`send` publishes."""
        return bool(self._commands[arm].get_subscription_count() > 1)

    def send(self, arm: int, msg: Any) -> int:
        """Publish a command; when, on this node's clock in ns."""
        self._sent[arm] += 1
        self._commands[arm].publish(msg)
        return self.now_ns()

    def call(self, kind: Any, name: str, request: Any, timeout_s: float) -> Any | None:
        """A service's answer; None where nobody answered in time."""
        try:
            return self.probe.call(kind, name, request, timeout_s)
        except TimeoutError:
            return None

    def forget(self) -> None:
        """Drop all evidence: what comes next is after now."""
        lists: list[list[Any]] = [*self.frames.values(), *self.infos.values(), *self.states]
        for kept in lists:
            kept.clear()
        self.statuses.clear()
