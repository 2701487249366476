"""Bringing servos into the state that a driver needs, without wearing their EEPROM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import Bus
from hiwm_rig.dynamixel.control_table import OperatingMode, Register

_ALWAYS_ANSWER = 2

Settings = Mapping[Register, Sequence[int]]
"""Register -> one value per motor."""


def configure(bus: Bus, mode: OperatingMode, settings: Settings) -> None:
    """Write what differs; torque goes off, for good, only on a servo whose EEPROM has to be changed.

    That happens once, when an arm meets a driver or another rig file for the first time: hold it. Afterwards no
    watchdog is armed, so that goals can be written.

    Raises:
        BusError: as the bus does.
    """
    everywhere: dict[Register, Sequence[int]] = {
        table.STATUS_RETURN_LEVEL: [_ALWAYS_ANSWER] * len(bus.ids),
        table.RETURN_DELAY: [0] * len(bus.ids),
        table.OPERATING_MODE: [mode] * len(bus.ids),
    }
    bus.write_all(table.BUS_WATCHDOG, [0] * len(bus.ids))  # one that has tripped refuses goals
    for register, values in (everywhere | dict(settings)).items():
        write_where_different(bus, register, values)


def write_where_different(bus: Bus, register: Register, values: Sequence[int]) -> None:
    """Give a register of every servo its value (EEPROM wears out, so only where it has another one).

    Raises:
        BusError: as the bus does.
    """
    for servo, value, held in zip(bus.ids, values, bus.read_all(register), strict=True):
        if held == value:
            continue
        if register.eeprom and bus.read(servo, table.TORQUE_ENABLE):
            bus.write(servo, table.TORQUE_ENABLE, 0)
        bus.write(servo, register, value)


def switch_torque(bus: Bus, on: bool) -> None:
    """Switch the torque of all servos, and wait for each to say so.

    Raises:
        BusError: as the bus does.
    """
    for servo in bus.ids:
        bus.write(servo, table.TORQUE_ENABLE, int(on))
