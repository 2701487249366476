"""One serial port with servos on it: the only way in this package to talk to them.

A thin, checked layer over the Dynamixel SDK. What the SDK keeps to itself is an error here: a failed read raises and
never returns an old or a zero value, a hardware error is seen in every answer, a late answer is not taken for the next
one, an unplugged adapter can be opened again. Everything is in ticks and the registers' units, signs converted.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from dynamixel_sdk.protocol2_packet_handler import PKT_ERROR, PKT_LENGTH_L, PKT_PARAMETER0, Protocol2PacketHandler
from dynamixel_sdk.robotis_def import COMM_RX_CORRUPT, COMM_RX_TIMEOUT, COMM_SUCCESS

from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.control_table import MODELS, HardwareError, Register, model_name
from hiwm_rig.dynamixel.port import BusError, NoPortError, PortError, PortGoneError, SteadyPort, port_errors
from hiwm_rig.hardware import Motor

__all__ = [
    "AnswerError",
    "Bus",
    "BusError",
    "GarbledError",
    "NoPortError",
    "PortError",
    "PortGoneError",
    "Present",
    "RefusedError",
    "WrongServoError",
]

_ALERT = 0x80
_OVERHEAD = 4
"""Bytes of a status packet's length field beside its data: instruction, error, CRC."""
_ID = 4
_QUIET_S = 0.01
_ATTEMPTS = 3
"""Tries of a transaction that can be repeated without harm: one lost answer must not undo a whole connecting."""
_COUNTERS = (
    "transactions",
    "failed_transactions",
    "repeated_transactions",
    "dropped_bytes",
    "dropped_packets",
)
_REASONS = {
    2: "it does not know the instruction",
    4: "the value is out of range, or its bus watchdog has stopped it",
    5: "the data has the wrong length",
    6: "the value is beyond its limit",
    7: "the register cannot be read or written now",
}


class AnswerError(BusError):
    """A servo does not answer, or not intelligibly.

    Attributes:
        servo: its id; None where it cannot be told.
    """

    def __init__(self, message: str, servo: int | None) -> None:
        super().__init__(message)
        self.servo = servo


class GarbledError(AnswerError):
    """A servo's answer was damaged on its way."""


class RefusedError(BusError):
    """A servo refused an instruction."""


class WrongServoError(BusError):
    """Another servo than the rig file says: nothing that waiting would cure."""


@dataclass(frozen=True)
class Present:
    """What all servos report, in the order of the motors.

    Attributes:
        current: (N,) units of :data:`~hiwm_rig.dynamixel.control_table.PRESENT_CURRENT`.
        velocity: (N,) units of ``PRESENT_VELOCITY``.
        position: (N,) ticks.
        alerts: ids of the servos with a hardware error.
    """

    current: npt.NDArray[np.int64]
    velocity: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    alerts: tuple[int, ...]


_T = TypeVar("_T")
_FIELDS = np.dtype([("current", "<i2"), ("velocity", "<i4"), ("position", "<i4")])


