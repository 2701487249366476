"""The follower arms of a rig as a node: messages to values, the loops' threads, values to messages. Thin."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.srv import Reset
from hiwm_rig.codecs import NS_PER_S, sample_to_joint_state
from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel.bus import Bus, BusError
from hiwm_rig.dynamixel.follower import Follower, FollowerMode, FollowerSample
from hiwm_rig.dynamixel.ports import resolve_ports
from hiwm_rig.dynamixel.servo_loop import LoopStatus, ServoLoop
from hiwm_rig.hardware import FollowerBus
from hiwm_rig.hardware_status import HardwareKind, HardwareLevel, HardwareReporter, HardwareStatus
from hiwm_rig.rig_node import DiagnosticsReporter, StartupError, declare_rig, now_ns, qos_profile, run_node
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.types import FloatArray

STATE_RATE_HZ = 110.0
"""Every so many cycles a joint state is published, that they come at this rate or above it: 100 Hz with a margin for
late cycles. On a bus that is slower, all of them are."""
HUNG_S = 0.5
"""A loop without a cycle for this long is a fault: its thread hangs, in the adapter's driver or for want of a core."""
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
class _Running:
    """One arm with its loop."""

    arm: Arm
    port: str
    follower: Follower
    loop: ServoLoop
    publish_after_ns: int
    publisher: Any
    published_ns: int = 0
    published: int = 0
    currents_ma: FloatArray = field(default_factory=lambda: np.zeros(0))
    reported: HardwareStatus | None = None


class FollowerNode(Node):
    """Publishes joint states, obeys joint commands, serves torque, emergency stop and reset."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("follower_arm", **kwargs)
        self.rig = declare_rig(self)
        ports = str(self.declare_parameter("ports", "").value)
        connect_s = float(self.declare_parameter("connect_s", 5.0).value)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._only = [SinglePublisher(self, arm.joint_states, discovery_s) for arm in self.rig.arms]
        self._hardware = HardwareReporter(self, self.rig.topics.diagnostics, HardwareKind.ARM)
        self._reporting = threading.Lock()
        self._arms: list[_Running] = []
        try:
            self._start(ports, connect_s)
        except BusError as error:
            self.close()
            if not self.context.ok():
                raise ExternalShutdownException from error  # Ctrl-C while it waited for the servos
            raise StartupError(str(error)) from error
        self.create_service(SetBool, "/hiwm/emergency_stop", self._on_stop)
        self.create_service(Reset, "/hiwm/reset", self._on_reset)
        DiagnosticsReporter(self, self._diagnose, self.rig.topics.diagnostics)
        self.create_timer(0.05, self._watch)
        self.create_timer(1.0, self._report_all)

    def _start(self, ports: str, connect_s: float) -> None:
        buses = [_bus_of(arm) for arm in self.rig.arms]
        for arm, config, port in zip(
            self.rig.arms, buses, resolve_ports(ports, self.rig.arms, "follower", buses), strict=True
        ):
            running = self._make(arm, config, port)
            self._arms.append(running)
            try:
                running.loop.start(connect_s, self.context.ok)
            except BusError as error:
                raise BusError(f"arm '{arm.name}': {error}") from error
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
        loop = ServoLoop(bus, config, follower, lambda status: self._on_status(running, status), restart)
        cycles = max(1, int(config.rate_hz / STATE_RATE_HZ))
        after_ns = round(NS_PER_S * (cycles - 0.5) / config.rate_hz)
        running = _Running(arm, port, follower, loop, after_ns, publisher)
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

    def _on_status(self, running: _Running, status: LoopStatus) -> None:
        if not self.context.ok():
            return
        self._report(running)
        text = f"arm '{running.arm.name}': {status.message or status.state}"
        if status.ok:
            self.get_logger().info(text)
        else:
            self.get_logger().error(text)

    # -- the node's thread --------------------------------------------------------------------------------------

    def _on_command(self, running: _Running, msg: JointTrajectory) -> None:
        rejection = running.follower.command(msg, now_ns(self))
        if rejection is not None:
            text = f"command for arm '{running.arm.name}' rejected: {rejection.message}"
            self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _on_stop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        for running in self._arms:
            running.follower.set_stopped(bool(request.data))
            self._report(running)
        response.success = True
        response.message = "stopped: holding, and obeying nothing" if request.data else "released"
        self.get_logger().warning(f"emergency stop: {response.message}")
        return response

    def _on_torque(self, running: _Running, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        running.follower.set_torque(bool(request.data))
        if request.data:
            running.loop.recover()  # restarts servos with a hardware error, if there are any
        self._report(running)
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
        for running in self._arms:
            self._report(running)
        response.success = not refused
        response.message = f"{refused} cannot move now: see /diagnostics" if refused else "moving home"
        return response

    def _watch(self) -> None:
        """Report what has changed by itself, and end with what ended a loop."""
        for running in self._arms:
            running.loop.raise_failure()
            if self._status(running) != running.reported:
                self._report(running)

    def _report_all(self) -> None:
        for running in self._arms:
            self._report(running)

    def _status(self, running: _Running) -> HardwareStatus:
        loop, mode = running.loop.status, running.follower.mode
        if not loop.ok:
            return HardwareStatus(running.arm.name, HardwareLevel.FAULT, f"arm '{running.arm.name}': {loop.message}")
        if running.loop.last_cycle_age_s > HUNG_S:
            text = f"arm '{running.arm.name}': the driver has not run for {HUNG_S} s: is the machine overloaded?"
            return HardwareStatus(running.arm.name, HardwareLevel.FAULT, text)
        text = _TEXTS[mode] and f"arm '{running.arm.name}': {_TEXTS[mode]}"
        return HardwareStatus(running.arm.name, _LEVELS[mode], text)

    def _report(self, running: _Running) -> None:
        values: dict[str, Any]
        with self._reporting:  # two threads report: the last message must tell the newest status
            running.reported = self._status(running)
            values = {"port": running.port, "mode": running.follower.mode, **running.loop.counters}
            values["joint_states"] = running.published
            values["last_cycle_age_s"] = round(running.loop.last_cycle_age_s, 3)
            values["currents_ma"] = np.round(running.currents_ma).astype(int).tolist()
            self._hardware.report(running.reported, values)

    def _diagnose(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for running in self._arms:
            counters = {**running.follower.counters(), **running.loop.counters}
            for key, value in counters.items():
                values[key] = values.get(key, 0) + value
        values["last_rejection"] = "; ".join(t for t in (r.follower.last_rejection() for r in self._arms) if t)
        return values

    def close(self) -> None:
        """Stop the loops; the servos' watchdogs stop the servos."""
        for running in self._arms:
            running.loop.stop()


def _bus_of(arm: Arm) -> FollowerBus:
    if arm.hardware is None:
        raise BusError(f"arm '{arm.name}' has no section hardware.follower in the rig file: nothing to drive")
    return arm.hardware.follower


def main(args: list[str] | None = None) -> None:
    """Entry point of ``follower_arm``."""
    sys.exit(run_node(FollowerNode, args))


if __name__ == "__main__":
    main()
