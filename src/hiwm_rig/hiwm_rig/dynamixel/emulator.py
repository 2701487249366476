"""An emulated arm on a pseudo-terminal: a stand-in for servos on a USB adapter, in a process of its own.

The terminal appears under a stable name (a symbolic link, as udev makes one for the real adapter). A Unix socket next
to it takes orders in plain text: faults, unplugging, a hand that moves a joint (:data:`ORDERS`).
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import os
import select
import socket
import tempfile
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.control_table import MODELS, HardwareError
from hiwm_rig.dynamixel.emulated_bus import EmulatedBus
from hiwm_rig.dynamixel.emulated_servo import EmulatedServo
from hiwm_rig.hardware import Motor

_POLL_S = 0.1
_READ_BYTES = 4096
_UNCALIBRATED_HOME = 2048


class OrderError(ValueError):
    """An order the emulator does not understand; the text says what it takes."""


def emulated_port(part: str, domain: int | None = None) -> Path:
    """Where the emulated arm ``part`` has its port, in a ROS domain of this user (by default this process's)."""
    domain = int(os.environ.get("ROS_DOMAIN_ID") or 0) if domain is None else domain
    return Path(tempfile.gettempdir()) / f"hiwm-{os.getuid()}" / f"domain_{domain}-{part}"


def home_ticks(motor: Motor, position: float) -> int:
    """Where a servo stands when its joint is at ``position`` (rad or m)."""
    if motor.homing_offset is None:
        return _UNCALIBRATED_HOME
    return motor.homing_offset + round(motor.direction * position / (motor.ratio * table.RAD_PER_TICK))


def emulated_bus(arm: Arm, part: str, firmware: int = 48) -> EmulatedBus:
    """The servos of an arm's rig file (``part`` "follower" or "leader"), at the arm's home.

    Raises:
        ValueError: the rig file describes no such servos.
    """
    if arm.hardware is None or (part == "leader" and arm.hardware.leader is None):
        raise ValueError(f"arm '{arm.name}' has no section hardware.{part} in its rig file: nothing to emulate")
    servos = []
    if part == "leader":
        assert arm.hardware.leader is not None
        for joint, motor, home in zip(arm.joints, arm.hardware.leader.motors, arm.home, strict=True):
            scale, offset = motor.map_to(joint.lower, joint.upper)
            servos.append(
                EmulatedServo(motor.id, MODELS[motor.model], home_ticks(motor, (home - offset) / scale), firmware)
            )
    else:
        for follower, home in zip(arm.hardware.follower.motors, arm.home, strict=True):
            servos.append(EmulatedServo(follower.id, MODELS[follower.model], home_ticks(follower, home), firmware))
    return EmulatedBus(servos)


class Emulator:
    """Serves a bus on a pseudo-terminal until :meth:`stop`.

    Args:
        bus: the servos.
        link: path under which the port appears; its orders' socket is ``<link>.orders``.
        baud: the servos' baud rate: a computer that talks at another one is not understood.

    Raises:
        FileExistsError: another emulator serves this path.
    """

    def __init__(self, bus: EmulatedBus, link: Path, baud: int = 1_000_000) -> None:
        self.bus = bus
        self.link = link
        self._speed = getattr(termios, f"B{baud}")
        self._master = self._slave = -1
        self._replug_at = math.inf
        self._pending: list[tuple[float, bytes]] = []
        self._running = True
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._orders = _listen(orders_path(link))
        self.plug()

    @property
    def plugged(self) -> bool:
        """Whether the port is there."""
        return self._master >= 0

    def plug(self) -> None:
        """Make the port appear, with powered servos where they were."""
        self._replug_at = math.inf
        if self.plugged:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)  # and kept open: without a slave the master reports errors
        os.set_blocking(self._master, False)
        temporary = self.link.with_name(self.link.name + ".new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.ttyname(self._slave))
        temporary.replace(self.link)

    def unplug(self, seconds: float = math.inf) -> None:
        """Pull the USB cable, for a time; the servos keep their power."""
        self._replug_at = time.monotonic() + seconds
        if not self.plugged:
            return
        self.link.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
        self._pending.clear()

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        while self._running:
            self.step()

    def step(self) -> None:
        """Wait a moment for bytes or orders, and handle them."""
        now = time.monotonic()
        if now >= self._replug_at:
            self.plug()
        due = min(self._replug_at, self._pending[0][0] if self._pending else math.inf)
        files = [self._orders.fileno(), *([self._master] if self.plugged else [])]
        ready, _, _ = select.select(files, [], [], min(_POLL_S, max(0.0, due - now)))
        if self._master in ready:
            self._serve()
        if self._orders.fileno() in ready:
            self._take_order()
        while self._pending and self._pending[0][0] <= time.monotonic():
            self._send(heapq.heappop(self._pending)[1])

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._running = False

    def close(self) -> None:
        """Remove port and socket."""
        self.unplug()
        self._orders.close()
        orders_path(self.link).unlink(missing_ok=True)

    def _serve(self) -> None:
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        if termios.tcgetattr(self._slave)[4] != self._speed:
            return  # at another baud rate servos hear noise
        now = time.monotonic()
        for reply in self.bus.feed(data, now):
            if reply.delay_s > 0:
                heapq.heappush(self._pending, (now + reply.delay_s, reply.data))
            else:
                self._send(reply.data)

    def _send(self, data: bytes) -> None:
        # Nobody reads what is sent to a closed port: like a wire, the terminal drops what does not fit.
        if self.plugged:
            with contextlib.suppress(BlockingIOError):
                os.write(self._master, data)

    def _take_order(self) -> None:
        text, sender = self._orders.recvfrom(1024)
        try:
            answer = self.obey(text.decode(errors="replace"))
        except OrderError as error:
            answer = f"error: {error}"
        if sender:
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):  # who asked has gone
                self._orders.sendto(answer.encode(), sender)

    def obey(self, text: str) -> str:
        """Carry out one order; the answer to it.

        Raises:
            OrderError: unknown order, servo or value.
        """
        name, *words = text.split() or [""]
        if name not in ORDERS:
            raise OrderError(f"unknown order '{name}'; known are {', '.join(ORDERS)}")
        self.bus.advance(time.monotonic())
        try:
            return ORDERS[name](self, words) or "ok"
        except (IndexError, ValueError) as error:
            raise OrderError(f"{name}: cannot use {words}: {error}") from error

    def servo(self, word: str) -> EmulatedServo:
        """The servo of that id.

        Raises:
            ValueError: there is none.
        """
        servo = self.bus.servos.get(int(word))
        if servo is None:
            raise ValueError(f"no servo {word}; there are {sorted(self.bus.servos)}")
        return servo

    def state(self) -> str:
        """Every servo as JSON; times are of ``time.monotonic()``."""
        return json.dumps({i: _servo_state(s) for i, s in self.bus.servos.items()})


