"""Packets of Dynamixel Protocol 2.0, as the emulated servos need them. Own code, so that the emulator shares no error
with the SDK that it stands opposite to.

Source: ROBOTIS e-Manual, "DYNAMIXEL Protocol 2.0" (packet, byte stuffing, CRC-16/BUYPASS).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

HEADER = b"\xff\xff\xfd\x00"
_STUFFED = b"\xff\xff\xfd"
_MIN_LENGTH, _MAX_LENGTH = 3, 1024
_PREFIX = len(HEADER) + 3
"""Bytes before the instruction: header, id, length."""
_POLYNOMIAL = 0x8005


class Instruction(IntEnum):
    """What an instruction packet asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REBOOT = 0x08
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A


class PacketError(IntEnum):
    """Error number of a status packet."""

    NONE = 0
    INSTRUCTION = 2
    DATA_RANGE = 4
    DATA_LENGTH = 5
    DATA_LIMIT = 6
    ACCESS = 7


class ErrorFlag(IntFlag):
    """Bit of a status packet's error byte."""

    ALERT = 0x80  # the servo reports a hardware error; read HARDWARE_ERROR


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ _POLYNOMIAL if crc & 0x8000 else crc << 1
        table.append(crc & 0xFFFF)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16 of a packet without its last two bytes."""
    crc = 0
    for byte in data:
        crc = ((crc << 8) & 0xFFFF) ^ _CRC_TABLE[(crc >> 8) ^ byte]
    return crc


@dataclass(frozen=True)
class Packet:
    """One instruction packet.

    Attributes:
        id: servo, or 254 for all.
        instruction: one of :class:`Instruction`, or another number that no servo here knows.
        parameters: what follows the instruction, unstuffed.
    """

    id: int
    instruction: int
    parameters: bytes


def pack(packet: Packet) -> bytes:
    """A packet's bytes on the wire."""
    body = (bytes([packet.instruction]) + packet.parameters).replace(_STUFFED, _STUFFED + b"\xfd")
    frame = HEADER + bytes([packet.id]) + (len(body) + 2).to_bytes(2, "little") + body
    return frame + crc16(frame).to_bytes(2, "little")


def pack_status(servo: int, error: int, data: bytes = b"") -> bytes:
    """A status packet's bytes on the wire."""
    return pack(Packet(servo, Instruction.STATUS, bytes([error]) + data))


def pack_fast_status(parts: list[tuple[int, int, bytes]]) -> bytes:
    """The one status packet that answers a Fast Sync Read; ``parts`` are (id, error, data), unstuffed.

    Each servo appends its part with the CRC of all bytes so far, so the last CRC is the packet's.
    """
    length = 1 + sum(len(data) + 4 for _, _, data in parts)
    frame = HEADER + b"\xfe" + length.to_bytes(2, "little") + bytes([Instruction.STATUS])
    for servo, error, data in parts:
        frame += bytes([error, servo]) + data
        frame += crc16(frame).to_bytes(2, "little")
    return frame


class Parser:
    """Finds packets in a stream of bytes; skips what is none."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.bad_crc = 0

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes; the packets that are complete now."""
        self._buffer += data
        found = []
        while (frame := self._next_frame()) is not None:
            if int.from_bytes(frame[-2:], "little") != crc16(frame[:-2]):
                self.bad_crc += 1
                continue
            body = frame[_PREFIX:-2].replace(_STUFFED + b"\xfd", _STUFFED)
            found.append(Packet(frame[4], body[0], body[1:]))
        return found

    def _next_frame(self) -> bytes | None:
        buffer = self._buffer
        while True:
            start = buffer.find(HEADER)
            if start < 0:
                del buffer[: max(0, len(buffer) - len(HEADER) + 1)]
                return None
            del buffer[:start]
            if len(buffer) < _PREFIX:
                return None
            length = int.from_bytes(buffer[5:7], "little")
            if not _MIN_LENGTH <= length <= _MAX_LENGTH:
                del buffer[:1]  # no packet begins here
                continue
            if len(buffer) < _PREFIX + length:
                return None
            frame = bytes(buffer[: _PREFIX + length])
            del buffer[: _PREFIX + length]
            return frame
