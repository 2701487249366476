"""An emulated X-series servo: a control table with position dynamics. A stand-in for hardware; no I/O, no clock.

Not emulated: inertia, gravity, backlash, temperature, profiles' acceleration, extended positions beyond 32 bits.
"""

from __future__ import annotations

import math

from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.control_table import HardwareError, Model, OperatingMode, Register
from hiwm_rig.dynamixel.packets import PacketError

_TIME_CONSTANT_S = 0.015
"""First-order lag of the position loop."""
_CURRENT_PER_TICK = 0.35
"""Units of current that one tick of position error draws."""
_HAND_CURRENT_MA = 400.0
"""A hand that holds the joint wins against torque limited below this."""
_HAND_SPEED = 6.0
"""rad/s at which a hand moves the joint."""
_MAX_CURRENT = 1193
_STILL_S = 0.1
"""A goal that changes after this long without a change begins a motion."""
_STATUS_ALWAYS = 2
_WRITABLE_GOALS = (table.GOAL_CURRENT, table.GOAL_VELOCITY, table.GOAL_POSITION)


class EmulatedServo:
    """One servo. Times are seconds of any monotonic clock, given by the caller.

    Args:
        servo_id: id on the bus.
        model: what it is.
        ticks: where it stands at first.
        firmware: version; below 45 it does not know Fast Sync Read.
    """

    def __init__(self, servo_id: int, model: Model, ticks: int = 2048, firmware: int = 48) -> None:
        self.id = servo_id
        self.model = model
        self._bytes = bytearray(table.TABLE_SIZE)
        self._position = float(ticks)
        self._velocity = 0.0
        self._hand: float | None = None
        self._now = 0.0
        self._last_instruction = 0.0
        self.goal_changed_at = self.goal_began_at = 0.0
        self.moved_by_hand_at = 0.0
        for register, value in (
            (table.MODEL_NUMBER, model.number),
            (table.FIRMWARE, firmware),
            (table.ID, servo_id),
            (table.BAUD_RATE, table.BAUD_RATES[1_000_000]),
            (table.RETURN_DELAY, 250),
            (table.OPERATING_MODE, OperatingMode.POSITION),
            (table.CURRENT_LIMIT, _MAX_CURRENT),
            (table.VELOCITY_LIMIT, round(model.max_velocity / table.VELOCITY_UNIT)),
            (table.MAX_POSITION, table.TICKS_PER_TURN - 1),
            (table.MIN_POSITION, 0),
            (table.STATUS_RETURN_LEVEL, _STATUS_ALWAYS),
            (table.GOAL_CURRENT, _MAX_CURRENT),
            (table.GOAL_POSITION, ticks),
            (table.PRESENT_POSITION, ticks),
            (table.PRESENT_VOLTAGE, 120),
            (table.PRESENT_TEMPERATURE, 30),
        ):
            self.set(register, value)

    def get(self, register: Register) -> int:
        """A register's value."""
        return register.decode(bytes(self._bytes[register.address : register.address + register.size]))

    def set(self, register: Register, value: int) -> None:
        """Put a value into a register without any of the servo's checks."""
        self._bytes[register.address : register.address + register.size] = register.encode(value)

    @property
    def alert(self) -> bool:
        """Whether a hardware error stands: bit 7 of every status packet's error byte."""
        return self.get(table.HARDWARE_ERROR) != 0

    def hear(self, now: float) -> None:
        """Any instruction packet on the bus: the watchdog sees that the computer lives."""
        self.advance(now)
        self._last_instruction = now

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes of the control table; None where there are none."""
        return bytes(self._bytes[address : address + size]) if address + size <= table.TABLE_SIZE else None

    def write(self, address: int, data: bytes) -> PacketError:
        """A write instruction, with the checks of the real servo."""
        if address + len(data) > table.TABLE_SIZE or self._read_only(address, len(data)):
            return PacketError.ACCESS
        torque = self.get(table.TORQUE_ENABLE) != 0
        if address < table.TORQUE_ENABLE.address and torque:
            return PacketError.ACCESS  # EEPROM is locked while torque is on
        if error := self._goal_error(address, data):
            return error
        if address == table.TORQUE_ENABLE.address and data[0] and self.alert:
            return PacketError.NONE  # accepted, but torque stays off until a reboot
        goal = self.get(table.GOAL_POSITION)
        self._bytes[address : address + len(data)] = data
        if address == table.TORQUE_ENABLE.address and data[0] and not torque:
            self.set(table.GOAL_POSITION, round(self._position))  # as the real one: no jump when torque comes on
            self._last_instruction = self._now
        if self.get(table.GOAL_POSITION) != goal:
            if self._now - self.goal_changed_at > _STILL_S:
                self.goal_began_at = self._now
            self.goal_changed_at = self._now
        return PacketError.NONE

    def reboot(self) -> None:
        """Reset RAM: torque off, errors cleared, watchdog off."""
        for register in (table.HARDWARE_ERROR, table.TORQUE_ENABLE, table.BUS_WATCHDOG, table.PROFILE_VELOCITY):
            self.set(register, 0)
        self.set(table.GOAL_CURRENT, self.get(table.CURRENT_LIMIT))
        self.set(table.GOAL_POSITION, round(self._position))

    def fail(self, error: HardwareError) -> None:
        """A hardware error: torque goes off and stays off."""
        self.set(table.HARDWARE_ERROR, int(error))
        self.set(table.TORQUE_ENABLE, 0)

    def hold_by_hand(self, ticks: float | None) -> None:
        """A hand takes the joint to a position, or lets go of it (None)."""
        self._hand = ticks
        self.moved_by_hand_at = self._now

    def advance(self, now: float) -> None:
        """Move the joint up to a time; the watchdog may stop it on the way."""
        limit_s = self.get(table.BUS_WATCHDOG) * table.WATCHDOG_UNIT_S
        trips_at = self._last_instruction + limit_s
        if limit_s > 0 and self.get(table.TORQUE_ENABLE) and now > trips_at:
            self._integrate(trips_at)
            self.set(table.BUS_WATCHDOG, table.WATCHDOG_TRIPPED)
            self.set(table.GOAL_POSITION, round(self._position))
        self._integrate(now)

    def _integrate(self, now: float) -> None:
        dt = max(0.0, now - self._now)
        self._now = max(now, self._now)
        if dt == 0:
            return
        target, speed = self._drive()
        wanted = (target - self._position) * -math.expm1(-dt / _TIME_CONSTANT_S)
        reach = speed / table.RAD_PER_TICK * dt
        moved = min(max(wanted, -reach), reach)
        self._position += moved
        self._velocity = moved / dt
        unit = self.model.current_unit_ma or 1.0
        ceiling = min(self.get(table.GOAL_CURRENT), _MAX_CURRENT) if self._current_limited() else _MAX_CURRENT
        error = self.get(table.GOAL_POSITION) - self._position if self.get(table.TORQUE_ENABLE) else 0.0
        current = min(max(error * _CURRENT_PER_TICK * 2.69 / unit, -ceiling), ceiling)
        self.set(table.PRESENT_POSITION, round(self._position))
        self.set(table.PRESENT_VELOCITY, round(self._velocity * table.RAD_PER_TICK / table.VELOCITY_UNIT))
        self.set(table.PRESENT_CURRENT, round(current))

    def _drive(self) -> tuple[float, float]:
        """Where the joint is drawn to (ticks) and how fast it may go there (rad/s)."""
        torque = self.get(table.TORQUE_ENABLE) != 0
        if self._hand is not None and (not torque or self._hand_wins()):
            return self._hand, _HAND_SPEED
        if not torque:
            return self._position, 0.0
        profile = self.get(table.PROFILE_VELOCITY)
        limit = min(self.get(table.VELOCITY_LIMIT), profile or math.inf) * table.VELOCITY_UNIT
        return float(self.get(table.GOAL_POSITION)), min(limit, self.model.max_velocity)

    def _current_limited(self) -> bool:
        return self.get(table.OPERATING_MODE) == OperatingMode.CURRENT_BASED_POSITION

    def _hand_wins(self) -> bool:
        return self._current_limited() and self.get(table.GOAL_CURRENT) * self.model.current_unit_ma < _HAND_CURRENT_MA

    def _goal_error(self, address: int, data: bytes) -> PacketError:
        end = address + len(data)
        if self.get(table.BUS_WATCHDOG) == table.WATCHDOG_TRIPPED and any(
            r.address < end and address < r.address + r.size for r in _WRITABLE_GOALS
        ):
            return PacketError.DATA_RANGE
        goal = table.GOAL_POSITION
        if address <= goal.address and goal.address + goal.size <= end and not self._current_limited():
            start = goal.address - address
            value = goal.decode(data[start : start + goal.size])
            if not self.get(table.MIN_POSITION) <= value <= self.get(table.MAX_POSITION):
                return PacketError.DATA_LIMIT
        return PacketError.NONE

    @staticmethod
    def _read_only(address: int, size: int) -> bool:
        end = address + size
        return any(r.address < end and address < r.address + r.size for r in _READ_ONLY)


_READ_ONLY = (table.MODEL_NUMBER, table.FIRMWARE, table.HARDWARE_ERROR, table.PRESENT, table.PRESENT_VOLTAGE)
