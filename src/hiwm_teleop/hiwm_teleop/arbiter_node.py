"""The arbiter as a node: messages to values, the core's tick, values to messages. The only follower command source."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from hiwm_rig.codecs import (
    CodecError,
    joint_state_to_sample,
    ns_to_stamp,
    stamp_to_ns,
    target_to_trajectory,
    trajectory_to_chunk,
)
from hiwm_rig.commands import Reason
from hiwm_rig.hardware_status import HardwareKind, HardwareLevel, HardwareView
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
from hiwm_rig.types import Driver, FloatArray, Outcome
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState, EpisodeEvent
from hiwm_msgs.srv import EndEpisode, RequestControl, StartEpisode
from hiwm_teleop.arbiter import Alignment, Arbiter, ArbiterSettings, Decision
from hiwm_teleop.episode import EpisodeBook, EpisodeError, EpisodeRecord
from hiwm_teleop.joining import ChunkJoiner, SampleJoiner

TICKS_PER_PERIOD = 5
"""Arbiter ticks per control period, at least; while a person drives, also one for each sample of the leader."""
SOONEST_TICK_NS = 1_000_000
"""Samples of the leader that come closer together (a backlog) are decided on together."""
_HEALTH_S = 0.5


class ArbiterNode(Node):
    """Serves control and episode requests, and publishes one command on each tick."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("arbiter", **kwargs)
        self.rig = declare_rig(self)
        self.core = Arbiter(self.rig, self._settings(), self._first_driver())
        self._driver = self.core.driver
        self.book = EpisodeBook(self.rig.task)
        self.counters = {"ticks": 0, "held": 0, "missed_ticks": 0}
        self._held = ""
        arms = len(self.rig.arms)
        self._followers, self._leaders, self._chunks = SampleJoiner(arms), SampleJoiner(arms), ChunkJoiner(arms)
        names = [arm.name for arm in self.rig.arms]
        self._arm_health = HardwareView(HardwareKind.ARM, names)
        self._leader_health = HardwareView(HardwareKind.LEADER, names)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._only = [SinglePublisher(self, arm.command, discovery_s) for arm in self.rig.arms]
        self._create_publishers()
        self._create_inputs()
        DiagnosticsReporter(self, self._diagnostics, self.rig.topics.diagnostics)
        self._tick_ns = round(self.rig.period_s / TICKS_PER_PERIOD * 1e9)
        self._last_tick_ns = self._last_state_ns = now_ns(self)
        self.create_timer(self._tick_ns / 1e9, self._tick)
        self.create_timer(_HEALTH_S, self._judge_health)  # also when nobody speaks: what was said is forgotten
        topics = ", ".join(arm.command for arm in self.rig.arms)
        self.get_logger().info(f"rig '{self.rig.name}': {self.core.driver.name} drives {topics}")

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
        arms = self.rig.arms
        self._command_pubs = [self.create_publisher(JointTrajectory, a.command, commands) for a in arms]
        self._mirror_pubs = [self.create_publisher(JointTrajectory, a.leader_command, commands) for a in arms]
        self._state_pub = self.create_publisher(ControlState, self.rig.topics.control_state, 10)
        self._episode_pub = self.create_publisher(EpisodeEvent, self.rig.topics.episode, LATCHED)

    def _create_inputs(self) -> None:
        states, commands = qos_profile(self.rig.qos.joint_states), qos_profile(self.rig.qos.commands)
        for i, arm in enumerate(self.rig.arms):
            self.create_subscription(JointState, arm.joint_states, partial(self._on_rig, i), states)
            self.create_subscription(JointState, arm.leader_joint_states, partial(self._on_leader, i), states)
            self.create_subscription(JointTrajectory, arm.policy_command, partial(self._on_policy, i), commands)
        self.create_subscription(DiagnosticArray, self.rig.topics.diagnostics, self._on_diagnostics, 10)
        self.create_subscription(EpisodeEvent, self.rig.topics.episode, self._on_episode, LATCHED)
        self.create_service(RequestControl, "/hiwm/request_control", self._on_request)
        self.create_service(StartEpisode, "/hiwm/start_episode", self._on_start)
        self.create_service(EndEpisode, "/hiwm/end_episode", self._on_end)

    # -- inputs -------------------------------------------------------------------------------------------------

    def _on_rig(self, arm: int, msg: JointState) -> None:
        try:
            sample = joint_state_to_sample(msg, self.rig.arms[arm].joint_names)
        except CodecError as error:
            self._reject("rig", error)
            return
        joined = self._followers.add(arm, sample.positions, sample.stamp_ns)
        if joined is not None:
            self._report(self.core.on_rig(*joined, now_ns(self)))

    def _on_leader(self, arm: int, msg: JointState) -> None:
        names = self.rig.arms[arm].joint_names
        try:
            unknown = sorted(set(msg.name) - set(names))
            if unknown:
                raise CodecError(f"JointState names unknown joints {unknown}; known are {list(names)}")
            sample = joint_state_to_sample(msg, names)
        except CodecError as error:
            self._reject("leader", error)
            return
        joined = self._leaders.add(arm, sample.positions, sample.stamp_ns)
        if joined is None:
            return
        self._report(self.core.on_leader(*joined, now_ns(self)))
        if self.core.driver is Driver.HUMAN and now_ns(self) - self._last_tick_ns >= SOONEST_TICK_NS:
            self._decide()  # a person's motion does not wait for the timer

    def _on_policy(self, arm: int, msg: JointTrajectory) -> None:
        try:
            chunk = self._chunks.add(arm, trajectory_to_chunk(msg, self.rig.arms[arm].joint_names))
        except CodecError as error:
            self._reject("policy", error)
            return
        if chunk is not None:
            self._report(self.core.on_policy(chunk, now_ns(self)))

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        """What the arms say of themselves; a rig that says nothing is one that obeys."""
        now = now_ns(self)
        of_arms, of_leaders = self._arm_health.take(msg, now), self._leader_health.take(msg, now)
        if of_arms or of_leaders:
            self._judge_health()

    def _judge_health(self) -> None:
        now, before = now_ns(self), self.core.driver
        level, text = self._arm_health.worst(now)
        self.core.on_trouble(text, level is HardwareLevel.FAULT, now)
        level, text = self._leader_health.worst(now)
        self.core.on_leader_fault(text if level is HardwareLevel.FAULT else "")
        if self.core.driver is not before:
            self._decide()  # whoever drives hears of it at once

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
            if self.core.rig_fault:
                raise EpisodeError(f"the rig does not obey: {self.core.rig_fault}")
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
        if now_ns(self) - self._last_tick_ns >= self._tick_ns // 2:  # else a leader's sample has just been decided on
            self._decide()

    def _decide(self) -> None:
        now = now_ns(self)
        if now - self._last_tick_ns > 2 * self._tick_ns:
            self.counters["missed_ticks"] += (now - self._last_tick_ns) // self._tick_ns - 1
        self._last_tick_ns = now
        before = self._driver
        decision = self.core.tick(now)
        self._driver = decision.driver
        self.counters["ticks"] += 1
        self.counters["held"] += bool(decision.held)
        self._held = decision.held
        if decision.command is not None:
            self._send(self._command_pubs, decision.command, now)
        if decision.mirror is not None:
            self._send(self._mirror_pubs, decision.mirror, now)
        changed = decision.driver is not before
        if changed or now - self._last_state_ns >= self._tick_ns // 2:  # not for each of a leader's samples
            self._last_state_ns = now
            self._state_pub.publish(self._state_msg(decision, now))
        if changed:
            self.get_logger().info(f"{before.name} -> {decision.driver.name} ({decision.reason})")

    def _send(self, publishers: list[Any], positions: FloatArray, stamp: int) -> None:
        start = 0
        for arm, publisher in zip(self.rig.arms, publishers, strict=True):
            part = positions[start : start + len(arm.joints)]
            start += len(arm.joints)
            publisher.publish(target_to_trajectory(arm.joint_names, part, stamp, self.rig.period_s))

    def _state_msg(self, decision: Decision, stamp: int) -> ControlState:
        msg = ControlState(driver=int(decision.driver), reason=decision.reason)
        msg.header.stamp = ns_to_stamp(stamp)
        msg.leader_fresh, msg.policy_fresh = decision.leader_fresh, decision.policy_fresh
        msg.rig_fresh = decision.rig_fresh
        msg.joint_names = list(self.rig.joint_names)
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
