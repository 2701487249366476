"""Emulated servos on one bus, with faults to order: instruction packets in, status packets out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hiwm_rig.dynamixel.control_table import BROADCAST_ID, FAST_SYNC_READ_FIRMWARE, FIRMWARE, MODEL_NUMBER
from hiwm_rig.dynamixel.emulated_servo import EmulatedServo
from hiwm_rig.dynamixel.packets import (
    ErrorFlag,
    Instruction,
    Packet,
    PacketError,
    Parser,
    pack_fast_status,
    pack_status,
)


@dataclass(frozen=True)
class Reply:
    """Bytes to send, ``delay_s`` after the instruction."""

    data: bytes
    delay_s: float


@dataclass
class Faults:
    """What is wrong with the bus; everything by servo id.

    Attributes:
        missing: answer nothing (a pulled cable).
        bad_crc: answer with a wrong CRC.
        duplicate: two servos with this id answer at once, so that nobody understands them.
        late_s: answer so much later.
        slow_s: every answer comes so much later (a slow bus).
    """

    missing: set[int] = field(default_factory=set)
    bad_crc: set[int] = field(default_factory=set)
    duplicate: set[int] = field(default_factory=set)
    late_s: dict[int, float] = field(default_factory=dict)
    slow_s: float = 0.0

    def clear(self) -> None:
        """Nothing is wrong."""
        for faults in (self.missing, self.bad_crc, self.duplicate, self.late_s):
            faults.clear()
        self.slow_s = 0.0


class EmulatedBus:
    """Servos that hear the same bytes.

    Args:
        servos: with different ids.
    """

    def __init__(self, servos: Iterable[EmulatedServo]) -> None:
        self.servos = {s.id: s for s in servos}
        self.faults = Faults()
        self.instructions = 0
        self._parser = Parser()

    def feed(self, data: bytes, now: float) -> list[Reply]:
        """Take bytes from the wire; the replies to the instructions they complete."""
        replies = []
        for packet in self._parser.feed(data):
            if packet.instruction == Instruction.STATUS:
                continue
            self.instructions += 1
            for servo in self.servos.values():
                if servo.id not in self.faults.missing:  # whose cable is pulled, hears nothing
                    servo.hear(now)
            handler = _HANDLERS.get(packet.instruction, EmulatedBus._unknown)
            parts = handler(self, packet)
            if parts:
                replies.append(
                    Reply(b"".join(p.data for p in parts), self.faults.slow_s + sum(p.delay_s for p in parts))
                )
        return replies

    def advance(self, now: float) -> None:
        """Move every servo up to a time."""
        for servo in self.servos.values():
            servo.advance(now)

    # -- instructions -------------------------------------------------------------------------------------------

    def _present(self, servo_id: int) -> EmulatedServo | None:
        return None if servo_id in self.faults.missing else self.servos.get(servo_id)

    def _addressed(self, packet: Packet) -> list[EmulatedServo]:
        ids = sorted(self.servos) if packet.id == BROADCAST_ID else [packet.id]
        return [s for s in map(self._present, ids) if s is not None]

    def _status(self, servo: EmulatedServo, error: int = 0, data: bytes = b"") -> Reply:
        wire = pack_status(servo.id, error | (ErrorFlag.ALERT if servo.alert else 0), data)
        if servo.id in self.faults.bad_crc:
            wire = wire[:-1] + bytes([wire[-1] ^ 0xFF])
        if servo.id in self.faults.duplicate:
            wire = wire[:5] + bytes(a & b for a, b in zip(wire[5:], wire[4:], strict=False))
        return Reply(wire, self.faults.late_s.get(servo.id, 0.0))

    def _answers(self, packet: Packet, servo: EmulatedServo, error: int, data: bytes = b"") -> list[Reply]:
        return [] if packet.id == BROADCAST_ID else [self._status(servo, error, data)]

    def _ping(self, packet: Packet) -> list[Reply]:
        size = MODEL_NUMBER.size
        return [
            self._status(s, 0, (s.read(MODEL_NUMBER.address, size) or b"") + bytes([s.get(FIRMWARE)]))
            for s in self._addressed(packet)
        ]

    def _read(self, packet: Packet) -> list[Reply]:
        address, size = _address_and_size(packet.parameters)
        replies = []
        for servo in self._addressed(packet):
            data = servo.read(address, size)
            replies += self._answers(packet, servo, PacketError.ACCESS if data is None else 0, data or b"")
        return replies

    def _write(self, packet: Packet) -> list[Reply]:
        address = int.from_bytes(packet.parameters[:2], "little")
        replies = []
        for servo in self._addressed(packet):
            replies += self._answers(packet, servo, servo.write(address, packet.parameters[2:]))
        return replies

    def _reboot(self, packet: Packet) -> list[Reply]:
        replies = []
        for servo in self._addressed(packet):
            servo.reboot()
            replies += self._answers(packet, servo, 0)
        return replies

    def _sync_write(self, packet: Packet) -> list[Reply]:
        address, size = _address_and_size(packet.parameters)
        items = packet.parameters[4:]
        for start in range(0, len(items), size + 1):
            servo = self._present(items[start])
            if servo is not None:
                servo.write(address, items[start + 1 : start + 1 + size])
        return []

    def _sync_read(self, packet: Packet) -> list[Reply]:
        address, size = _address_and_size(packet.parameters)
        replies = []
        for servo_id in packet.parameters[4:]:
            servo = self._present(servo_id)
            if servo is None:
                break  # the next servos wait for this one's answer
            data = servo.read(address, size)
            replies.append(self._status(servo, PacketError.ACCESS if data is None else 0, data or b""))
        return replies

    def _fast_sync_read(self, packet: Packet) -> list[Reply]:
        address, size = _address_and_size(packet.parameters)
        parts = []
        ids = list(packet.parameters[4:])
        for servo_id in ids:
            servo = self._present(servo_id)
            if servo is None or servo.get(FIRMWARE) < FAST_SYNC_READ_FIRMWARE:
                return []
            data = servo.read(address, size) or bytes(size)
            parts.append((servo_id, int(ErrorFlag.ALERT) if servo.alert else 0, data))
        wire = pack_fast_status(parts)
        if (self.faults.bad_crc | self.faults.duplicate) & set(ids):
            wire = wire[:-1] + bytes([wire[-1] ^ 0xFF])
        return [Reply(wire, sum(self.faults.late_s.get(i, 0.0) for i in ids))]

    def _unknown(self, packet: Packet) -> list[Reply]:
        return [r for s in self._addressed(packet) for r in self._answers(packet, s, PacketError.INSTRUCTION)]


def _address_and_size(parameters: bytes) -> tuple[int, int]:
    return int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")


_HANDLERS: Mapping[int, Callable[[EmulatedBus, Packet], list[Reply]]] = MappingProxyType(
    {
        Instruction.PING: EmulatedBus._ping,
        Instruction.READ: EmulatedBus._read,
        Instruction.WRITE: EmulatedBus._write,
        Instruction.REBOOT: EmulatedBus._reboot,
        Instruction.SYNC_READ: EmulatedBus._sync_read,
        Instruction.SYNC_WRITE: EmulatedBus._sync_write,
        Instruction.FAST_SYNC_READ: EmulatedBus._fast_sync_read,
    }
)
