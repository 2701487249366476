"""How a rig says that an arm does not obey, and how its users hear it: on ``/diagnostics``, at once. Needs rclpy.

A status whose ``hardware_id`` is an arm's name (or its leader's, :attr:`~hiwm_rig.contract.Arm.leader_name`) speaks of
that arm: OK: it obeys; WARN: it is busy (on its way home) and will obey again; ERROR: it does not obey, and whoever
drives must be told. A rig without such statuses is one that always obeys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node


class HardwareLevel(IntEnum):
    """Whether an arm obeys; the values of ``DiagnosticStatus``."""

    OK = 0
    BUSY = 1
    FAULT = 2


@dataclass(frozen=True)
class HardwareStatus:
    """What is said of one arm.

    Attributes:
        name: the arm's or leader's name.
        level: whether it obeys.
        message: what is wrong and what to do, for people.
    """

    name: str
    level: HardwareLevel
    message: str = ""


class HardwareReporter:
    """Publishes :class:`HardwareStatus`; call :meth:`report` on every change, and about once a second.

    May be called from the thread that owns the hardware.
    """

    def __init__(self, node: Node, topic: str) -> None:
        """Args: node: owner; topic: of diagnostics, from the rig file."""
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, topic, 10)

    def report(self, status: HardwareStatus, values: Mapping[str, Any]) -> None:
        """Publish now."""
        item = DiagnosticStatus(
            level=bytes([status.level]),
            name=f"{self._node.get_fully_qualified_name()}: {status.name}",
            message=status.message or "ok",
            hardware_id=status.name,
            values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
        )
        message = DiagnosticArray(status=[item])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def read_hardware_status(msg: DiagnosticArray, names: frozenset[str]) -> list[HardwareStatus]:
    """What a message of ``/diagnostics`` says of arms with these names."""
    found = []
    for item in msg.status:
        if item.hardware_id in names:
            level = min(ord(item.level), HardwareLevel.FAULT)  # STALE is a fault as well
            found.append(HardwareStatus(item.hardware_id, HardwareLevel(level), item.message))
    return found
