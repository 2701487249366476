"""The arbiter as a node: messages to values, the core's tick, values to messages. The only follower command source."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from typing import Any

from hiwm_rig.codecs import (
    CodecError,
    joint_state_to_sample,
    ns_to_stamp,
    stamp_to_ns,
    target_to_trajectory,
    trajectory_to_chunk,
)
from hiwm_rig.commands import Reason
from hiwm_rig.rig_node import (
    LATCHED,
    DiagnosticsReporter,
    StartupError,
    declare_rig,
    now_ns,
    qos_profile,
    run_node,
)
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.types import Driver, Outcome
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState, EpisodeEvent
from hiwm_msgs.srv import EndEpisode, RequestControl, StartEpisode
from hiwm_teleop.arbiter import Alignment, Arbiter, ArbiterSettings, Decision
from hiwm_teleop.episode import EpisodeBook, EpisodeError, EpisodeRecord

TICKS_PER_PERIOD = 5
"""Arbiter ticks per control period: leader motion waits at most a fifth of a period here."""


class ArbiterNode(Node):
    """Serves control and episode requests, and publishes one command on each tick."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("arbiter", **kwargs)
        self.rig = declare_rig(self)
        if len(self.rig.arms) != 1:
            raise StartupError(f"rig '{self.rig.name}' has {len(self.rig.arms)} arms; this arbiter drives one")
        self.arm = self.rig.arms[0]
        self.core = Arbiter(self.rig, self._settings(), self._first_driver())
        self.book = EpisodeBook(self.rig.task)
        self.counters = {"ticks": 0, "held": 0, "missed_ticks": 0}
        self._held = ""
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._only = SinglePublisher(self, self.arm.command, discovery_s)
        self._create_publishers()
        self._create_inputs()
        DiagnosticsReporter(self, self._diagnostics, self.rig.topics.diagnostics)
        self._tick_ns = round(self.rig.period_s / TICKS_PER_PERIOD * 1e9)
        self._last_tick_ns = now_ns(self)
        self.create_timer(self._tick_ns / 1e9, self._tick)
        self.get_logger().info(f"rig '{self.rig.name}': {self.core.driver.name} drives {self.arm.command}")

    def _settings(self) -> ArbiterSettings:
        defaults = ArbiterSettings()
        alignment = str(self.declare_parameter("alignment", defaults.alignment.value).value)
        if alignment not in set(Alignment):
            raise StartupError(f"parameter alignment must be one of {[a.value for a in Alignment]}, got '{alignment}'")
        speed = float(self.declare_parameter("align_speed", defaults.align_speed).value)
        if not 0 < speed <= 1:
            raise StartupError(f"parameter align_speed must be in (0, 1], got {speed}")
        return replace(defaults, alignment=Alignment(alignment), align_speed=speed)

    def _first_driver(self) -> Driver:
        name = str(self.declare_parameter("first_driver", "policy").value)
        allowed = {"policy": Driver.POLICY, "paused": Driver.PAUSED}
        if name not in allowed:
            raise StartupError(f"parameter first_driver must be one of {sorted(allowed)}, got '{name}'")
        return allowed[name]

    def _create_publishers(self) -> None:
        commands = qos_profile(self.rig.qos.commands)
        self._command_pub = self.create_publisher(JointTrajectory, self.arm.command, commands)
        self._mirror_pub = self.create_publisher(JointTrajectory, self.arm.leader_command, commands)
        self._state_pub = self.create_publisher(ControlState, self.rig.topics.control_state, 10)
        self._episode_pub = self.create_publisher(EpisodeEvent, self.rig.topics.episode, LATCHED)

    def _create_inputs(self) -> None:
        states, commands = qos_profile(self.rig.qos.joint_states), qos_profile(self.rig.qos.commands)
        self.create_subscription(JointState, self.arm.joint_states, self._on_rig, states)
        self.create_subscription(JointState, self.arm.leader_joint_states, self._on_leader, states)
        self.create_subscription(JointTrajectory, self.arm.policy_command, self._on_policy, commands)
        self.create_subscription(EpisodeEvent, self.rig.topics.episode, self._on_episode, LATCHED)
        self.create_service(RequestControl, "/hiwm/request_control", self._on_request)
        self.create_service(StartEpisode, "/hiwm/start_episode", self._on_start)
        self.create_service(EndEpisode, "/hiwm/end_episode", self._on_end)

    # -- inputs -------------------------------------------------------------------------------------------------

    def _on_rig(self, msg: JointState) -> None:
        try:
            sample = joint_state_to_sample(msg, self.arm.joint_names)
        except CodecError as error:
            self._reject("rig", error)
            return
        self._report(self.core.on_rig(sample.positions, sample.stamp_ns, now_ns(self)))

    def _on_leader(self, msg: JointState) -> None:
        try:
            unknown = sorted(set(msg.name) - set(self.arm.joint_names))
            if unknown:
                raise CodecError(f"JointState names unknown joints {unknown}; known are {list(self.arm.joint_names)}")
            sample = joint_state_to_sample(msg, self.arm.joint_names)
        except CodecError as error:
            self._reject("leader", error)
            return
        self._report(self.core.on_leader(sample.positions, sample.stamp_ns, now_ns(self)))

    def _on_policy(self, msg: JointTrajectory) -> None:
        try:
            chunk = trajectory_to_chunk(msg, self.arm.joint_names)
        except CodecError as error:
            self._reject("policy", error)
            return
        self._report(self.core.on_policy(chunk, now_ns(self)))

    def _on_episode(self, msg: EpisodeEvent) -> None:
        if msg.type not in (EpisodeEvent.ROLLBACK, EpisodeEvent.BRANCH):
            return  # begin and end are this node's own
        self.book.branched(int(msg.branch_id), int(msg.parent_branch_id), int(msg.snapshot_id))
        self.core.on_teleport(
            stamp_to_ns(msg.header.stamp), "branch" if msg.type == EpisodeEvent.BRANCH else "rollback"
        )

    def _reject(self, source: str, error: CodecError) -> None:
        self._report(self.core.reject(source, Reason.MALFORMED, str(error)))

    def _report(self, used: bool) -> None:
        if not used:
            self.get_logger().warning(f"rejected {self.core.last_rejection}", throttle_duration_sec=1.0)

    # -- services -----------------------------------------------------------------------------------------------

    def _on_request(self, request: RequestControl.Request, response: RequestControl.Response) -> Any:
        if request.driver in set(Driver):
            granted, message = self.core.request(Driver(request.driver), request.reason, now_ns(self))
        else:
            granted, message = False, f"no driver has the number {request.driver}"
        response.success, response.message, response.driver = granted, message, int(self.core.driver)
        self.get_logger().info(f"control request ({request.reason or 'no reason given'}): {message}")
        return response

    def _on_start(self, request: StartEpisode.Request, response: StartEpisode.Response) -> Any:
        stamp = now_ns(self)
        try:
            episode = self.book.begin(f"{stamp}-{uuid.uuid4().hex[:6]}", request.task)
        except EpisodeError as error:
            response.success, response.message = False, str(error)
            return response
        self.core.begin_episode(stamp)
        self._publish_episode(EpisodeEvent.BEGIN, episode, stamp, Outcome.UNKNOWN, request.note)
        response.success, response.episode_id = True, episode.episode_id
        return response

    def _on_end(self, request: EndEpisode.Request, response: EndEpisode.Response) -> Any:
        stamp = now_ns(self)
        try:
            if request.outcome not in set(Outcome):
                raise EpisodeError(f"no outcome has the number {request.outcome}")
            episode = self.book.end()
        except EpisodeError as error:
            response.success, response.message = False, str(error)
            return response
        self.core.end_episode()
        self._publish_episode(EpisodeEvent.END, episode, stamp, Outcome(request.outcome), request.note)
        response.success = True
        return response

    def _publish_episode(self, kind: int, episode: EpisodeRecord, stamp: int, outcome: Outcome, note: str) -> None:
        msg = EpisodeEvent(type=kind, outcome=int(outcome), note=note)
        msg.header.stamp = ns_to_stamp(stamp)
        msg.episode_id, msg.task = episode.episode_id, episode.task
        msg.branch_id, msg.parent_branch_id = episode.branch_id, episode.parent_branch_id
        msg.snapshot_id = episode.snapshot_id
        self._episode_pub.publish(msg)

    # -- the tick -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = now_ns(self)
        if now - self._last_tick_ns > 2 * self._tick_ns:
            self.counters["missed_ticks"] += (now - self._last_tick_ns) // self._tick_ns - 1
        self._last_tick_ns = now
        before = self.core.driver
        decision = self.core.tick(now)
        self.counters["ticks"] += 1
        self.counters["held"] += bool(decision.held)
        self._held = decision.held
        if decision.command is not None:
            self._command_pub.publish(self._target(decision.command, now))
        if decision.mirror is not None:
            self._mirror_pub.publish(self._target(decision.mirror, now))
        self._state_pub.publish(self._state_msg(decision, now))
        if decision.driver is not before:
            self.get_logger().info(f"{before.name} -> {decision.driver.name} ({decision.reason})")

    def _target(self, positions: Any, stamp: int) -> JointTrajectory:
        return target_to_trajectory(self.arm.joint_names, positions, stamp, self.rig.period_s)

    def _state_msg(self, decision: Decision, stamp: int) -> ControlState:
        msg = ControlState(driver=int(decision.driver), reason=decision.reason)
        msg.header.stamp = ns_to_stamp(stamp)
        msg.leader_fresh, msg.policy_fresh = decision.leader_fresh, decision.policy_fresh
        msg.rig_fresh = decision.rig_fresh
        msg.joint_names = list(self.arm.joint_names)
        msg.command = [] if decision.command is None else decision.command.tolist()
        msg.policy_action = [] if decision.policy_action is None else decision.policy_action.tolist()
        return msg

    def _diagnostics(self) -> dict[str, Any]:
        return {
            "driver": self.core.driver.name,
            "held_because": self._held,
            "last_rejection": self.core.last_rejection,
            **self.counters,
            **self.core.rejections,
        }


def main(args: list[str] | None = None) -> None:
    """Entry point of ``arbiter``."""
    sys.exit(run_node(ArbiterNode, args))


if __name__ == "__main__":
    main()
