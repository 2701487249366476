"""Which serial port belongs to which arm, as a node's parameter says it. No ROS."""

from __future__ import annotations

from collections.abc import Sequence

from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel.emulator import emulated_port
from hiwm_rig.dynamixel.port import BusError
from hiwm_rig.hardware import EMULATED, ServoBus


def part_name(arm: Arm, part: str) -> str:
    """Name of an arm's part ("follower" or "leader"), as in diagnostics and of emulated ports."""
    return arm.name if part == "follower" else arm.leader_name


def resolve_ports(parameter: str, arms: Sequence[Arm], part: str, buses: Sequence[ServoBus]) -> list[str]:
    """The device of each arm's part.

    Args:
        parameter: devices separated by commas, in the rig file's order; "emulated" for emulators of this ROS domain;
            empty for what the rig file says.
        arms: of the rig file.
        part: "follower" or "leader".
        buses: that part of each arm.

    Raises:
        BusError: another number of ports than of arms, or one port twice.
    """
    if parameter == EMULATED:
        return [str(emulated_port(part_name(arm, part))) for arm in arms]
    ports = [p.strip() for p in parameter.split(",")] if parameter else [b.port for b in buses]
    if len(ports) != len(arms):
        raise BusError(f"{len(arms)} {part} port(s) needed ({', '.join(a.name for a in arms)}), got '{parameter}'")
    if len(set(ports)) != len(ports):
        raise BusError(f"each {part} arm needs its own port, got {ports}")
    return ports
