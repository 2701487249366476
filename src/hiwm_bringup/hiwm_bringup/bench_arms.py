"""Measurements of the arms' drivers on emulated servos: the drivers are real, wire and servos are not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hiwm_rig.contract import load_rig
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import AnswerError, Bus
from hiwm_rig.dynamixel.configure import switch_torque
from hiwm_rig.types import Driver
from tqdm import tqdm

from hiwm_bringup.arm_session import ArmSession, arm_nodes
from hiwm_bringup.bench import Figures, percentiles
from hiwm_bringup.processes import child_setup
from hiwm_bringup.testing import graph, unique_domain, wait_until

if TYPE_CHECKING:
    from hiwm_bringup.bench import BenchOptions

_CYCLES_PER_REPEAT = 30
_START_S = 90.0
_REST_S = 0.4
_ARRIVED_RAD = 0.01
_UNDISTURBED_S = 0.1
_FAULTS = ("unplug", "missing 3", "crc 5", "late 2 0.2")


@contextmanager
def emulated_port_of(rig_file: str, folder: Path) -> Iterator[Path]:
    """The port of an emulated follower arm in a process of its own, for the length of the block."""
    link = folder / "arm"
    command = [sys.executable, "-m", "hiwm_bringup.cli", "emulate", "arm", "--rig-file", rig_file, "--link", str(link)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=child_setup())
    try:
        wait_until(link.exists, 60, "the emulated arm")
        yield link
    finally:
        process.terminate()
        process.wait(10)


def measure_cycle(options: BenchOptions) -> Figures:
    """Cycles of one sync read and one sync write of all servos, as fast as they go."""
    hardware = load_rig(options.rig_file).arms[0].hardware
    if hardware is None:
        raise ValueError(f"rig file {options.rig_file}: the first arm has no section hardware")
    config = hardware.follower
    with (
        tempfile.TemporaryDirectory(prefix="hiwm_bench_") as folder,
        emulated_port_of(options.rig_file, Path(folder)) as port,
        Bus(str(port), config.baud, config.motors, config.latency_ms) as bus,
    ):
        bus.check()
        switch_torque(bus, True)
        goals = bus.present().position
        took = []
        for k in range(_CYCLES_PER_REPEAT * options.repeats):
            start = time.perf_counter()
            with contextlib.suppress(AnswerError):  # counts as a slow cycle: the time-out is part of its time
                bus.present()
                bus.write_all(table.GOAL_POSITION, goals + k % 50)
            took.append(1e3 * (time.perf_counter() - start))
    return {"dxl_cycle_hz": round(1e3 / float(np.mean(took)), 1), "dxl_cycle_ms": percentiles(took)}


@contextmanager
def arm_session(options: BenchOptions) -> Iterator[ArmSession]:
    """The physical rig's arms with their leaders, emulated, and a person in control of them."""
    rig = load_rig(options.rig_file)
    with unique_domain() as domain, graph(arm_nodes(f"rig_file:={options.rig_file}"), domain) as supervisor:
        session = ArmSession(rig, domain, streams=False)
        try:
            session.until(lambda: supervisor.poll() and session.started, "the arms", _START_S)
            session.ask(Driver.HUMAN)
            yield session
        finally:
            session.close()


def measure_leader(options: BenchOptions) -> Figures:
    """Milliseconds from a hand's motion at the leader to the first changed goal that a follower's servo receives.

    Both moments are taken inside the emulators, on one clock: reading, arbiter, DDS and both buses are in between.
    """
    rng = np.random.default_rng(0)
    delays = []
    with arm_session(options) as session:
        for i in tqdm(range(options.repeats), desc="leader motions", leave=False):
            session.probe.spin_for(_REST_S + float(rng.uniform(0, 0.02)))
            if session.control[-1].driver != Driver.HUMAN:
                session.ask(Driver.HUMAN)
                session.probe.spin_for(_REST_S)
            target = 0.2 if i % 2 else -0.2
            session.hand(0, target)
            session.probe.spin_for(_UNDISTURBED_S)  # an emulator that is asked is a little late with its answers
            arrived = partial(_is_at, session, target)
            session.until(arrived, "the follower")
            began = session.servos("leader")[1]["moved_by_hand_at"]
            delays.append(1e3 * (session.servos("follower")[1]["goal_began_at"] - began))
    return {"leader_to_follower_ms": percentiles(delays)}


def _is_at(session: ArmSession, angle: float) -> bool:
    return abs(session.servo_angle(0) - angle) < _ARRIVED_RAD


def measure_faults(options: BenchOptions) -> Figures:
    """Milliseconds from a fault of the follower's bus to ``/diagnostics`` and to the operator's control state."""
    told: list[float] = []
    paused: list[float] = []
    with arm_session(options) as session:
        name = session.arm.name
        for i in tqdm(range(max(8, options.repeats // 4)), desc="faults", leave=False):
            session.ask(Driver.HUMAN)
            session.probe.spin_for(_REST_S)
            session.diagnostics.clear()
            start = time.monotonic()
            session.order("follower", _FAULTS[i % len(_FAULTS)])
            session.until(lambda: 2 in session.levels(name), "diagnostics")
            told.append(1e3 * (time.monotonic() - start))
            session.drives(Driver.PAUSED)
            paused.append(1e3 * (time.monotonic() - start))
            session.order("follower", "clear")
            session.order("follower", "replug")
            session.healthy()
    return {"fault_report_ms": {"diagnostics": percentiles(told), "operator": percentiles(paused)}}
