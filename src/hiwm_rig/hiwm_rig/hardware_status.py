"""How a rig says that an arm does not obey, and how its users hear it: on ``/diagnostics``, at once. Needs rclpy.

A status whose ``hardware_id`` is ``arm/<name>`` (``leader/<name>`` for the leader of an arm, ``camera/<name>``) speaks
of that arm: OK: it obeys; WARN: it is busy (on its way home) and will obey again; ERROR: it does not obey, and whoever
drives must be told. It is repeated about once a second, and counts for :data:`FORGOTTEN_S`: who has gone says nothing.
A rig without such statuses is one that always obeys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from hiwm_rig.codecs import NS_PER_S

FORGOTTEN_S = 5.0
"""A status that has not been repeated for this long is nobody's; its arm's topics have been stale for long by then."""


class HardwareKind(StrEnum):
    """What a status is of; the first part of its ``hardware_id``. Names are unique within a kind only."""

    ARM = "arm"
    LEADER = "leader"
    CAMERA = "camera"


class HardwareLevel(IntEnum):
    """Whether an arm obeys; the values of ``DiagnosticStatus``."""

    OK = 0
    BUSY = 1
    FAULT = 2


@dataclass(frozen=True)
class HardwareStatus:
    """What is said of one arm.

    Attributes:
        name: in the rig file: of the arm (also where the status is its leader's) or the camera.
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

    def __init__(self, node: Node, topic: str, kind: HardwareKind) -> None:
        """Args: node: owner; topic: of diagnostics, from the rig file; kind: of everything it reports."""
        self._node = node
        self._kind = kind
        self._publisher = node.create_publisher(DiagnosticArray, topic, 10)

    def report(self, status: HardwareStatus, values: Mapping[str, Any]) -> None:
        """Publish now."""
        item = DiagnosticStatus(
            level=bytes([status.level]),
            name=f"{self._node.get_fully_qualified_name()}: {status.name}",
            message=status.message or "ok",
            hardware_id=hardware_id(self._kind, status.name),
            values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
        )
        message = DiagnosticArray(status=[item])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def hardware_id(kind: HardwareKind, name: str) -> str:
    """``hardware_id`` of an arm, a leader or a camera; no node's own diagnostics have one with a slash."""
    return f"{kind}/{name}"


class HardwareView:
    """What is known of some arms: the newest status of each, until it is forgotten.

    Args:
        kind: of these arms.
        names: in the rig file.
    """

    def __init__(self, kind: HardwareKind, names: Iterable[str]) -> None:
        self._names = {hardware_id(kind, name): name for name in names}
        self._known: dict[str, tuple[HardwareStatus, int]] = {}

    def take(self, msg: DiagnosticArray, now_ns: int) -> bool:
        """Take a message of ``/diagnostics``; whether it speaks of one of these arms."""
        news = [item for item in msg.status if item.hardware_id in self._names]
        for item in news:
            level = min(ord(item.level), HardwareLevel.FAULT)  # STALE is a fault as well
            status = HardwareStatus(self._names[item.hardware_id], HardwareLevel(level), item.message)
            self._known[status.name] = (status, now_ns)
        return bool(news)

    def worst(self, now_ns: int) -> tuple[HardwareLevel, str]:
        """The worst level of all arms that are known of now, and what is wrong with each; OK and "" if nothing is."""
        known = [s for s, at_ns in self._known.values() if now_ns - at_ns <= FORGOTTEN_S * NS_PER_S]
        bad = [s for s in known if s.level is not HardwareLevel.OK]
        text = "; ".join(s.message or f"{s.name}: {s.level.name}" for s in bad)
        return max((s.level for s in bad), default=HardwareLevel.OK), text