class Bus:
    """The servos of one port. Thread-safe: one lock around each transaction.

    Use as a context manager, or call :meth:`open` and :meth:`close`.

    Args:
        port: device.
        baud: bits per second.
        motors: the servos, in the order of every array here.
        latency_ms: latency timer of the USB adapter.
    """

    def __init__(self, port: str, baud: int, motors: Sequence[Motor], latency_ms: float = 16.0) -> None:
        self.motors = tuple(motors)
        self.ids = tuple(m.id for m in motors)
        self.fast = False
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        self._port = SteadyPort(port, baud, latency_ms)
        self._sdk = Protocol2PacketHandler()
        self._lock = threading.RLock()
        self._joints = {m.id: m.joint for m in motors}

    def __enter__(self) -> Bus:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return bool(self._port.is_open)

    def open(self) -> None:
        """Open the port for this process alone.

        Raises:
            PortError: it is not there, or in use.
        """
        with self._lock:
            self._port.open_exclusively()
            self._port.is_using = False

    def close(self) -> None:
        """Close the port; the servos stay as they are, until their bus watchdogs stop them."""
        with self._lock:
            self._port.close_quietly()

    # -- one servo ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Ping every servo; find out whether all of them know Fast Sync Read.

        Raises:
            AnswerError: one does not answer, or two have one id.
            WrongServoError: one is of another model than the rig file says.
        """
        silent: list[Motor] = []
        garbled: list[Motor] = []
        for motor in self.motors:
            try:
                self._patiently(partial(self._check_model, motor))
            except GarbledError:
                garbled.append(motor)
            except AnswerError:
                silent.append(motor)
        if len(silent) == len(self.motors):
            raise AnswerError(
                f"{self._port.port_name}: no servo answers at {self._port.baudrate} baud: check the power supply, the "
                "cable, and the baud rate of the servos",
                None,
            )
        if silent:
            raise AnswerError(f"{self._names(silent)}: no answer: check the cable and the id", silent[0].id)
        if garbled:
            raise GarbledError(
                f"{self._names(garbled)}: garbled answers: do two servos have the same id, or is a cable loose?",
                garbled[0].id,
            )
        self.fast = False
        self.fast = min(self.read_all(table.FIRMWARE)) >= table.FAST_SYNC_READ_FIRMWARE

    def _check_model(self, motor: Motor) -> None:
        with self._transaction(motor.id) as (sdk, port):
            number, result, _ = sdk.ping(port, motor.id)
            self._judge(result, motor.id)
        if number != MODELS[motor.model].number:
            raise WrongServoError(
                f"{self._names([motor])} is a {model_name(number)}, the rig file says {motor.model}: "
                "correct the rig file, or the servo's id"
            )

    def read(self, servo: int, register: Register, attempts: int = _ATTEMPTS) -> int:
        """A register's value; asked for again where no usable answer comes.

        Raises:
            AnswerError, RefusedError, PortError.
        """

        def once() -> bytes:
            with self._transaction(servo) as (sdk, port):
                self._judge(sdk.readTx(port, servo, register.address, register.size), servo)
                return self._receive(servo, register.size)[0]

        return register.decode(self._patiently(once, attempts))

    def write(self, servo: int, register: Register, value: int) -> None:
        """Write a register and wait for the servo's answer; written again where none comes.

        Raises:
            AnswerError, RefusedError, PortError.
        """
        data = list(register.encode(value))

        def once() -> None:
            with self._transaction(servo) as (sdk, port):
                self._judge(sdk.writeTxOnly(port, servo, register.address, register.size, data), servo)
                port.setPacketTimeout(11)
                self._receive(servo, 0)

        self._patiently(once)

    def reboot(self, servo: int) -> None:
        """Restart a servo: clears its hardware error; its torque is off afterwards. It is deaf for about 0.3 s.

        Raises:
            AnswerError, PortError.
        """
        with self._transaction(servo) as (sdk, port):
            result, _ = sdk.reboot(port, servo)
            self._judge(result, servo)

    # -- all servos ---------------------------------------------------------------------------------------------

    def present(self) -> Present:
        """Current, velocity and position of all servos, in one transaction.

        Raises:
            AnswerError: of the first servo without a usable answer. Nothing old is returned instead.
        """
        answers = self._read_all_once(table.PRESENT)
        rows = np.frombuffer(b"".join(data for data, _ in answers), _FIELDS)
        alerts = tuple(i for i, (_, error) in zip(self.ids, answers, strict=True) if error & _ALERT)
        current, velocity, position = (rows[name].astype(np.int64) for name in ("current", "velocity", "position"))
        return Present(current, velocity, position, alerts)

    def read_all(self, register: Register) -> list[int]:
        """A register's values of all servos, in one transaction; asked for again where no usable answer comes.

        Raises:
            AnswerError, RefusedError, PortError.
        """
        return [register.decode(data) for data, _ in self._patiently(lambda: self._read_all_once(register))]

    def hardware_errors(self) -> dict[int, HardwareError]:
        """Servo id -> its hardware errors, of the servos that have any.

        Raises:
            AnswerError, PortError.
        """
        errors = zip(self.ids, self.read_all(table.HARDWARE_ERROR), strict=True)
        return {servo: HardwareError(error) for servo, error in errors if error}

    def write_all(self, register: Register, values: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Write a register of all servos at once. No servo answers: what they make of it is read, not known.

        Raises:
            PortError: the port has gone.
        """
        parameters: list[int] = []
        for servo, value in zip(self.ids, values, strict=True):
            parameters += [servo, *register.encode(int(value))]
        with self._transaction(None) as (sdk, port):
            self._judge(sdk.syncWriteTxOnly(port, register.address, register.size, parameters, len(parameters)), None)

    # -- transactions -------------------------------------------------------------------------------------------

    def _patiently(self, transaction: Callable[[], _T], attempts: int = _ATTEMPTS) -> _T:
        """Repeat a transaction that got no usable answer."""
        for _ in range(attempts - 1):
            try:
                return transaction()
            except AnswerError:
                self.counters["repeated_transactions"] += 1
        return transaction()

    def _read_all_once(self, register: Register) -> list[tuple[bytes, int]]:
        """(data, error byte) of every servo."""
        address, size = register.address, register.size
        with self._transaction(None) as (sdk, port):
            self._judge(sdk.syncReadTx(port, address, size, list(self.ids), len(self.ids), self.fast), None)
            return self._receive_fast(size) if self.fast else [self._receive(i, size) for i in self.ids]

    @contextlib.contextmanager
    def _transaction(self, servo: int | None) -> Iterator[tuple[Protocol2PacketHandler, SteadyPort]]:
        with self._lock:
            if not self._port.is_open:
                raise PortError(f"{self._port.port_name}: the port is closed")
            self.counters["transactions"] += 1
            try:
                with port_errors(self._port.port_name):
                    yield self._sdk, self._port
            except AnswerError:
                self.counters["failed_transactions"] += 1
                with port_errors(self._port.port_name):
                    # What is still on its way must not be taken for the answer to the next instruction.
                    self.counters["dropped_bytes"] += self._port.wait_quiet(_QUIET_S)
                raise
            except PortError:
                self.counters["failed_transactions"] += 1
                raise
            finally:
                self._port.is_using = False  # the SDK forgets to, where the port fails

    def _receive(self, servo: int, size: int) -> tuple[bytes, int]:
        """(data, error byte) of a servo's answer of so many bytes; answers to older questions are dropped.

        Raises:
            AnswerError, RefusedError.
        """
        while True:
            packet, result = self._sdk.rxPacket(self._port, False)
            self._judge(result, servo)
            length = packet[PKT_LENGTH_L] | packet[PKT_LENGTH_L + 1] << 8
            refused = packet[PKT_ERROR] & ~_ALERT
            if packet[_ID] == servo and (length == size + _OVERHEAD or refused):
                break
            self.counters["dropped_packets"] += 1
        if refused:
            raise RefusedError(f"{self._name(servo)} refused: {_REASONS.get(refused, f'error {refused}')}")
        return bytes(packet[PKT_PARAMETER0 + 1 : PKT_PARAMETER0 + 1 + size]), packet[PKT_ERROR]

    def _receive_fast(self, size: int) -> list[tuple[bytes, int]]:
        step = size + 4  # error, id, data, CRC
        data, result, _ = self._sdk.fastSyncReadRx(self._port, table.BROADCAST_ID, step * len(self.ids))
        self._judge(result, None)
        parts = [bytes(data[k : k + step]) for k in range(0, step * len(self.ids), step)]
        if [p[1] if len(p) > 1 else None for p in parts] != list(self.ids):
            raise GarbledError("garbled answer to a fast sync read: is a cable loose?", None)
        return [(p[2 : 2 + size], p[0]) for p in parts]

    def _judge(self, result: int, servo: int | None) -> None:
        if result == COMM_SUCCESS:
            return
        who = "the servos" if servo is None else self._name(servo)
        if result == COMM_RX_TIMEOUT:
            raise AnswerError(f"{who}: no answer: check the cable and the power supply", servo)
        if result == COMM_RX_CORRUPT:
            raise GarbledError(f"{who}: garbled answer: do two servos have the same id, or is a cable loose?", servo)
        raise AnswerError(f"{who}: {self._sdk.getTxRxResult(result)}", servo)

    def _name(self, servo: int) -> str:
        return f"servo {servo} ({self._joints.get(servo, 'not in the rig file')})"

    def _names(self, motors: Sequence[Motor]) -> str:
        return ", ".join(self._name(m.id) for m in motors)
