"""Measuring where an arm's joints have their zero and their ends, and writing it into a rig file. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from hiwm_rig.contract import Rig, parse_rig
from hiwm_rig.dynamixel.bus import Bus, BusError
from hiwm_rig.dynamixel.configure import switch_torque
from hiwm_rig.dynamixel.control_table import TICKS_PER_TURN
from hiwm_rig.dynamixel.motor_map import MotorMap

_PERIOD_S = 0.01
_LEAST_TRAVEL = 200
"""Ticks (18 degrees) that a joint must have been moved for its ends to mean anything."""
_MARGIN = 10
"""Ticks that the limits stay away from the ends found."""


class CalibrationFailed(BusError):
    """Measurements that make no calibration; the text says which joint and what to do."""


@dataclass(frozen=True)
class Calibration:
    """What was measured, in motor order.

    Attributes:
        homing_offsets: (N,) ticks at which the joints read zero.
        limits: (N, 2) lowest and highest ticks.
    """

    homing_offsets: npt.NDArray[np.int64]
    limits: npt.NDArray[np.int64]


def read_zero(bus: Bus) -> npt.NDArray[np.int64]:
    """(N,) ticks of an arm that somebody holds at the zero of every joint; its torque is switched off.

    Raises:
        BusError: as the bus does.
    """
    switch_torque(bus, False)
    return bus.present().position


def record_travel(bus: Bus, done: Callable[[], bool]) -> npt.NDArray[np.int64]:
    """(N, 2) lowest and highest ticks seen until ``done``, while somebody moves every joint from end to end.

    Raises:
        CalibrationFailed: a joint passes the servo's own zero, where its ticks begin again.
        BusError: as the bus does.
    """
    last = bus.present().position
    low, high = last.copy(), last.copy()
    pause = threading.Event()
    while not done():
        now = bus.present().position
        wrapped = np.flatnonzero(np.abs(now - last) > TICKS_PER_TURN // 2)
        if wrapped.size:
            joints = [bus.motors[i].joint for i in wrapped]
            raise CalibrationFailed(
                f"{joints} passes the servo's own zero: mount its horn turned by half a turn, and begin again"
            )
        low, high, last = np.minimum(low, now), np.maximum(high, now), now
        pause.wait(_PERIOD_S)
    return np.stack([low, high], axis=1)


def judge(bus: Bus, zero: npt.NDArray[np.int64], travel: npt.NDArray[np.int64]) -> Calibration:
    """Zero and travel as a calibration.

    Raises:
        CalibrationFailed: a joint was not moved.
    """
    still = [m.joint for m, (low, high) in zip(bus.motors, travel, strict=True) if high - low < _LEAST_TRAVEL]
    if still:
        raise CalibrationFailed(f"{still} was hardly moved: move every joint from one end to the other")
    return Calibration(zero, travel + np.array([_MARGIN, -_MARGIN]))


def apply(text: str, source: str, arm: str, part: str, calibration: Calibration) -> tuple[str, Rig]:
    """A rig file's text with the calibration of one part in it, and the rig that it describes.

    Comments do not survive; the new file says where it comes from.

    Raises:
        RigFileError: the file is not valid.
        CalibrationError: the calibration does not fit the joints' limits.
        KeyError: no such arm.
    """
    rig = parse_rig(text, source)
    index = next((i for i, a in enumerate(rig.arms) if a.name == arm), None)
    if index is None:
        raise KeyError(f"{source} has no arm '{arm}'; it has {[a.name for a in rig.arms]}")
    raw: dict[str, Any] = deepcopy(yaml.safe_load(text))
    motors: Sequence[dict[str, Any]] = raw["arms"][index]["hardware"][part]["motors"]
    for motor, zero, limits in zip(motors, calibration.homing_offsets, calibration.limits, strict=True):
        motor["homing_offset"] = int(zero)
        motor["limits"] = [int(v) for v in limits]
    body = yaml.safe_dump(raw, sort_keys=False, default_flow_style=None, width=120)
    new = f"# Made by 'hiwm calibrate' from {source}: homing offsets and limits of the {part} of '{arm}'.\n{body}"
    calibrated = parse_rig(new, source)
    hardware = calibrated.arms[index].hardware
    assert hardware is not None
    bus = hardware.leader if part == "leader" else hardware.follower
    assert bus is not None
    MotorMap(bus.motors, calibrated.arms[index].joints)  # raises where it does not fit
    return new, calibrated
