"""The arms of a node: starting their loops, watching them, and saying on ``/diagnostics`` how they are.

What the follower's and the leader's node share; what an arm does with its cycles is its
:class:`~hiwm_rig.dynamixel.servo_loop.Part`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from hiwm_rig.contract import Arm, Rig
from hiwm_rig.dynamixel.bus import BusError
from hiwm_rig.dynamixel.servo_loop import LoopStatus, ServoLoop
from hiwm_rig.hardware_status import HardwareKind, HardwareLevel, HardwareReporter, HardwareStatus
from hiwm_rig.rig_node import StartupError

HUNG_S = 0.5
"""A loop without a cycle for this long is a fault: its thread hangs, in the adapter's driver or for want of a core."""
_WATCH_S = 0.05
_REPORT_S = 1.0


@dataclass(frozen=True)
class Condition:
    """What an arm says of itself while its loop runs well.

    Attributes:
        level: whether it obeys.
        text: why not, and what to do; empty where it does.
    """

    level: HardwareLevel = HardwareLevel.OK
    text: str = ""


@dataclass
class RunningArm(ABC):
    """One arm of a node with its loop.

    Attributes:
        arm: of the rig file.
        title: what people call it ("arm 'right'").
        port: device.
        loop: its thread; it tells :meth:`ArmLoops.on_status`.
    """

    arm: Arm
    title: str
    port: str
    loop: ServoLoop

    @abstractmethod
    def condition(self) -> Condition:
        """Asked 20 times a second, by the node's thread and the loop's."""

    @abstractmethod
    def values(self) -> Mapping[str, Any]:
        """What its reports hold beside the loop's counters."""

    def status(self) -> HardwareStatus:
        """What is said of it now: the loop's fault, else its own condition."""
        loop, own = self.loop.status, self.condition()
        level, text = own.level, own.text
        if not loop.ok:
            level, text = HardwareLevel.FAULT, loop.message
        elif self.loop.last_cycle_age_s > HUNG_S:
            level, text = HardwareLevel.FAULT, f"the driver has not run for {HUNG_S} s: is the machine overloaded?"
        return HardwareStatus(self.arm.name, level, text and f"{self.title}: {text}")


R = TypeVar("R", bound=RunningArm)


class ArmLoops(Generic[R]):
    """All arms of a node.

    Args:
        node: owner.
        rig: whose arms they are.
        kind: what they are reported as: arms or leaders.
    """

    def __init__(self, node: Node, rig: Rig, kind: HardwareKind) -> None:
        self._node = node
        self._reporter = HardwareReporter(node, rig.topics.diagnostics, kind)
        self._reporting = threading.Lock()
        self._reported: dict[str, HardwareStatus] = {}
        self._running: list[R] = []
        node.create_timer(_WATCH_S, self._watch)
        node.create_timer(_REPORT_S, self.report_all)

    def __iter__(self) -> Iterator[R]:
        return iter(self._running)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of the arms: a bus that cannot be used ends the node, with all loops closed.

        Raises:
            StartupError: with the text of the :class:`BusError`.
            ExternalShutdownException: after Ctrl-C while it waited for the servos.
        """
        try:
            yield
        except BusError as error:
            self.close()
            if not self._node.context.ok():
                raise ExternalShutdownException from error
            raise StartupError(str(error)) from error

    def start(self, running: R, connect_s: float) -> None:
        """Connect an arm within ``connect_s`` seconds and run its loop.

        Raises:
            BusError: naming the arm; the text says what to do.
        """
        self._running.append(running)
        try:
            running.loop.start(connect_s, self._node.context.ok)
        except BusError as error:
            raise BusError(f"{running.title}: {error}") from error

    def on_status(self, running: R, status: LoopStatus) -> None:
        """For :class:`ServoLoop`: called in the loop's thread."""
        if not self._node.context.ok():
            return
        self.report(running)
        text = f"{running.title}: {status.message or status.state}"
        if status.ok:
            self._node.get_logger().info(text)
        else:
            self._node.get_logger().error(text)

    def report(self, running: R) -> None:
        """Say now how an arm is."""
        with self._reporting:  # two threads report: the last message must tell the newest status
            status = self._reported[running.arm.name] = running.status()
            values = {"port": running.port, **running.values(), **running.loop.counters}
            values["last_cycle_age_s"] = round(running.loop.last_cycle_age_s, 3)
            self._reporter.report(status, values)

    def report_all(self) -> None:
        """Say of every arm how it is."""
        for running in self._running:
            self.report(running)

    def counters(self) -> Counter[str]:
        """Of all loops together."""
        counters: Counter[str] = Counter()
        for running in self._running:
            counters.update(running.loop.counters)
        return counters

    def close(self) -> None:
        """Stop the loops; the servos' watchdogs stop the servos."""
        for running in self._running:
            running.loop.stop()

    def _watch(self) -> None:
        """Report what has changed by itself, and end with what ended a loop."""
        for running in self._running:
            running.loop.raise_failure()
            if running.status() != self._reported.get(running.arm.name):
                self.report(running)
