"""The thread that owns a bus: connects, reads and writes at a fixed rate, notices faults, connects again. No ROS.

What is written is the part's affair (:class:`Part`): a follower obeys commands, a leader mirrors or is free. While the
bus is at fault nothing new is asked of the servos: they hold what they were last told, and their watchdogs stop them
where even that is cut off. While a servo has a hardware error, the others are told to hold.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import (
    AnswerError,
    Bus,
    BusError,
    NoPortError,
    PortError,
    PortGoneError,
    Present,
    RefusedError,
)
from hiwm_rig.dynamixel.control_table import HardwareError
from hiwm_rig.hardware import ServoBus

_COUNTERS = ("cycles", "missed_cycles", "failed_cycles", "faults", "connections", "watchdog_rearmed")
_RETRY_S = 0.2
_FAULT_AFTER_S = 0.06
"""A bus that has been silent for this long is a fault, not a glitch. An answer is given up after about 45 ms with the
default latency of a USB adapter, so the second one in a row that is missing, after 0.1 s."""
_REBOOT_S = 0.5
"""A servo is deaf for about 0.3 s after a reboot."""
_REARM = 0.8
"""Fraction of the watchdog's time after which a late cycle takes it for tripped."""
_LONGEST_STEP_S = 0.02
"""A late cycle may not buy a larger step than this long a one."""
_ASK_EVERY = 20
"""Cycles between two looks at a servo's watchdog; one servo after the other."""


class LoopState(StrEnum):
    """What the loop is doing."""

    CONNECTING = "connecting"
    RUNNING = "running"
    BUS_FAULT = "bus fault"
    HARDWARE_ERROR = "hardware error"


@dataclass(frozen=True)
class LoopStatus:
    """State and a sentence for people: what is wrong and what to do; empty while running."""

    state: LoopState
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the arm can be used."""
        return self.state is LoopState.RUNNING


class Part(Protocol):
    """What is at the other end of the bus. Everything is called in the loop's thread."""

    def attach(self, bus: Bus) -> None:
        """The servos answer: configure them, start from where they are.

        Raises:
            BusError: they cannot be used.
        """
        ...

    def step(self, bus: Bus, present: Present, dt_s: float) -> None:
        """One cycle, after the reading: write what the servos shall do; ``dt_s`` seconds after the last one.

        Raises:
            BusError: as the bus does.
        """
        ...

    def hold(self, bus: Bus, present: Present, resume: bool) -> None:
        """One cycle in which nothing may move: hold where the arm was when this began, and start from there again.

        Args:
            bus: open.
            present: what the servos report.
            resume: whether only time was lost, and what was under way by itself may go on afterwards.

        Raises:
            BusError: as the bus does.
        """
        ...

    def let_go(self, bus: Bus) -> None:
        """The servos cannot all be used: where the arm is to be limp, tell those that still listen.

        Raises:
            BusError: as the bus does.
        """
        ...


