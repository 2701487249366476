"""Control table and units of the Dynamixel X series, Protocol 2.0.

Source: ROBOTIS e-Manual, "XM430-W350" and its siblings, section "Control Table"; figures are theirs. Pure data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import MappingProxyType

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
VELOCITY_UNIT = 0.229 * 2 * math.pi / 60
"""rad/s of one unit of a velocity register."""
WATCHDOG_UNIT_S = 0.020
"""Seconds of one unit of the bus watchdog."""
WATCHDOG_MAX = 127
WATCHDOG_TRIPPED = -1
"""What the bus watchdog reads once it has stopped the servo; goals are refused until 0 is written to it."""
FAST_SYNC_READ_FIRMWARE = 45
"""First firmware of the X series that answers Fast Sync Read."""
MAX_ID = 252
BROADCAST_ID = 254


@dataclass(frozen=True)
class Register:
    """One entry of the control table.

    Attributes:
        address: first byte.
        size: bytes (1, 2 or 4), little endian.
        signed: two's complement.
        eeprom: kept without power; writable only while torque is off.
        read_only: cannot be written.
    """

    address: int
    size: int
    signed: bool = False
    eeprom: bool = False
    read_only: bool = False

    def encode(self, value: int) -> bytes:
        """The register's bytes for a value.

        Raises:
            OverflowError: it does not fit.
        """
        return int(value).to_bytes(self.size, "little", signed=self.signed)

    def decode(self, data: bytes) -> int:
        """The value of the register's bytes."""
        return int.from_bytes(data, "little", signed=self.signed)


MODEL_NUMBER = Register(0, 2, eeprom=True, read_only=True)
FIRMWARE = Register(6, 1, eeprom=True, read_only=True)
ID = Register(7, 1, eeprom=True)
BAUD_RATE = Register(8, 1, eeprom=True)
RETURN_DELAY = Register(9, 1, eeprom=True)  # units of 2 us
DRIVE_MODE = Register(10, 1, eeprom=True)
OPERATING_MODE = Register(11, 1, eeprom=True)
CURRENT_LIMIT = Register(38, 2, eeprom=True)
VELOCITY_LIMIT = Register(44, 4, eeprom=True)
MAX_POSITION = Register(48, 4, eeprom=True)
MIN_POSITION = Register(52, 4, eeprom=True)
TORQUE_ENABLE = Register(64, 1)
STATUS_RETURN_LEVEL = Register(68, 1)
HARDWARE_ERROR = Register(70, 1, read_only=True)
BUS_WATCHDOG = Register(98, 1, signed=True)
GOAL_CURRENT = Register(102, 2, signed=True)
GOAL_VELOCITY = Register(104, 4, signed=True)
PROFILE_ACCELERATION = Register(108, 4)
PROFILE_VELOCITY = Register(112, 4)
GOAL_POSITION = Register(116, 4, signed=True)
PRESENT_CURRENT = Register(126, 2, signed=True, read_only=True)
PRESENT_VELOCITY = Register(128, 4, signed=True, read_only=True)
PRESENT_POSITION = Register(132, 4, signed=True, read_only=True)
PRESENT_VOLTAGE = Register(144, 2, read_only=True)  # 0.1 V
PRESENT_TEMPERATURE = Register(146, 1, read_only=True)  # degrees Celsius
TABLE_SIZE = 147
TIMED_PROFILE = 4
"""Bit of :data:`DRIVE_MODE`: the profile registers hold times in ms instead of rates."""
PRESENT = Register(PRESENT_CURRENT.address, 10, read_only=True)
"""Current, velocity and position in one read."""


class OperatingMode(IntEnum):
    """Values of :data:`OPERATING_MODE` that this package uses."""

    POSITION = 3
    CURRENT_BASED_POSITION = 5


class HardwareError(IntFlag):
    """Bits of :data:`HARDWARE_ERROR`. The servo has switched its torque off; only a reboot clears them."""

    INPUT_VOLTAGE = 1
    OVERHEATING = 4
    ENCODER = 8
    ELECTRICAL_SHOCK = 16
    OVERLOAD = 32


@dataclass(frozen=True)
class Model:
    """One servo model.

    Attributes:
        number: what a ping answers.
        current_unit_ma: mA of one unit of a current register; 0 where the model measures load instead (no
            current-based position mode, so it cannot mirror).
        max_velocity: rad/s without load at 12 V (5 V for XL330 and XC330).
    """

    number: int
    current_unit_ma: float
    max_velocity: float


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "XL330-M077": Model(1190, 1.0, 40.1),
        "XL330-M288": Model(1200, 1.0, 10.7),
        "XC330-M181": Model(1230, 1.0, 11.6),
        "XC330-M288": Model(1240, 1.0, 8.5),
        "XL430-W250": Model(1060, 0.0, 6.4),
        "XC430-W150": Model(1070, 0.0, 11.1),
        "XM430-W210": Model(1030, 2.69, 8.1),
        "XM430-W350": Model(1020, 2.69, 4.8),
        "XM540-W150": Model(1130, 2.69, 5.5),
        "XM540-W270": Model(1120, 2.69, 3.1),
    }
)

BAUD_RATES: Mapping[int, int] = MappingProxyType(
    {9600: 0, 57600: 1, 115200: 2, 1_000_000: 3, 2_000_000: 4, 3_000_000: 5, 4_000_000: 6}
)
"""Baud rate -> value of :data:`BAUD_RATE`."""


def model_name(number: int) -> str:
    """Name of a model number, for messages."""
    return next((name for name, model in MODELS.items() if model.number == number), f"model number {number}")
