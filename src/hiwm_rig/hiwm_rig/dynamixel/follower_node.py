"""The follower arms of a rig as a node: messages to values, the loops' threads, values to messages. Thin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.srv import Reset
from hiwm_rig.codecs import NS_PER_S, sample_to_joint_state
from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel.arm_loops import ArmLoops, Condition, RunningArm
from hiwm_rig.dynamixel.bus import Bus, BusError
from hiwm_rig.dynamixel.follower import Follower, FollowerMode, FollowerSample
from hiwm_rig.dynamixel.ports import resolve_ports
from hiwm_rig.dynamixel.servo_loop import ServoLoop
from hiwm_rig.hardware import FollowerBus
from hiwm_rig.hardware_status import HardwareKind, HardwareLevel
from hiwm_rig.rig_node import DiagnosticsReporter, declare_rig, now_ns, qos_profile, run_node
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.types import FloatArray

STATE_RATE_HZ = 110.0
"""Every so many cycles a joint state is published, that they come at this rate or above it: 100 Hz with a margin for
late cycles. On a bus that is slower, all of them are."""
_LEVELS = {
    FollowerMode.OBEYS: HardwareLevel.OK,
    FollowerMode.GOES_HOME: HardwareLevel.BUSY,
    FollowerMode.STOPPED: HardwareLevel.FAULT,
    FollowerMode.LIMP: HardwareLevel.FAULT,
}
_TEXTS = {
    FollowerMode.OBEYS: "",
    FollowerMode.GOES_HOME: "on its way home",
    FollowerMode.STOPPED: "emergency stop: call /hiwm/emergency_stop with false to release it",
    FollowerMode.LIMP: "its torque is off: call its torque service with true",
}


@dataclass
class _Running(RunningArm):
    follower: Follower
    publish_after_ns: int
    publisher: Any
    published_ns: int = 0
    published: int = 0
    currents_ma: FloatArray = field(default_factory=lambda: np.zeros(0))

    def condition(self) -> Condition:
        mode = self.follower.mode
        return Condition(_LEVELS[mode], _TEXTS[mode])

    def values(self) -> dict[str, Any]:
        currents = np.round(self.currents_ma).astype(int).tolist()
        return {"mode": self.follower.mode, "joint_states": self.published, "currents_ma": currents}


class FollowerNode(Node):
    """Publishes joint states, obeys joint commands, serves torque, emergency stop and reset."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("follower_arm", **kwargs)
        self.rig = declare_rig(self)
        ports = str(self.declare_parameter("ports", "").value)
        connect_s = float(self.declare_parameter("connect_s", 5.0).value)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._only = [SinglePublisher(self, arm.joint_states, discovery_s) for arm in self.rig.arms]
        self._arms: ArmLoops[_Running] = ArmLoops(self, self.rig, HardwareKind.ARM)
        with self._arms.starting():
            self._start(ports, connect_s)
        self.create_service(SetBool, "/hiwm/emergency_stop", self._on_stop)
        self.create_service(Reset, "/hiwm/reset", self._on_reset)
        DiagnosticsReporter(self, self._diagnose, self.rig.topics.diagnostics)

    def _start(self, ports: str, connect_s: float) -> None:
        buses = [_bus_of(arm) for arm in self.rig.arms]
        for arm, config, port in zip(
            self.rig.arms, buses, resolve_ports(ports, self.rig.arms, "follower", buses), strict=True
        ):
            running = self._make(arm, config, port)
            self._arms.start(running, connect_s)
            self.create_subscription(
                JointTrajectory, arm.command, partial(self._on_command, running), qos_profile(self.rig.qos.commands)
            )
            self.create_service(SetBool, f"/{arm.name}/torque", partial(self._on_torque, running))
            self.get_logger().info(f"arm '{arm.name}' ready on {port}, {len(config.motors)} servos, ramping from here")

    def _make(self, arm: Arm, config: FollowerBus, port: str) -> _Running:
        publisher = self.create_publisher(JointState, arm.joint_states, qos_profile(self.rig.qos.joint_states))
        clock: Callable[[], int] = partial(now_ns, self)
        # The loop's thread starts after `running` is bound.
        follower = Follower(arm, config, self.rig.timeouts.command_s, clock, lambda s: self._publish(running, s))
        bus = Bus(port, config.baud, config.motors, config.latency_ms)
        restart = f"call /{arm.name}/torque with true"
        loop = ServoLoop(bus, config, follower, lambda status: self._arms.on_status(running, status), restart)
        cycles = max(1, int(config.rate_hz / STATE_RATE_HZ))
        after_ns = round(NS_PER_S * (cycles - 0.5) / config.rate_hz)
        running = _Running(arm, f"arm '{arm.name}'", port, loop, follower, after_ns, publisher)
        return running

    # -- the loops' threads -------------------------------------------------------------------------------------

    def _publish(self, running: _Running, sample: FollowerSample) -> None:
        if 0 <= sample.stamp_ns - running.published_ns < running.publish_after_ns or not self.context.ok():
            return
        running.published_ns = sample.stamp_ns
        running.published += 1
        running.currents_ma = sample.currents_ma
        names = running.arm.joint_names
        running.publisher.publish(sample_to_joint_state(names, sample.positions, sample.stamp_ns, sample.velocities))

    # -- the node's thread --------------------------------------------------------------------------------------

    def _on_command(self, running: _Running, msg: JointTrajectory) -> None:
        rejection = running.follower.command(msg, now_ns(self))
        if rejection is not None:
            text = f"command for arm '{running.arm.name}' rejected: {rejection.message}"
            self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _on_stop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        for running in self._arms:
            running.follower.set_stopped(bool(request.data))
            self._arms.report(running)
        response.success = True
        response.message = "stopped: holding, and obeying nothing" if request.data else "released"
        self.get_logger().warning(f"emergency stop: {response.message}")
        return response

    def _on_torque(self, running: _Running, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        running.follower.set_torque(bool(request.data))
        if request.data:
            running.loop.recover()  # restarts servos with a hardware error, if there are any
        self._arms.report(running)
        response.success = True
        response.message = f"torque of '{running.arm.name}' {'on' if request.data else 'off'}"
        if not running.loop.status.ok:
            response.message += f", as soon as it can be: {running.loop.status.message}"
        self.get_logger().warning(response.message)
        return response

    def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        if request.source not in ("", "library"):
            response.success = False
            response.message = f"source: a physical rig can only move home ('library'), got '{request.source}'"
            return response
        refused = [r.arm.name for r in self._arms if not r.loop.status.ok or not r.follower.go_home()]
        self._arms.report_all()
        response.success = not refused
        response.message = f"{refused} cannot move now: see /diagnostics" if refused else "moving home"
        return response

    def _diagnose(self) -> dict[str, Any]:
        counters = self._arms.counters()
        for running in self._arms:
            counters.update(running.follower.counters())
        rejections = (running.follower.last_rejection() for running in self._arms)
        return {**counters, "last_rejection": "; ".join(text for text in rejections if text)}

    def close(self) -> None:
        """Stop the loops; the servos' watchdogs stop the servos."""
        self._arms.close()


def _bus_of(arm: Arm) -> FollowerBus:
    if arm.hardware is None:
        raise BusError(f"arm '{arm.name}' has no section hardware.follower in the rig file: nothing to drive")
    return arm.hardware.follower


def main(args: list[str] | None = None) -> None:
    """Entry point of ``follower_arm``."""
    sys.exit(run_node(FollowerNode, args))


if __name__ == "__main__":
    main()
