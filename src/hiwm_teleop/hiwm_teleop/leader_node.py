"""The leader arms of a rig as a node: joint states out, mirror targets in, the operator's signals as requests. Thin."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hiwm_rig.codecs import CodecError, sample_to_joint_state, trajectory_to_chunk
from hiwm_rig.commands import Reason
from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel.arm_loops import ArmLoops, Condition, RunningArm
from hiwm_rig.dynamixel.bus import Bus, BusError
from hiwm_rig.dynamixel.ports import resolve_ports
from hiwm_rig.dynamixel.servo_loop import ServoLoop
from hiwm_rig.hardware import LeaderBus
from hiwm_rig.hardware_status import HardwareKind
from hiwm_rig.rig_node import DiagnosticsReporter, declare_rig, now_ns, qos_profile, run_node
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.types import Driver, Outcome
from rclpy.guard_condition import GuardCondition
from rclpy.node import Node
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState
from hiwm_msgs.srv import EndEpisode, RequestControl, Rollback
from hiwm_teleop.leader import Leader, LeaderSample
from hiwm_teleop.lever import Pedal, Signal
from hiwm_teleop.service_calls import REPLY_S, ServiceCalls


@dataclass
class _Running(RunningArm):
    leader: Leader
    publisher: Any

    def condition(self) -> Condition:
        return Condition()

    def values(self) -> dict[str, Any]:
        return {"mode": self.leader.mode}


class LeaderNode(Node):
    """Publishes the leaders' joint states; turns lever and pedal into control, episode and rollback requests."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("leader_arm", **kwargs)
        self.rig = declare_rig(self)
        self._ports = str(self.declare_parameter("ports", "").value)
        connect_s = float(self.declare_parameter("connect_s", 5.0).value)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._rollback_steps = int(self.declare_parameter("rollback_steps", 20).value)
        defaults = {Signal.TAKEOVER: 0, Signal.SUCCESS: 1, Signal.FAILURE: 2, Signal.ROLLBACK: 3}
        buttons = {s: int(self.declare_parameter(f"{s}_button", i).value) for s, i in defaults.items()}
        self._only = [SinglePublisher(self, arm.leader_joint_states, discovery_s) for arm in self.rig.arms]
        self.counters: Counter[str] = Counter(signals=0, failed_requests=0)
        self._pedal = Pedal(buttons)
        self._driver = Driver.PAUSED
        self._calls = ServiceCalls()
        self._pulled: GuardCondition = self.create_guard_condition(lambda: self._signal(Signal.TAKEOVER))
        self._create_requests()
        self._leaders: ArmLoops[_Running] = ArmLoops(self, self.rig, HardwareKind.LEADER)
        with self._leaders.starting():
            self._start(connect_s)
        self.create_subscription(ControlState, self.rig.topics.control_state, self._on_control, 10)
        self.create_subscription(Joy, "/leader/joy", self._on_joy, 10)
        DiagnosticsReporter(self, self._diagnose, self.rig.topics.diagnostics)
        self.create_timer(0.05, self._calls.give_up)

    def _create_requests(self) -> None:
        self._control = self.create_client(RequestControl, "/hiwm/request_control")
        self._end = self.create_client(EndEpisode, "/hiwm/end_episode")
        self._rollback = self.create_client(Rollback, "/hiwm/rollback")

    def _start(self, connect_s: float) -> None:
        buses = [_bus_of(arm) for arm in self.rig.arms]
        ports = resolve_ports(self._ports, self.rig.arms, "leader", buses)
        for arm, config, port in zip(self.rig.arms, buses, ports, strict=True):
            running = self._make(arm, config, port)
            self._leaders.start(running, connect_s)
            self.create_subscription(
                JointTrajectory,
                arm.leader_command,
                partial(self._on_mirror, running),
                qos_profile(self.rig.qos.commands),
            )
            self.create_service(Trigger, f"/{arm.leader_name}/restart", partial(self._on_restart, running))
            kind = "actuated" if config.actuated else "passive"
            self.get_logger().info(f"{kind} leader of arm '{arm.name}' ready on {port}")

    def _make(self, arm: Arm, config: LeaderBus, port: str) -> _Running:
        publisher = self.create_publisher(JointState, arm.leader_joint_states, qos_profile(self.rig.qos.joint_states))
        clock: Callable[[], int] = partial(now_ns, self)
        # The loop's thread starts after `running` is bound.
        leader = Leader(arm, config, clock, lambda sample: self._publish(running, sample))
        bus = Bus(port, config.baud, config.motors, config.latency_ms)
        restart = f"call /{arm.leader_name}/restart"
        loop = ServoLoop(bus, config, leader, lambda status: self._leaders.on_status(running, status), restart)
        running = _Running(arm, f"leader of arm '{arm.name}'", port, loop, leader, publisher)
        return running

    # -- the loops' threads -------------------------------------------------------------------------------------

    def _publish(self, running: _Running, sample: LeaderSample) -> None:
        if not self.context.ok():
            return
        names = running.arm.joint_names
        running.publisher.publish(sample_to_joint_state(names, sample.positions, sample.stamp_ns, sample.velocities))
        if sample.pulled:
            self._pulled.trigger()

    # -- the node's thread --------------------------------------------------------------------------------------

    def _on_control(self, msg: ControlState) -> None:
        if msg.driver not in set(Driver):  # then nobody says who drives, and the leaders let go
            text = f"control state rejected: no driver has the number {msg.driver}"
            self._reject(f"{Reason.MALFORMED}_control", text)
            return
        self._driver = Driver(msg.driver)
        for running in self._leaders:
            running.leader.on_driver(self._driver)

    def _on_mirror(self, running: _Running, msg: JointTrajectory) -> None:
        try:
            chunk = trajectory_to_chunk(msg, running.arm.joint_names)
        except CodecError as error:
            self._reject(f"{Reason.MALFORMED}_mirror", f"mirror target rejected: {error}")
            return
        rejection = running.leader.on_mirror(chunk.positions[-1])
        if rejection is not None:
            self._reject(f"{rejection.reason}_mirror", f"mirror target rejected: {rejection.message}")

    def _reject(self, counter: str, text: str) -> None:
        self.counters[counter] += 1
        self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _on_restart(self, running: _Running, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Servos with a hardware error are restarted; nothing moves, and the leader is free."""
        name, status = running.arm.leader_name, running.loop.status
        response.success = running.loop.recover()
        if response.success:
            response.message = f"servos of '{name}' with a hardware error are restarted"
        else:
            response.message = f"'{name}': no servo is known to have a hardware error, nothing to restart"
            response.message += f" ({status.message})" if status.message else ""
        return response

    def _on_joy(self, msg: Joy) -> None:
        for signal in self._pedal.press(msg.buttons):
            self._signal(signal)

    def _signal(self, signal: Signal) -> None:
        """Ask for what the operator wants; the answer is only logged, the control state shows what became of it."""
        self.counters["signals"] += 1
        if signal is Signal.TAKEOVER:
            drives = self._driver in (Driver.HUMAN, Driver.ALIGNING)
            wanted = Driver.POLICY if drives else Driver.HUMAN
            request = RequestControl.Request(driver=int(wanted), reason="leader arm")
            self._call(self._control, request, f"{wanted.name} shall drive")
        elif signal is Signal.ROLLBACK:
            request = Rollback.Request(snapshot_id=-1, steps=self._rollback_steps)
            self._call(self._rollback, request, f"{self._rollback_steps} steps back")
        else:
            outcome = Outcome.SUCCESS if signal is Signal.SUCCESS else Outcome.FAILURE
            request = EndEpisode.Request(outcome=int(outcome), note="leader arm")
            self._call(self._end, request, f"the episode ends: {signal}")

    def _call(self, client: Any, request: Any, what: str) -> None:
        if not client.service_is_ready():
            self._refused(what, f"nobody serves {client.srv_name} (a rig without snapshots cannot go back)")
            return
        self._calls.call(client, request, partial(self._on_answer, what))

    def _on_answer(self, what: str, reply: Any) -> None:
        if reply is None:
            self._refused(what, f"no answer within {REPLY_S} s")
        elif reply.success:
            self.get_logger().info(f"{what}: granted")
        else:
            self._refused(what, reply.message)

    def _refused(self, what: str, why: str) -> None:
        self.counters["failed_requests"] += 1
        self.get_logger().warning(f"{what}: refused: {why}")

    def _diagnose(self) -> dict[str, Any]:
        return {**self.counters, **self._leaders.counters()}

    def close(self) -> None:
        """Stop the loops; the servos' watchdogs stop the servos."""
        self._leaders.close()


def _bus_of(arm: Arm) -> LeaderBus:
    if arm.hardware is None or arm.hardware.leader is None:
        raise BusError(f"arm '{arm.name}' has no section hardware.leader in the rig file: nothing to read")
    return arm.hardware.leader


def main(args: list[str] | None = None) -> None:
    """Entry point of ``leader_arm``."""
    sys.exit(run_node(LeaderNode, args))


if __name__ == "__main__":
    main()