class ServoLoop:
    """Runs a part on its bus.

    Args:
        bus: closed; owned by the loop from now on.
        config: rate and watchdog.
        part: see :class:`Part`.
        on_status: called in the loop's thread whenever the status changes; must return at once.
        restart_by: what a person does to restart a servo with a hardware error, for messages.
    """

    def __init__(
        self,
        bus: Bus,
        config: ServoBus,
        part: Part,
        on_status: Callable[[LoopStatus], None],
        restart_by: str = "restart it",
    ) -> None:
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        self.status = LoopStatus(LoopState.CONNECTING)
        self._bus = bus
        self._part = part
        self._period_s = 1.0 / config.rate_hz
        self._watchdog_s = config.watchdog_s
        self._watchdog_units = max(1, round(config.watchdog_s / table.WATCHDOG_UNIT_S))
        self._on_status = on_status
        self._restart_by = restart_by
        self._stop = threading.Event()
        self._recover = threading.Event()
        self._thread = threading.Thread(target=self._run, name="servo loop", daemon=True)
        self._last_good = self._last_cycle = 0.0
        self._failure: BaseException | None = None

    def start(self, connect_s: float, wanted: Callable[[], bool] = lambda: True) -> None:
        """Connect, then run in a thread of its own.

        Args:
            connect_s: how long port and servos may take to appear.
            wanted: whether to go on waiting for them; False after Ctrl-C.

        Raises:
            BusError: they did not, or they are not what the rig file says; the text says what to do.
        """
        deadline = time.monotonic() + connect_s
        while True:
            try:
                self._connect()
                break
            except BusError as error:
                self._bus.close()
                if not _may_heal(error) or not wanted() or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the port; the servos' watchdogs stop them."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        self._bus.close()

    @property
    def last_cycle_age_s(self) -> float:
        """Seconds since the last cycle began; large where the thread hangs, or the bus is at fault."""
        return time.monotonic() - self._last_cycle

    def recover(self) -> bool:
        """Ask for the servos with a hardware error to be restarted; False where there are none."""
        if self.status.state is LoopState.HARDWARE_ERROR:
            self._recover.set()
        return self._recover.is_set()

    def raise_failure(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._bus.is_open:
                    self._cycle_until_fault()
                else:
                    self._try_to_connect()
        except BaseException as error:  # a defect: whoever owns the loop raises it where it is seen
            self._failure = error
            self.status = LoopStatus(LoopState.BUS_FAULT, f"the driver has failed: {error!r}")

    def _try_to_connect(self) -> None:
        try:
            self._connect()
        except BusError as error:
            self._let_go()
            self._bus.close()
            self._set(LoopState.BUS_FAULT, str(error))
            self._stop.wait(_RETRY_S)

    def _let_go(self) -> None:
        if self._bus.is_open:
            with contextlib.suppress(BusError):  # the fault itself is being told
                self._part.let_go(self._bus)

    def _connect(self) -> None:
        self._bus.open()
        self._bus.check()
        if self._recover.is_set():
            self._restart_failed_servos()
        self._part.attach(self._bus)
        self._arm_watchdog()
        self.counters["connections"] += 1
        self._last_good = self._last_cycle = time.monotonic()
        if errors := self._bus.hardware_errors():
            self._set(LoopState.HARDWARE_ERROR, self._hardware_text(errors))
        else:
            self._recover.clear()
            self._set(LoopState.RUNNING, "")

    def _restart_failed_servos(self) -> None:
        failed = self._bus.hardware_errors()
        for servo in failed:
            self._bus.reboot(servo)
        self._recover.clear()
        if failed:
            self._stop.wait(_REBOOT_S)

    def _arm_watchdog(self) -> None:
        self._bus.write_all(table.BUS_WATCHDOG, [0] * len(self._bus.ids))  # clears one that has tripped
        self._bus.write_all(table.BUS_WATCHDOG, [self._watchdog_units] * len(self._bus.ids))

    def _cycle_until_fault(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if not self._cycle():
                return
            due += self._period_s
            late = time.monotonic() - due
            if late > self._period_s:
                skipped = int(late / self._period_s)
                self.counters["missed_cycles"] += skipped
                due += skipped * self._period_s
            elif late < 0:
                self._stop.wait(-late)

    def _cycle(self) -> bool:
        """One reading and one writing; False where the port has to be opened again."""
        now = time.monotonic()
        dt, self._last_cycle = now - self._last_cycle, now
        try:
            present = self._bus.present()
            if dt > _REARM * self._watchdog_s:
                self._rearm(present)
            elif present.alerts:
                self._on_alert(present)
            elif not self.status.ok or not self._still_armed(present):
                self._bus.close()  # somebody restarted a servo: begin anew
                return False
            else:
                self._part.step(self._bus, present, min(dt, _LONGEST_STEP_S))
        except (AnswerError, RefusedError) as error:
            self.counters["failed_cycles"] += 1
            if time.monotonic() - self._last_good <= _FAULT_AFTER_S and not isinstance(error, RefusedError):
                return True
            self._fault(error)
            return False
        except PortError as error:
            self._fault(error)
            return False
        self.counters["cycles"] += 1
        self._last_good = time.monotonic()
        return True

    def _still_armed(self, present: Present) -> bool:
        """Ask one servo now and then what became of its watchdog: goals that it refuses, it refuses silently.

        False where the servo has lost its settings: it was without power for a moment, and has no torque.
        """
        turn, rest = divmod(self.counters["cycles"], _ASK_EVERY)
        if rest:
            return True
        armed = self._bus.read(self._bus.ids[turn % len(self._bus.ids)], table.BUS_WATCHDOG, attempts=1)
        if armed == table.WATCHDOG_TRIPPED:
            self._rearm(present)
        return armed in (self._watchdog_units, table.WATCHDOG_TRIPPED)

    def _rearm(self, present: Present) -> None:
        """The servos have stopped, or may have, because a cycle came late: start from where they are."""
        self.counters["watchdog_rearmed"] += 1
        self._bus.write_all(table.BUS_WATCHDOG, [0] * len(self._bus.ids))
        self._part.hold(self._bus, present, resume=True)
        self._arm_watchdog()

    def _on_alert(self, present: Present) -> None:
        if self.status.state is not LoopState.HARDWARE_ERROR:
            self.counters["faults"] += 1
            self._set(LoopState.HARDWARE_ERROR, self._hardware_text(self._bus.hardware_errors()))
        if self._recover.is_set():
            raise AnswerError("restarting servos", None)  # connects anew, and reboots them on the way
        self._part.hold(self._bus, present, resume=False)

    def _fault(self, error: BusError) -> None:
        self.counters["faults"] += 1
        self._bus.close()
        self._set(LoopState.BUS_FAULT, str(error))

    def _hardware_text(self, errors: dict[int, HardwareError]) -> str:
        joints = {m.id: m.joint for m in self._bus.motors}
        named = [
            f"servo {servo} ({joints[servo]}): {' and '.join((f.name or str(f.value)).lower() for f in error)}"
            for servo, error in errors.items()
        ]
        return f"{'; '.join(named)}; its torque is off: remove the cause, then {self._restart_by}"

    def _set(self, state: LoopState, message: str) -> None:
        status = LoopStatus(state, message)
        if status != self.status:
            self.status = status
            self._on_status(status)


def _may_heal(error: BusError) -> bool:
    """Whether waiting may help at the start: a port or servos that are not there yet."""
    return isinstance(error, AnswerError | NoPortError | PortGoneError)
