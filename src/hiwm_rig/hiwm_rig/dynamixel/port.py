"""A serial port for the Dynamixel SDK that waits instead of spinning, on a clock that nobody can set.

The SDK's own port handler polls in a busy loop (63-98 % of a core), takes its timeouts from the wall clock, and leaves
a port that two processes may open.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import serial
from dynamixel_sdk.port_handler import PortHandler

from hiwm_rig.hardware import EMULATED

_MARGIN_MS = 2.0
_WRITE_TIMEOUT_S = 1.0
"""A stalled USB adapter may refuse bytes for ever; nobody may wait for it that long. It is no shorter because pyserial
also gives up after a write that went well, where the process was stopped meanwhile."""
_LATENCIES = 2.0
"""Latency timers that one answer may take: as the SDK reckons."""


class BusError(RuntimeError):
    """Something is wrong with the servos or the way to them; the text says what to do."""


class PortError(BusError):
    """The serial port is not there, is in use, or has gone."""


class NoPortError(PortError):
    """The serial port is not there: plugging in the adapter cures it."""


class PortGoneError(PortError):
    """The serial port has gone, or has stalled: it may come back."""


@contextlib.contextmanager
def port_errors(name: str) -> Iterator[None]:
    """Whatever a vanishing USB adapter raises, as :class:`PortError`."""
    try:
        yield
    except (termios.error, serial.SerialException, OSError) as error:
        raise PortGoneError(f"{name}: the port has gone ({error}): plug the USB adapter in again") from error


class SteadyPort(PortHandler):
    """See the module's text.

    Args:
        name: device.
        baud: bits per second.
        latency_ms: latency timer of the USB adapter.
    """

    def __init__(self, name: str, baud: int, latency_ms: float) -> None:
        super().__init__(name)
        self.baudrate = baud
        self._latency_ms = latency_ms

    def open_exclusively(self) -> None:
        """Open the port for this process alone.

        Raises:
            PortError: no such port, no permission, or another process has it.
        """
        path = Path(self.port_name)
        if not self.port_name or self.port_name == EMULATED:
            raise PortError("no serial port is given: set hardware.<part>.port in the rig file, or the port option")
        if not path.exists():
            raise NoPortError(
                f"{path}: no such port: is the USB adapter plugged in, and powered? (ls /dev/serial/by-id)"
            )
        try:
            opened = self.openPort()
        except PermissionError as error:
            raise PortError(f"{path}: no permission: install the udev rules or join the group dialout") from error
        except (serial.SerialException, OSError, termios.error) as error:
            raise PortError(f"{path}: cannot be opened ({error})") from error
        if not opened:
            raise PortError(f"{path}: the baud rate {self.baudrate} is not supported")
        self.ser.write_timeout = _WRITE_TIMEOUT_S
        try:
            fcntl.flock(self.ser.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close_quietly()
            raise PortError(f"{path} is in use by another process: only one node may own a bus (stop it)") from None

    def close_quietly(self) -> None:
        """Close, also where the device is gone already."""
        self.is_open = False
        if self.ser is not None:
            with contextlib.suppress(termios.error, serial.SerialException, OSError):
                self.ser.close()

    def wait_quiet(self, seconds: float) -> int:
        """Read and drop until nothing came for ``seconds``; the number of bytes dropped. Bounded to ten times that."""
        deadline = time.monotonic() + 10 * seconds
        dropped = 0
        while time.monotonic() < deadline:
            readable, _, _ = select.select([self.ser.fileno()], [], [], seconds)
            if not readable:
                break
            dropped += len(self.ser.read(1024))
        return dropped

    # -- what the SDK calls -------------------------------------------------------------------------------------

    def getCurrentTime(self) -> float:
        """Milliseconds of the steady clock."""
        return 1e3 * time.monotonic()

    def setPacketTimeout(self, packet_length: int) -> None:
        """The time that an answer of so many bytes may take."""
        self.packet_start_time = self.getCurrentTime()
        self.packet_timeout = self.tx_time_per_byte * packet_length + _LATENCIES * self._latency_ms + _MARGIN_MS

    def readPort(self, length: int) -> bytes:
        """Up to ``length`` bytes; waits for the first one until the packet's time is over."""
        left_ms = self.packet_timeout - self.getTimeSinceStart()
        readable, _, _ = select.select([self.ser.fileno()], [], [], max(0.0, left_ms / 1e3))
        return bytes(self.ser.read(length)) if readable else b""
