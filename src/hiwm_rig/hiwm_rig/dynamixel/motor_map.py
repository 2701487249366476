"""Servo ticks <-> joint positions, for all motors of an arm at once. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hiwm_rig.contract import Joint
from hiwm_rig.dynamixel.control_table import MODELS, RAD_PER_TICK, TICKS_PER_TURN, VELOCITY_UNIT
from hiwm_rig.dynamixel.port import BusError
from hiwm_rig.hardware import LeaderMotor, Motor
from hiwm_rig.types import FloatArray

Ticks = npt.NDArray[np.int64]


class CalibrationError(BusError):
    """Motors whose zero nobody has measured."""


class MotorMap:
    """Affine and per joint: ``joint = slope * (ticks - zero) + offset``.

    Args:
        motors: in joint order. A :class:`~hiwm_rig.hardware.LeaderMotor` maps to the follower's joint, with its
            scale, offset or range.
        joints: of the follower.

    Raises:
        CalibrationError: a motor has no homing offset.
    """

    def __init__(self, motors: Sequence[Motor], joints: Sequence[Joint]) -> None:
        missing = [m.joint for m in motors if m.homing_offset is None]
        if missing:
            raise CalibrationError(
                f"calibration missing: no homing_offset for {missing}; run 'hiwm calibrate' and use the rig file "
                "that it writes"
            )
        maps = [
            m.map_to(j.lower, j.upper) if isinstance(m, LeaderMotor) else (1.0, 0.0)
            for m, j in zip(motors, joints, strict=True)
        ]
        self._zero = np.array([m.homing_offset for m in motors], dtype=np.float64)
        self._slope = np.array(
            [s * m.direction * m.ratio * RAD_PER_TICK for m, (s, _) in zip(motors, maps, strict=True)]
        )
        self._offset = np.array([o for _, o in maps])
        self._unit_ma = np.array([MODELS[m.model].current_unit_ma for m in motors])
        self.lower, self.upper = self._reach(motors, joints)

    def _reach(self, motors: Sequence[Motor], joints: Sequence[Joint]) -> tuple[FloatArray, FloatArray]:
        """The joints' limits, narrowed by what one turn and the motors' own limits allow."""
        wanted = np.array([[j.lower, j.upper] for j in joints]).T
        ends = np.array([m.limits or (0, TICKS_PER_TURN - 1) for m in motors], dtype=np.float64).T
        reach = np.sort(np.stack([self.joints(end) for end in ends]), axis=0)
        lower, upper = np.maximum(wanted[0], reach[0]), np.minimum(wanted[1], reach[1])
        bad = [m.joint for m, low, high in zip(motors, lower, upper, strict=True) if not low < high]
        if bad:
            raise CalibrationError(
                f"the servo limits of {bad} lie outside the joint's limits: check homing_offset, direction and limits, "
                "or run 'hiwm calibrate' again"
            )
        return lower, upper

    def joints(self, ticks: npt.ArrayLike) -> FloatArray:
        """(N,) ticks as joint positions, rad or m."""
        return np.asarray(self._slope * (np.asarray(ticks, np.float64) - self._zero) + self._offset)

    def ticks(self, joints: FloatArray) -> Ticks:
        """(N,) joint positions as the nearest ticks."""
        return np.rint((joints - self._offset) / self._slope + self._zero).astype(np.int64)

    def velocities(self, units: npt.ArrayLike) -> FloatArray:
        """(N,) velocity registers as rad/s or m/s."""
        return np.asarray(np.asarray(units, np.float64) * VELOCITY_UNIT * self._slope / RAD_PER_TICK)

    def currents_ma(self, units: npt.ArrayLike) -> FloatArray:
        """(N,) current registers as mA; 0 for servos that do not measure it."""
        return np.asarray(np.asarray(units, np.float64) * self._unit_ma)

    def current_units(self, milliamperes: float) -> Ticks:
        """(N,) current registers for one current."""
        return np.rint(milliamperes / np.where(self._unit_ma > 0, self._unit_ma, np.inf)).astype(np.int64)

    def tick_limits(self) -> tuple[Ticks, Ticks]:
        """(N,) lowest and highest ticks that are inside the limits."""
        ends = np.sort(np.stack([self.ticks(self.lower), self.ticks(self.upper)]), axis=0)
        return ends[0], ends[1]