def _servo_state(servo: EmulatedServo) -> dict[str, float | int]:
    return {
        "position": servo.get(table.PRESENT_POSITION),
        "goal": servo.get(table.GOAL_POSITION),
        "torque": servo.get(table.TORQUE_ENABLE),
        "goal_current": servo.get(table.GOAL_CURRENT),
        "error": servo.get(table.HARDWARE_ERROR),
        "watchdog": servo.get(table.BUS_WATCHDOG),
        "mode": servo.get(table.OPERATING_MODE),
        "min": servo.get(table.MIN_POSITION),
        "max": servo.get(table.MAX_POSITION),
        "goal_changed_at": servo.goal_changed_at,
        "goal_began_at": servo.goal_began_at,
        "moved_by_hand_at": servo.moved_by_hand_at,
    }


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"'{word}' is not a finite number")
    return value


Order = Callable[[Emulator, Sequence[str]], str | None]


def _missing(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.bus.faults.missing.add(emulator.servo(words[0]).id)


def _crc(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.bus.faults.bad_crc.add(emulator.servo(words[0]).id)


def _duplicate(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.bus.faults.duplicate.add(emulator.servo(words[0]).id)


def _late(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.bus.faults.late_s[emulator.servo(words[0]).id] = _finite(words[1])


def _slow(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.bus.faults.slow_s = _finite(words[0])


def _error(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.servo(words[0]).fail(HardwareError(int(words[1])))


def _overload(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.servo(words[0]).fail(HardwareError.OVERLOAD)


def _power(emulator: Emulator, words: Sequence[str]) -> None:
    for servo in emulator.bus.servos.values():
        servo.reboot()


def _clear(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.bus.faults.clear()


def _unplug(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.unplug(float(words[0]) if words else math.inf)


def _replug(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.plug()


def _hand(emulator: Emulator, words: Sequence[str]) -> None:
    emulator.servo(words[0]).hold_by_hand(_finite(words[1]))


def _release(emulator: Emulator, words: Sequence[str]) -> None:
    for servo in [emulator.servo(words[0])] if words else emulator.bus.servos.values():
        servo.hold_by_hand(None)


def _state(emulator: Emulator, words: Sequence[str]) -> str:
    return emulator.state()


ORDERS: Mapping[str, Order] = MappingProxyType(
    {
        "missing": _missing,  # ID: its cable is pulled
        "crc": _crc,  # ID: answers with a wrong CRC
        "duplicate": _duplicate,  # ID: two servos answer at once
        "late": _late,  # ID SECONDS
        "slow": _slow,  # SECONDS that every answer takes longer
        "error": _error,  # ID BITS of the hardware error status
        "overload": _overload,  # ID
        "power": _power,  # the servos lose their power for a moment
        "clear": _clear,  # ends missing, crc, duplicate, late and slow
        "unplug": _unplug,  # [SECONDS]: the USB cable
        "replug": _replug,
        "hand": _hand,  # ID TICKS: a hand holds the joint there
        "release": _release,  # [ID]: the hand lets go
        "state": _state,  # JSON
    }
)


def orders_path(link: Path) -> Path:
    """The socket of the emulator behind a port."""
    return link.with_name(link.name + ".orders")


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        probe.connect(str(path))
    except OSError:
        path.unlink(missing_ok=True)  # none, or one that a killed emulator left behind
    else:
        listener.close()
        raise FileExistsError(f"{path}: another emulator is running there; stop it, or choose another --link")
    finally:
        probe.close()
    listener.bind(str(path))
    return listener


def send_order(link: Path, text: str, timeout_s: float = 5.0) -> str:
    """Give an order to a running emulator; its answer.

    Raises:
        FileNotFoundError: no emulator serves this port.
        OrderError: it did not understand.
        TimeoutError: it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")  # an address of its own for the answer
        client.settimeout(timeout_s)
        try:
            client.connect(str(orders_path(link)))
        except (FileNotFoundError, ConnectionRefusedError):
            raise FileNotFoundError(
                f"{link}: no emulator serves this port; start one with 'hiwm emulate arm'"
            ) from None
        client.send(text.encode())
        answer = client.recv(65536).decode()
    if answer.startswith("error: "):
        raise OrderError(answer.removeprefix("error: "))
    return answer


@contextlib.contextmanager
def serving(emulator: Emulator) -> Iterator[Emulator]:
    """An emulator whose port and socket are removed at the end of the block."""
    try:
        yield emulator
    finally:
        emulator.close()
