"""Who is meant by a status on ``/diagnostics``, for how long it counts, and what follows from several."""

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.hardware_status import FORGOTTEN_S, HardwareKind, HardwareLevel, HardwareView, hardware_id

ERROR, WARN, OK = (bytes([level]) for level in (2, 1, 0))


def said(identity: str, level: bytes, message: str = "") -> DiagnosticArray:
    return DiagnosticArray(status=[DiagnosticStatus(level=level, hardware_id=identity, message=message)])


@pytest.mark.parametrize("identity", ["front", "camera/front", "leader/front", "arm/front_leader", "arm/"])
def test_a_camera_a_node_or_a_leader_of_the_same_name_is_not_the_arm(identity: str) -> None:
    view = HardwareView(HardwareKind.ARM, ["front"])
    assert not view.take(said(identity, ERROR, "unplugged"), 0)
    assert view.worst(0) == (HardwareLevel.OK, "")


def test_an_arm_s_status_counts_until_it_is_forgotten() -> None:
    view = HardwareView(HardwareKind.LEADER, ["left"])
    assert view.take(said(hardware_id(HardwareKind.LEADER, "left"), ERROR, "unplugged"), 0)
    assert view.worst(round(FORGOTTEN_S * NS_PER_S)) == (HardwareLevel.FAULT, "unplugged")
    assert view.worst(round(FORGOTTEN_S * NS_PER_S) + 1) == (HardwareLevel.OK, "")


def test_of_several_arms_the_worst_counts_and_each_is_named() -> None:
    view = HardwareView(HardwareKind.ARM, ["left", "right"])
    view.take(said("arm/left", WARN, "left: on its way home"), 0)
    view.take(said("arm/right", bytes([3])), 0)  # STALE, and no word
    level, text = view.worst(1)
    assert level is HardwareLevel.FAULT and "on its way home" in text and "right" in text
    view.take(said("arm/right", OK), 2)
    assert view.worst(3) == (HardwareLevel.BUSY, "left: on its way home")
