"""The bus against emulated servos: what the SDK would keep quiet about is an error, and every fault heals."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hiwm_rig.contract import load_rig
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import AnswerError, Bus, PortError, Present, RefusedError, WrongServoError
from hiwm_rig.dynamixel.control_table import HardwareError, OperatingMode
from hiwm_rig.dynamixel.emulated_servo import EmulatedServo
from hiwm_rig.dynamixel.emulator import Emulator
from hiwm_rig.dynamixel.packets import PacketError
from hiwm_rig.dynamixel.testing import EmulatedArm, emulated_arm

ARM = load_rig("push_t").arms[0]
assert ARM.hardware is not None
MOTORS = ARM.hardware.follower.motors


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[EmulatedArm, Emulator]]:
    with emulated_arm(ARM, tmp_path) as running:
        yield running


@pytest.fixture
def arm(both: tuple[EmulatedArm, Emulator]) -> EmulatedArm:
    return both[0]


@pytest.fixture
def emulator(both: tuple[EmulatedArm, Emulator]) -> Emulator:
    return both[1]


@pytest.fixture
def bus(arm: EmulatedArm) -> Iterator[Bus]:
    with Bus(arm.port, 1_000_000, MOTORS) as opened:
        opened.check()
        yield opened


def present(bus: Bus) -> Present:
    """A reading of a healthy bus; on a stalled machine the first answers may come too late."""
    for _ in range(10):
        with contextlib.suppress(AnswerError):
            return bus.present()
    return bus.present()


def torque_on(bus: Bus) -> None:
    for servo in bus.ids:
        bus.write(servo, table.TORQUE_ENABLE, 1)


@pytest.mark.parametrize("firmware", [44, 48])
def test_goals_written_to_all_servos_are_what_they_move_to(tmp_path: Path, firmware: int) -> None:
    with emulated_arm(ARM, tmp_path, firmware=firmware) as (arm, _), Bus(arm.port, 1_000_000, MOTORS) as bus:
        bus.check()
        assert bus.fast == (firmware >= table.FAST_SYNC_READ_FIRMWARE)
        torque_on(bus)
        goals = present(bus).position + np.array([40, -40, 30, 20, -10, 5, 60])
        bus.write_all(table.GOAL_POSITION, goals)
        deadline = time.monotonic() + 5
        while not np.array_equal(present(bus).position, goals) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert present(bus).position.tolist() == goals.tolist()
        assert not present(bus).alerts


def test_signs_are_converted_both_ways(arm: EmulatedArm, emulator: Emulator, bus: Bus) -> None:
    servo = emulator.bus.servos[7]
    servo.set(table.GOAL_CURRENT, -5)
    assert bus.read(7, table.GOAL_CURRENT) == -5
    bus.write(7, table.GOAL_VELOCITY, -7)
    assert servo.get(table.GOAL_VELOCITY) == -7
    arm.order("hand 7 -50")  # moves below zero, backwards
    seen = [present(bus)]
    deadline = time.monotonic() + 5
    while seen[-1].position[6] != -50 and time.monotonic() < deadline:
        seen.append(present(bus))
    assert seen[-1].position[6] == -50
    assert min(p.velocity[6] for p in seen) < 0


@pytest.mark.parametrize("firmware", [44, 48])
@pytest.mark.parametrize(
    ("order", "text"), [("missing 3", "no answer"), ("crc 3", "garbled"), ("duplicate 3", "garbled|no answer")]
)
def test_a_faulty_servo_is_an_error_never_an_old_value_and_heals(
    tmp_path: Path, firmware: int, order: str, text: str
) -> None:
    with emulated_arm(ARM, tmp_path, firmware=firmware) as (arm, _), Bus(arm.port, 1_000_000, MOTORS) as bus:
        bus.check()
        present(bus)
        arm.order(order)
        start = time.monotonic()
        with pytest.raises(AnswerError, match=text):
            bus.present()
        assert time.monotonic() - start < 1.0, "it gives up by itself"
        with pytest.raises(AnswerError, match=r"servo 3 \(elbow\)"):
            bus.check()
        arm.order("clear")
        assert len(present(bus).position) == len(MOTORS)


def test_a_late_answer_is_not_taken_for_the_next_one(arm: EmulatedArm, emulator: Emulator, bus: Bus) -> None:
    arm.order("late 2 0.039")  # after the SDK's time-out, while the line is being watched for stragglers
    with pytest.raises(AnswerError):
        bus.read(2, table.PRESENT_POSITION, attempts=1)
    arm.order("clear")
    emulator.bus.servos[2].set(table.GOAL_CURRENT, 77)
    assert bus.read(2, table.GOAL_CURRENT) == 77
    assert bus.counters["dropped_bytes"] + bus.counters["dropped_packets"] > 0


def test_a_straggler_of_another_length_is_dropped_even_when_it_comes_inside_the_next_answer(
    arm: EmulatedArm, bus: Bus
) -> None:
    for _ in range(5):  # on a busy machine the straggler may come before the next question, which clears it away
        arm.order("late 2 0.06")
        with pytest.raises(AnswerError):
            bus.read(2, table.PRESENT_POSITION, attempts=1)
        arm.order("late 2 0.03")  # the straggler arrives first, then the answer
        assert bus.read(2, table.PRESENT_TEMPERATURE) == 30
        if bus.counters["dropped_packets"]:
            break
    assert bus.counters["dropped_packets"] + bus.counters["dropped_bytes"] > 0


def test_a_lost_answer_is_asked_for_again(bus: Bus, emulator: Emulator) -> None:
    feed, lose = emulator.bus.feed, [True, True]
    emulator.bus.feed = lambda data, now: feed(data, now) if not lose or not lose.pop() else []  # type: ignore[method-assign]
    assert bus.read(3, table.PRESENT_TEMPERATURE) == 30
    assert bus.counters["repeated_transactions"] == 2
    assert bus.read_all(table.ID) == list(bus.ids)


def test_a_hardware_error_is_seen_in_every_reading_and_cleared_by_a_reboot(arm: EmulatedArm, bus: Bus) -> None:
    torque_on(bus)
    arm.order("overload 4")
    assert present(bus).alerts == (4,)
    assert bus.hardware_errors() == {4: HardwareError.OVERLOAD}
    bus.write(4, table.TORQUE_ENABLE, 1)
    assert bus.read(4, table.TORQUE_ENABLE) == 0, "torque stays off until the reboot"
    bus.reboot(4)
    assert present(bus).alerts == ()
    bus.write(4, table.TORQUE_ENABLE, 1)
    assert bus.read(4, table.TORQUE_ENABLE) == 1


def test_the_watchdog_stops_servos_whose_computer_has_died(arm: EmulatedArm, bus: Bus) -> None:
    torque_on(bus)
    for servo in bus.ids:
        bus.write(servo, table.BUS_WATCHDOG, 2)
    bus.write_all(table.PROFILE_VELOCITY, [20] * len(bus.ids))
    goals = present(bus).position + 500
    bus.write_all(table.GOAL_POSITION, goals)
    time.sleep(0.3)  # nobody speaks
    stopped = arm.state()
    assert all(s["watchdog"] == table.WATCHDOG_TRIPPED for s in stopped.values())
    assert all(s["position"] < g - 100 for s, g in zip(stopped.values(), goals, strict=True))
    time.sleep(0.1)
    assert [s["position"] for s in arm.state().values()] == [s["position"] for s in stopped.values()]
    with pytest.raises(RefusedError, match="watchdog"):
        bus.write(1, table.GOAL_POSITION, int(goals[0]))
    bus.write(1, table.BUS_WATCHDOG, 0)
    bus.write(1, table.GOAL_POSITION, int(goals[0]))


def test_unplugging_is_a_port_error_and_a_replugged_port_opens_again(arm: EmulatedArm, bus: Bus) -> None:
    arm.order("unplug")
    with pytest.raises(PortError, match="plug the USB adapter in again"):
        bus.present()
    bus.close()
    with pytest.raises(PortError, match="no such port"):
        bus.open()
    arm.order("replug")
    bus.open()
    bus.check()
    assert len(present(bus).position) == len(MOTORS)


def test_only_one_process_may_own_a_port(arm: EmulatedArm, bus: Bus) -> None:
    with pytest.raises(PortError, match="in use by another process"):
        Bus(arm.port, 1_000_000, MOTORS).open()
    present(bus)


def test_at_a_wrong_baud_rate_no_servo_answers_and_the_message_names_it(arm: EmulatedArm) -> None:
    with Bus(arm.port, 57600, MOTORS, latency_ms=2) as bus, pytest.raises(AnswerError, match="at 57600 baud"):
        bus.check()


def test_a_servo_of_another_model_is_named_with_both_models(arm: EmulatedArm) -> None:
    wrong = [m.model_copy(update={"model": "XM540-W270"}) if m.id == 2 else m for m in MOTORS]
    with (
        Bus(arm.port, 1_000_000, wrong) as bus,
        pytest.raises(WrongServoError, match=r"servo 2 \(shoulder\) is a XM430-W350, the rig file says XM540-W270"),
    ):
        bus.check()


@pytest.mark.parametrize(
    ("port", "text"), [("/dev/no_such_port", "no such port"), ("", "no serial port is given"), ("/dev/null", "cannot")]
)
def test_a_port_that_is_none_says_what_to_do(port: str, text: str) -> None:
    with pytest.raises(PortError, match=text):
        Bus(port, 1_000_000, MOTORS).open()


def test_the_emulated_servo_refuses_what_a_real_one_refuses() -> None:
    servo = EmulatedServo(1, table.MODELS["XM430-W350"])
    goal = table.GOAL_POSITION
    servo.write(table.TORQUE_ENABLE.address, b"\x01")
    assert servo.write(goal.address, goal.encode(5000)) == PacketError.DATA_LIMIT
    assert servo.write(table.OPERATING_MODE.address, b"\x05") == PacketError.ACCESS
    assert servo.write(table.PRESENT_POSITION.address, goal.encode(1)) == PacketError.ACCESS
    servo.write(table.TORQUE_ENABLE.address, b"\x00")
    assert servo.write(table.OPERATING_MODE.address, bytes([OperatingMode.CURRENT_BASED_POSITION])) == PacketError.NONE


def test_an_emulated_joint_keeps_its_velocity_limit() -> None:
    servo = EmulatedServo(1, replace(table.MODELS["XM430-W350"], max_velocity=2.0))
    servo.write(table.TORQUE_ENABLE.address, b"\x01")
    servo.write(table.GOAL_POSITION.address, table.GOAL_POSITION.encode(4000))
    servo.advance(0.5)
    assert servo.get(table.PRESENT_POSITION) - 2048 <= 2.0 * 0.5 / table.RAD_PER_TICK + 1
    servo.advance(5.0)
    assert servo.get(table.PRESENT_POSITION) == 4000
