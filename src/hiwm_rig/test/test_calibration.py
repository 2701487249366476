"""Calibration by hand on an emulated arm: the rig file it writes makes the joints read what they are."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hiwm_rig.contract import load_rig
from hiwm_rig.dynamixel import calibration
from hiwm_rig.dynamixel.bus import Bus
from hiwm_rig.dynamixel.motor_map import MotorMap
from hiwm_rig.dynamixel.testing import EmulatedArm, emulated_arm

ARM = load_rig("push_t").arms[0]
assert ARM.hardware is not None
MOTORS = ARM.hardware.follower.motors
ZEROS = [2000, 2100, 2200, 1900, 2048, 2150, 1500]
CLI = [sys.executable, "-m", "hiwm_bringup.cli", "calibrate"]


def hold(arm: EmulatedArm, ticks: list[int]) -> None:
    for servo, value in enumerate(ticks, 1):
        arm.order(f"hand {servo} {value}")
    deadline = time.monotonic() + 10
    while [s["position"] for s in arm.state().values()] != ticks:
        assert time.monotonic() < deadline, "the hand"
        time.sleep(0.02)


def test_the_command_writes_a_rig_file_that_reads_the_joints_right(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    with emulated_arm(ARM, tmp_path) as (arm, _):
        process = subprocess.Popen(
            [*CLI, "--port", arm.port, "--out", str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin and process.stdout
        assert "torque" in process.stdout.readline()
        process.stdin.write("\n"), process.stdin.flush()
        assert "zero" in process.stdout.readline()
        hold(arm, ZEROS)
        process.stdin.write("\n"), process.stdin.flush()
        assert "from one end" in process.stdout.readline()
        hold(arm, [z - 1100 for z in ZEROS])
        hold(arm, [z + 1100 for z in ZEROS])
        time.sleep(0.1)
        answer, _ = process.communicate("\n", timeout=30)
    assert process.returncode == 0, answer
    rig = load_rig(out)
    hardware = rig.arms[0].hardware
    assert hardware is not None
    motor_map = MotorMap(hardware.follower.motors, rig.arms[0].joints)
    assert np.allclose(motor_map.joints(ZEROS), 0.0)
    limits = np.array([m.limits for m in hardware.follower.motors])
    assert np.allclose(limits, np.array([[z - 1090, z + 1090] for z in ZEROS]), atol=5)
    assert rig.model_copy(update={"arms": ()}) == load_rig("push_t").model_copy(update={"arms": ()})


def test_joints_that_nobody_moved_are_named(tmp_path: Path) -> None:
    with emulated_arm(ARM, tmp_path) as (arm, _), Bus(arm.port, 1_000_000, MOTORS) as bus:
        zero = calibration.read_zero(bus)
        travel = np.stack([zero, zero + 500], axis=1)
        travel[2, 1] = travel[2, 0] + 20
        with pytest.raises(calibration.CalibrationFailed, match=r"\['elbow'\] was hardly moved"):
            calibration.judge(bus, zero, travel)


def test_a_joint_that_passes_the_servo_s_zero_is_named(tmp_path: Path) -> None:
    with emulated_arm(ARM, tmp_path) as (arm, emulator), Bus(arm.port, 1_000_000, MOTORS) as bus:
        calibration.read_zero(bus)
        seen = threading.Event()

        def done() -> bool:
            if seen.is_set():
                emulator.bus.servos[4]._position -= 4000  # the ticks begin again
            seen.set()
            return False

        with pytest.raises(calibration.CalibrationFailed, match=r"forearm_roll.*half a turn"):
            calibration.record_travel(bus, done)


def test_without_an_arm_or_with_a_wrong_name_it_says_so(tmp_path: Path) -> None:
    for words, code, text in (
        (["--port", str(tmp_path / "none")], 1, "no such port"),
        (["--arm", "third"], 2, "no arm 'third'; it has"),
        (["--rig-file", "droid"], 2, "no section hardware.follower"),
    ):
        command = [*CLI, "--out", str(tmp_path / "x.yaml"), *words]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == code and text in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "x.yaml").exists()
