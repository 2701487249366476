"""The follower arm on emulated servos: inside its limits, from where it is, holding whenever something is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hiwm_rig.codecs import Chunk, chunk_to_trajectory
from hiwm_rig.contract import load_rig
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import Bus, BusError, WrongServoError
from hiwm_rig.dynamixel.emulated_bus import Reply
from hiwm_rig.dynamixel.emulator import Emulator, OrderError
from hiwm_rig.dynamixel.follower import Follower, FollowerMode, FollowerSample
from hiwm_rig.dynamixel.motor_map import CalibrationError, MotorMap
from hiwm_rig.dynamixel.servo_loop import LoopState, LoopStatus, ServoLoop
from hiwm_rig.dynamixel.testing import EmulatedArm, emulated_arm
from hiwm_rig.hardware import FollowerBus

pytest.importorskip("trajectory_msgs", reason="commands are ROS messages")
RIG = load_rig("push_t")
ARM = RIG.arms[0]
assert ARM.hardware is not None
CONFIG = ARM.hardware.follower.model_copy(update={"ramp_s": 0.2})
SLOW_START = CONFIG.model_copy(update={"ramp_s": 5.0})
HOME = np.array(ARM.home)
VMAX = np.array([j.max_velocity for j in ARM.joints])
WAIST = np.eye(7)[0]
TICK = 2e-3
"""A little more than one tick of the coarsest joint, rad."""


def wait(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.002)


class Running:
    """A follower on its loop, and what it reported."""

    def __init__(self, arm: EmulatedArm, emulator: Emulator, config: FollowerBus = CONFIG) -> None:
        self.arm = arm
        self.emulator = emulator
        self.samples: list[FollowerSample] = []
        self.statuses: list[tuple[float, LoopStatus]] = []
        self.follower = Follower(ARM, config, 0.3, time.time_ns, self.samples.append)
        bus = Bus(arm.port, config.baud, config.motors, config.latency_ms)
        self.loop = ServoLoop(bus, config, self.follower, lambda s: self.statuses.append((time.monotonic(), s)))

    @property
    def joints(self) -> np.ndarray:
        return self.samples[-1].positions

    def send(self, *rows: np.ndarray, step_s: float = 0.1) -> object:
        chunk = Chunk(time.time_ns(), step_s * np.arange(1, len(rows) + 1), np.array(rows))
        return self.follower.command(chunk_to_trajectory(ARM.joint_names, chunk), time.time_ns())

    def keep_sending(self, target: np.ndarray, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.send(target)
            time.sleep(0.02)

    def reach(self, target: np.ndarray, timeout_s: float = 10.0) -> None:
        def there() -> bool:
            self.send(target)
            time.sleep(0.01)
            return bool(np.allclose(self.joints, target, atol=TICK))

        wait(there, f"position {target}", timeout_s)

    def goals(self) -> np.ndarray:
        return np.array([s["goal"] for s in self.arm.state().values()])

    def state(self, state: LoopState) -> None:
        wait(lambda: self.loop.status.state is state, str(state))


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    with emulated_arm(ARM, folder) as (arm, emulator):
        run = Running(arm, emulator)
        run.loop.start(5.0)
        try:
            wait(lambda: bool(run.samples), "the first sample")
            yield run
        finally:
            run.loop.stop()
            run.loop.raise_failure()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as started:
        yield started


def test_it_obeys_single_points_and_comes_to_rest_on_them(run: Running) -> None:
    assert np.allclose(run.joints, HOME, atol=TICK), "nothing moves at the start"
    run.reach(HOME + [0.3, -0.1, 0.1, 0.2, -0.1, 0.2, 0.005])


def test_a_chunk_is_followed_in_time_between_its_points(run: Running) -> None:
    wait(lambda: len(run.samples) > 100, "the end of the ramp")
    first = len(run.samples)
    assert run.send(*(HOME + 0.1 * k * WAIST for k in range(1, 6)), step_s=0.1) is None
    start = time.time_ns()
    time.sleep(1.0)
    seen = run.samples[first:]
    times = np.array([(s.stamp_ns - start) / 1e9 for s in seen])
    position = np.array([s.positions[0] for s in seen]) - HOME[0]
    middle = (times > 0.15) & (times < 0.45)
    assert middle.sum() > 5
    assert np.abs(position[middle] - (times[middle] - 0.02)).max() < 0.08, "1 rad/s with the servos' lag"
    assert np.abs(position - 0.5).min() < TICK


def test_velocity_and_position_limits_hold_whatever_is_asked(run: Running) -> None:
    wait(lambda: len(run.samples) > 100, "the end of the ramp")
    first = len(run.samples)
    run.keep_sending(HOME + 2.5 * WAIST, 0.5)
    run.keep_sending(HOME - 2.5 * WAIST, 1.0)
    seen = run.samples[first:]
    stamps = np.array([s.stamp_ns for s in seen]) / 1e9
    moved = np.abs(np.diff([s.positions[0] for s in seen], axis=0))
    window = 10  # over several cycles: a single one may be late
    speed = np.abs(np.diff(np.array([s.positions[0] for s in seen])[::window])) / np.diff(stamps[::window])
    assert moved.max() > 0
    assert speed.max() <= 1.25 * VMAX[0]
    assert run.send(HOME + 9 * WAIST) is not None, "outside the limits: rejected as a whole"
    lowest, highest = run.follower.map.tick_limits()
    state = run.arm.state()
    assert [s["min"] for s in state.values()] == lowest.tolist(), "the servos guard the limits, too"
    assert [s["max"] for s in state.values()] == highest.tolist()


def test_a_silent_commander_stops_the_arm_on_its_way(run: Running) -> None:
    wait(lambda: len(run.samples) > 100, "the end of the ramp")
    run.send(HOME + 2.5 * WAIST)
    time.sleep(0.3 + 0.1 + 0.15)  # time-out, the point's own time, the servos' lag
    stopped = run.joints.copy()
    assert 0.3 < stopped[0] - HOME[0] < 2.0
    time.sleep(0.3)
    assert np.allclose(run.joints, stopped, atol=TICK)


def test_it_starts_from_where_it_is_and_slowly(tmp_path: Path) -> None:
    away = 2048 + 500
    with emulated_arm(ARM, tmp_path) as (arm, emulator):
        emulator.bus.servos[1]._position = float(away)
        run = Running(arm, emulator, SLOW_START)
        run.loop.start(5.0)
        wait(lambda: bool(run.samples), "the first sample")
        assert run.goals()[0] == away
        start = run.joints[0]
        run.keep_sending(run.joints - 1.0 * WAIST, 0.3)
        took = (run.samples[-1].stamp_ns - run.samples[0].stamp_ns) / 1e9
        assert 0 < start - run.joints[0] < 0.5 * VMAX[0] * took, "the ramp has only begun"
        run.loop.stop()


def test_the_emergency_stop_is_latched_and_holds(run: Running) -> None:
    run.keep_sending(HOME + 2.0 * WAIST, 0.4)
    run.follower.set_stopped(True)
    time.sleep(0.1)
    stopped = run.joints.copy()
    run.keep_sending(HOME + 2.0 * WAIST, 0.3)
    assert np.allclose(run.joints, stopped, atol=2 * TICK)
    assert run.follower.mode is FollowerMode.STOPPED
    assert not run.follower.go_home()
    run.arm.order("unplug 0.2")
    run.state(LoopState.BUS_FAULT)
    run.state(LoopState.RUNNING)
    run.keep_sending(HOME + 2.0 * WAIST, 0.3)
    assert np.allclose(run.joints, stopped, atol=2 * TICK), "a new connection does not release it"
    run.follower.set_stopped(False)
    run.reach(HOME + 2.0 * WAIST)


def test_torque_off_is_limp_and_torque_on_starts_from_where_a_hand_left_the_arm(run: Running) -> None:
    run.follower.set_torque(False)
    wait(lambda: not run.follower.torque, "torque off")
    assert not any(s["torque"] for s in run.arm.state().values())
    run.arm.order("hand 1 2400")
    wait(lambda: run.arm.state()[1]["position"] == 2400, "the hand")
    run.keep_sending(HOME, 0.2)
    run.arm.order("release")
    run.follower.set_torque(True)
    wait(lambda: run.follower.torque, "torque on")
    time.sleep(0.2)
    assert abs(run.arm.state()[1]["position"] - 2400) < 5, "what was asked for meanwhile is forgotten"
    run.reach(HOME)


def test_going_home_ignores_commands_and_ends_there(run: Running) -> None:
    run.reach(HOME + 0.8 * WAIST)
    assert run.follower.go_home()
    run.keep_sending(HOME + 0.8 * WAIST, 0.1)
    wait(lambda: run.follower.mode is FollowerMode.OBEYS, "home")
    wait(lambda: bool(np.allclose(run.joints, HOME, atol=TICK)), "rest at home")


@pytest.mark.parametrize("fault", ["missing 4", "crc 4", "late 4 0.2", "unplug"])
def test_a_fault_is_noticed_within_200_ms_holds_the_arm_and_heals_without_a_restart(run: Running, fault: str) -> None:
    run.reach(HOME + 0.5 * WAIST)
    run.statuses.clear()
    began = time.monotonic()
    run.arm.order(fault)
    run.state(LoopState.BUS_FAULT)
    assert run.statuses[0][0] - began < 0.2
    goals = run.goals()
    run.keep_sending(HOME - 0.5 * WAIST, 0.3)
    assert np.abs(run.goals() - goals).max() <= 2, "it holds"
    run.arm.order("clear")
    run.arm.order("replug")
    run.state(LoopState.RUNNING)
    run.reach(HOME - 0.5 * WAIST)


def _ramping(run: Running) -> None:
    run.send(HOME + 1.0 * WAIST)


def _going_home(run: Running) -> None:
    run.reach(HOME + 0.8 * WAIST)
    assert run.follower.go_home()


def _limp(run: Running) -> None:
    run.follower.set_torque(False)
    wait(lambda: not run.follower.torque, "torque off")


def _restarting(run: Running) -> None:
    run.arm.order("overload 2")
    run.state(LoopState.HARDWARE_ERROR)
    run.loop.recover()


@pytest.mark.parametrize("phase", [_ramping, _going_home, _limp, _restarting], ids=lambda p: p.__name__)
def test_unplugged_in_any_phase_it_comes_back_where_it_is_and_obeys(
    run: Running, phase: Callable[[Running], None]
) -> None:
    phase(run)
    run.arm.order("unplug 0.5")
    run.state(LoopState.BUS_FAULT)
    run.state(LoopState.RUNNING)
    assert run.follower.torque == (phase is not _limp), "what was asked for before holds after"
    run.follower.set_torque(True)
    wait(lambda: run.follower.torque, "torque on")
    run.samples.clear()
    wait(lambda: bool(run.samples), "a new sample")
    where = run.joints.copy()
    time.sleep(0.1)
    assert np.allclose(run.joints, where, atol=2 * TICK), "nothing moves by itself"
    run.reach(HOME + 0.3 * WAIST)


def test_unplugged_while_it_connects_the_start_goes_on_trying(tmp_path: Path) -> None:
    with emulated_arm(ARM, tmp_path) as (arm, emulator):
        arm.order("unplug 1.0")
        run = Running(arm, emulator)
        run.loop.start(10.0)
        wait(lambda: bool(run.samples), "the first sample")
        run.loop.stop()


def test_on_a_slow_bus_it_still_obeys_and_counts_the_cycles_it_misses(run: Running) -> None:
    run.arm.order("slow 0.012")
    before = run.loop.counters["missed_cycles"]
    run.reach(HOME + 0.3 * WAIST)
    assert run.loop.counters["missed_cycles"] > before
    assert run.loop.status.state is LoopState.RUNNING


def test_a_hardware_error_names_servo_and_cause_and_waits_for_somebody(run: Running) -> None:
    run.arm.order("overload 3")
    run.state(LoopState.HARDWARE_ERROR)
    assert "servo 3 (elbow): overload" in run.loop.status.message
    reports = len(run.samples)
    run.keep_sending(HOME + 0.5 * WAIST, 0.2)
    assert np.allclose(run.joints, HOME, atol=2 * TICK)
    assert len(run.samples) > reports, "its state is still published"
    run.loop.recover()
    run.state(LoopState.RUNNING)
    assert run.arm.state()[3]["torque"] == 1
    run.reach(HOME + 0.5 * WAIST)


def test_a_servo_that_somebody_restarts_by_hand_is_used_again(run: Running) -> None:
    run.arm.order("overload 3")
    run.state(LoopState.HARDWARE_ERROR)
    run.arm.order("power")
    run.state(LoopState.RUNNING)
    assert run.arm.state()[3]["torque"] == 1


def test_a_servo_that_lost_its_power_is_switched_on_again(run: Running) -> None:
    run.arm.order("missing 5")
    run.state(LoopState.BUS_FAULT)
    run.arm.order("power")
    run.arm.order("clear")
    run.state(LoopState.RUNNING)
    wait(lambda: all(s["torque"] and s["watchdog"] > 0 for s in run.arm.state().values()), "torque and watchdog")


def test_a_servo_that_was_without_power_so_shortly_that_no_answer_was_missed_gets_its_torque_back(run: Running) -> None:
    run.arm.order("power")
    assert not any(s["torque"] for s in run.arm.state().values())
    wait(lambda: all(s["torque"] and s["watchdog"] > 0 for s in run.arm.state().values()), "torque and watchdog")
    run.reach(HOME + 0.3 * WAIST)


def test_goals_that_a_servo_silently_refuses_are_noticed(run: Running) -> None:
    run.emulator.bus.servos[1].set(table.BUS_WATCHDOG, table.WATCHDOG_TRIPPED)
    run.reach(HOME + 0.3 * WAIST)
    assert run.loop.counters["watchdog_rearmed"] >= 1


def test_on_a_bus_that_loses_answers_now_and_then_it_connects_again(run: Running) -> None:
    rng, feed = np.random.default_rng(0), run.emulator.bus.feed

    def lossy(data: bytes, now: float) -> list[Reply]:
        return [r for r in feed(data, now) if rng.uniform() > 0.05]

    run.emulator.bus.feed = lossy  # type: ignore[method-assign]
    run.arm.order("unplug 0.2")
    run.state(LoopState.BUS_FAULT)
    run.state(LoopState.RUNNING)
    run.samples.clear()
    wait(lambda: len(run.samples) > 20, "samples")


def test_torque_off_is_obeyed_while_a_servo_has_a_hardware_error(run: Running) -> None:
    run.arm.order("overload 3")
    run.state(LoopState.HARDWARE_ERROR)
    run.follower.set_torque(False)
    wait(lambda: not any(s["torque"] for s in run.arm.state().values()), "a limp arm")


def test_torque_off_reaches_the_servos_that_still_listen(run: Running) -> None:
    run.arm.order("missing 3")
    run.state(LoopState.BUS_FAULT)
    run.follower.set_torque(False)
    wait(lambda: not any(s["torque"] for i, s in run.arm.state().items() if i != 3), "a limp arm")


def test_a_restart_that_was_asked_for_too_early_is_not_made_up_for(run: Running) -> None:
    assert not run.loop.recover(), "there is nothing to restart"
    run.arm.order("overload 3")
    run.state(LoopState.HARDWARE_ERROR)
    time.sleep(0.5)
    assert run.loop.status.state is LoopState.HARDWARE_ERROR
    assert run.arm.state()[3]["error"] != 0


def test_an_arm_that_starts_outside_its_limits_stays_there_and_comes_in_slowly(tmp_path: Path) -> None:
    with emulated_arm(ARM, tmp_path) as (arm, emulator):
        emulator.bus.servos[2]._position = 3700.0  # 2.53 rad; the shoulder's limit is 1.9
        run = Running(arm, emulator, SLOW_START)
        run.loop.start(5.0)
        wait(lambda: len(run.samples) > 30, "samples")
        outside = run.joints[1]
        assert np.ptp([s.positions[1] for s in run.samples]) < TICK, "nothing moves by itself"
        run.keep_sending(HOME, 0.3)
        took = (run.samples[-1].stamp_ns - run.samples[0].stamp_ns) / 1e9
        assert 0 < outside - run.joints[1] < 0.5 * VMAX[1] * took, "the ramp has only begun"
        run.reach(HOME)
        run.loop.stop()


def test_on_its_way_home_a_late_cycle_does_not_stop_it(run: Running) -> None:
    run.reach(HOME + 0.8 * WAIST)
    assert run.follower.go_home()
    before = run.loop.counters["watchdog_rearmed"]
    run.loop._last_cycle -= 1.0
    wait(lambda: run.loop.counters["watchdog_rearmed"] > before, "a late cycle")
    wait(lambda: bool(np.allclose(run.joints, HOME, atol=TICK)), "rest at home")


def test_servos_in_a_drive_mode_that_changes_units_are_refused(tmp_path: Path) -> None:
    with emulated_arm(ARM, tmp_path) as (arm, emulator):
        emulator.bus.servos[4].set(table.DRIVE_MODE, table.TIMED_PROFILE)
        with pytest.raises(WrongServoError, match=r"servos \[4\] .*Drive Mode"):
            Running(arm, emulator).loop.start(1.0)


def test_a_home_that_the_servos_cannot_reach_is_refused() -> None:
    motors = tuple(m.model_copy(update={"limits": (2100, 4000)}) if m.id == 1 else m for m in CONFIG.motors)
    config = CONFIG.model_copy(update={"motors": motors})
    with pytest.raises(CalibrationError, match=r"home position of \['waist'\]"):
        Follower(ARM, config, 0.3, time.time_ns, lambda s: None)


@pytest.mark.parametrize("order", ["hand 1 nan", "late 1 inf", "slow x"])
def test_an_order_that_makes_no_sense_is_refused_and_the_emulator_lives(run: Running, order: str) -> None:
    with pytest.raises(OrderError):
        run.arm.order(order)
    run.samples.clear()
    wait(lambda: len(run.samples) > 5, "samples")


def test_when_the_computer_dies_the_watchdogs_stop_the_servos(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.keep_sending(HOME + 2.0 * WAIST, 0.3)
        run.loop.stop()
        wait(
            lambda: all(s["watchdog"] == table.WATCHDOG_TRIPPED for s in run.arm.state().values()),
            "the watchdogs",
        )
        assert run.arm.state()[1]["goal"] == run.arm.state()[1]["position"]


def test_starting_without_servos_says_what_to_do(tmp_path: Path) -> None:
    bus = Bus(str(tmp_path / "none"), CONFIG.baud, CONFIG.motors)
    follower = Follower(ARM, CONFIG, 0.3, time.time_ns, lambda s: None)
    with pytest.raises(BusError, match="no such port"):
        ServoLoop(bus, CONFIG, follower, lambda s: None).start(0.3)


def test_missing_calibration_names_the_joints_and_the_command() -> None:
    motors = [m.model_copy(update={"homing_offset": None}) if m.id == 2 else m for m in CONFIG.motors]
    with pytest.raises(CalibrationError, match=r"\['shoulder'\]; run 'hiwm calibrate'"):
        MotorMap(motors, ARM.joints)


def test_servo_limits_outside_the_joint_are_refused() -> None:
    motors = [m.model_copy(update={"limits": (4000, 4090)}) if m.id == 2 else m for m in CONFIG.motors]
    with pytest.raises(CalibrationError, match="shoulder"):
        MotorMap(motors, ARM.joints)


def test_ticks_and_joints_are_inverse_with_direction_ratio_and_offset() -> None:
    motor_map = MotorMap(CONFIG.motors, ARM.joints)
    joints = np.array([0.5, -0.3, 0.2, 1.0, 0.4, -1.0, 0.02])
    ticks = motor_map.ticks(joints)
    assert np.allclose(motor_map.joints(ticks), joints, atol=1e-3)
    assert ticks[0] > 2048 and ticks[2] < 2048, "direction -1 of the elbow"
