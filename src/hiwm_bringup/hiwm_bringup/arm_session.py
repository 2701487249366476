"""A person at an emulated leader arm, from outside: for benchmarks, the soak and integration tests.

The nodes are real processes; the servos are emulated, and so is the hand that moves the leader.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from hiwm_rig.codecs import joint_state_to_sample
from hiwm_rig.contract import Arm, Rig
from hiwm_rig.dynamixel.control_table import RAD_PER_TICK
from hiwm_rig.dynamixel.emulator import emulated_port, send_order
from hiwm_rig.dynamixel.ports import part_name
from hiwm_rig.hardware_status import HardwareKind, hardware_id
from hiwm_rig.rig_node import qos_profile
from hiwm_rig.types import Driver, FloatArray
from sensor_msgs.msg import JointState, Joy
from trajectory_msgs.msg import JointTrajectory

from hiwm_bringup.graph import NodeSpec, build_graph, parse_assignments
from hiwm_bringup.paths import project_root
from hiwm_bringup.probe import Probe
from hiwm_msgs.msg import ControlState
from hiwm_msgs.srv import RequestControl

_GRANTED_S = 1.0
"""After a request was granted, the control state may still tell of the driver before for so long."""


def arm_nodes(*words: str, cameras: bool = False) -> list[NodeSpec]:
    """The physical rig with a leader and without a policy; ``words`` are further options of the graph."""
    options = parse_assignments(["rig:=physical", "operator:=leader", "policy:=none", *words])
    specs = build_graph(options, project_root())
    return [s for s in specs if cameras or not s.name.endswith("_camera")]


@dataclass
class ArmTopics:
    """What one arm and its leader publish, newest last."""

    follower: list[Any]
    leader: list[Any]
    commands: list[Any]


class ArmSession:
    """Listens to everything, moves the emulated leaders, gives the emulators orders.

    Args:
        rig: the contract.
        domain: where the graph runs.
        streams: whether to listen to joint states and commands: some hundred messages a second, which a measurement
            on few cores does better without.
    """

    def __init__(self, rig: Rig, domain: int, streams: bool = True) -> None:
        self.rig = rig
        self.domain = domain
        self.probe = Probe(domain)
        self.arms = {arm.name: self._listen(arm) for arm in rig.arms} if streams else {}
        self.control = self.probe.listen(ControlState, rig.topics.control_state, 50)
        self.diagnostics = self.probe.listen(DiagnosticArray, rig.topics.diagnostics, 50)
        self.pedal = self.probe.node.create_publisher(Joy, "/leader/joy", 10)

    @property
    def arm(self) -> Arm:
        """The first arm."""
        return self.rig.arms[0]

    @property
    def started(self) -> bool:
        """Whether everything publishes."""
        return bool(self.control) and all(t.follower and t.leader for t in self.arms.values())

    def _listen(self, arm: Arm) -> ArmTopics:
        states = qos_profile(self.rig.qos.joint_states)
        return ArmTopics(
            self.probe.listen(JointState, arm.joint_states, states),
            self.probe.listen(JointState, arm.leader_joint_states, states),
            self.probe.listen(JointTrajectory, arm.command, 50),
        )

    def order(self, part: str, text: str, arm: Arm | None = None) -> str:
        """Give the emulator of an arm's "follower" or "leader" an order; its answer."""
        return send_order(emulated_port(part_name(arm or self.arm, part), self.domain), text)

    def servos(self, part: str, arm: Arm | None = None) -> dict[int, Any]:
        """Servo id -> registers of an emulator."""
        return {int(k): v for k, v in json.loads(self.order(part, "state", arm)).items()}

    def hand(self, joint: int, radians: float, arm: Arm | None = None) -> None:
        """A hand takes one joint of the leader to an angle of its servo."""
        hardware = (arm or self.arm).hardware
        assert hardware is not None and hardware.leader is not None
        motor = hardware.leader.motors[joint]
        assert motor.homing_offset is not None
        ticks = motor.homing_offset + motor.direction * radians / RAD_PER_TICK
        self.order("leader", f"hand {motor.id} {ticks}", arm)

    def servo_angle(self, joint: int, arm: Arm | None = None) -> float:
        """Angle of a follower's servo, rad from its joint's zero, as its emulator has it."""
        hardware = (arm or self.arm).hardware
        assert hardware is not None
        motor = hardware.follower.motors[joint]
        assert motor.homing_offset is not None
        ticks = self.servos("follower", arm)[motor.id]["position"]
        return float(motor.direction * (ticks - motor.homing_offset) * RAD_PER_TICK)

    def joints(self, arm: Arm | None = None) -> FloatArray:
        """(D,) newest positions of a follower."""
        arm = arm or self.arm
        return joint_state_to_sample(self.arms[arm.name].follower[-1], arm.joint_names).positions

    def leader_joints(self, arm: Arm | None = None) -> FloatArray:
        """(D,) newest positions of a leader, as its follower's joints."""
        arm = arm or self.arm
        return joint_state_to_sample(self.arms[arm.name].leader[-1], arm.joint_names).positions

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
        """Handle messages until a condition holds.

        Raises:
            TimeoutError: naming ``what``.
        """
        self.probe.spin_until(condition, timeout_s, what)

    def drives(self, driver: Driver, timeout_s: float = 20.0) -> None:
        """Wait until a driver drives.

        Raises:
            TimeoutError: it does not.
        """
        self.until(lambda: bool(self.control) and self.control[-1].driver == driver, f"{driver.name} drives", timeout_s)

    def healthy(self, timeout_s: float = 20.0) -> None:
        """Wait until the arbiter sees a rig and a leader that are fresh.

        Raises:
            TimeoutError: it does not.
        """
        self.until(lambda: self.control[-1].leader_fresh and self.control[-1].rig_fresh, "fresh arms", timeout_s)

    def ask(self, driver: Driver, timeout_s: float = 20.0) -> None:
        """Ask the arbiter for a driver until it drives; again where a stalled machine made it let go on the way.

        Raises:
            TimeoutError: it does not.
        """
        request = RequestControl.Request(driver=int(driver), reason="arm session")
        deadline = time.monotonic() + timeout_s
        while True:
            self.healthy(timeout_s)
            self.until(
                lambda: bool(self.probe.call(RequestControl, "/hiwm/request_control", request).success),
                f"the arbiter grants {driver.name}",
                timeout_s,
            )
            if self._drives_or_lets_go(driver, deadline):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{driver.name} was granted and let go again for {timeout_s} s")

    def _drives_or_lets_go(self, driver: Driver, deadline: float) -> bool:
        granted = time.monotonic()

        def decided() -> bool:
            let_go = self.control[-1].driver == Driver.PAUSED and time.monotonic() > granted + _GRANTED_S
            return self.control[-1].driver == driver or let_go

        self.until(decided, f"{driver.name} drives", max(_GRANTED_S, deadline - granted))
        return bool(self.control[-1].driver == driver)

    def levels(self, name: str, kind: HardwareKind = HardwareKind.ARM) -> list[int]:
        """Levels of all statuses of an arm or its leader on diagnostics, oldest first."""
        wanted = hardware_id(kind, name)
        return [ord(s.level) for m in self.diagnostics for s in m.status if s.hardware_id == wanted]

    def follows(self, joint: int, position: float, arm: Arm | None = None, tolerance: float = 0.01) -> bool:
        """Whether a follower's joint is at a position, rad or m."""
        return bool(np.abs(self.joints(arm)[joint] - position) < tolerance)

    def lead_to(self, joint: int, position: float, arm: Arm | None = None, timeout_s: float = 30.0) -> None:
        """A hand moves a joint of the leader, and the follower goes there.

        Where the machine stalls for so long that the leader counts as stale, the arbiter lets go of it; a person asks
        for control again then, and so does this.

        Raises:
            TimeoutError: it does not go there.
        """

        def there() -> bool:
            if self.control[-1].driver == Driver.PAUSED:
                self.ask(Driver.HUMAN, timeout_s)
            return self.follows(joint, position, arm)

        self.hand(joint, position, arm)
        self.until(there, f"the follower at the leader's side, joint {joint} at {position}", timeout_s)

    def close(self) -> None:
        """Leave the domain."""
        self.probe.close()
