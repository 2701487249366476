"""The leader arm on emulated servos: mirrors weakly, lets go for a person, and hears what the person asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hiwm_rig.commands import Reason
from hiwm_rig.contract import load_rig
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import Bus
from hiwm_rig.dynamixel.control_table import RAD_PER_TICK, OperatingMode, Register
from hiwm_rig.dynamixel.emulated_bus import EmulatedBus, Reply
from hiwm_rig.dynamixel.motor_map import MotorMap
from hiwm_rig.dynamixel.packets import Instruction, PacketError, Parser, pack
from hiwm_rig.dynamixel.servo_loop import LoopState, ServoLoop
from hiwm_rig.dynamixel.testing import EmulatedArm, emulated_arm
from hiwm_rig.types import Driver
from hiwm_teleop.leader import Leader, LeaderMode, LeaderSample
from hiwm_teleop.lever import Lever, Pedal, Signal

ARM = load_rig("push_t").arms[0]
assert ARM.hardware is not None and ARM.hardware.leader is not None
CONFIG = ARM.hardware.leader
HOME = np.array(ARM.home)
LOWER = np.array([j.lower for j in ARM.joints])
UPPER = np.array([j.upper for j in ARM.joints])
AWAY = HOME + np.array([0.4, 0, 0, 0, 0, 0, 0])


class Running:
    """A leader on its loop, told again and again who drives and where the follower is."""

    def __init__(self, arm: EmulatedArm, bus: EmulatedBus, **changes: object) -> None:
        config = CONFIG.model_copy(update=changes)
        self.arm = arm
        self.bus = bus
        self.samples: list[LeaderSample] = []
        self.leader = Leader(ARM, config, time.time_ns, self.samples.append)
        self.loop = ServoLoop(Bus(arm.port, config.baud, config.motors, 8), config, self.leader, lambda s: None)

    @property
    def joints(self) -> np.ndarray:
        return self.samples[-1].positions

    def until(self, condition: Callable[[], bool], driver: Driver, mirror: np.ndarray, what: str) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen"
            self.leader.on_driver(driver)
            self.leader.on_mirror(mirror)
            time.sleep(0.01)

    def spend(self, seconds: float, driver: Driver, mirror: np.ndarray) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, driver, mirror, "")

    def ticks(self, servo: int) -> int:
        return self.arm.state()[servo]["position"]

    def hand(self, servo: int, ticks: int) -> None:
        self.arm.order(f"hand {servo} {ticks}")


@contextmanager
def running(folder: Path, **changes: object) -> Iterator[Running]:
    with emulated_arm(ARM, folder, "leader") as (arm, emulator):
        run = Running(arm, emulator.bus, **changes)
        run.loop.start(5.0)
        try:
            run.until(lambda: bool(run.samples), Driver.PAUSED, HOME, "the first sample")
            yield run
        finally:
            run.loop.stop()
            run.loop.raise_failure()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as started:
        yield started


@pytest.mark.parametrize("driver", [Driver.POLICY, Driver.PAUSED])
def test_while_no_person_drives_it_follows_the_follower_weakly_and_slowly(run: Running, driver: Driver) -> None:
    start = time.monotonic()
    run.until(lambda: bool(np.allclose(run.joints, AWAY, atol=0.01)), driver, AWAY, "the mirror")
    assert time.monotonic() - start > 0.8 * 0.4 / CONFIG.mirror_velocity
    servo = run.arm.state()[1]
    assert servo["mode"] == OperatingMode.CURRENT_BASED_POSITION
    assert servo["goal_current"] == CONFIG.mirror_current_ma, "1 mA a unit"
    assert servo["watchdog"] > 0


def lose(bus: EmulatedBus, register: Register, count: int) -> None:
    """The next packets that write a register are lost on the wire."""
    feed, parser, left = bus.feed, Parser(), [count]

    def lossy(data: bytes, now: float) -> list[Reply]:
        kept = b""
        for packet in parser.feed(data):
            writes = packet.instruction in (Instruction.WRITE, Instruction.SYNC_WRITE)
            if left[0] and writes and int.from_bytes(packet.parameters[:2], "little") == register.address:
                left[0] -= 1
            else:
                kept += pack(packet)
        return feed(kept, now)

    bus.feed = lossy  # type: ignore[method-assign]


def watch_torque(bus: EmulatedBus) -> list[int]:
    """Grows by a servo's goal current whenever its torque is switched on."""
    currents: list[int] = []
    for servo in bus.servos.values():

        def write(address: int, data: bytes, servo=servo, inner=servo.write) -> PacketError:  # type: ignore[no-untyped-def]
            if address == table.TORQUE_ENABLE.address and data[0]:
                currents.append(servo.get(table.GOAL_CURRENT))
            return inner(address, data)

        servo.write = write  # type: ignore[method-assign]
    return currents


def test_no_servo_gets_torque_before_it_has_acknowledged_its_current(run: Running) -> None:
    run.spend(0.2, Driver.HUMAN, HOME)  # free
    for servo in run.bus.servos.values():
        servo.set(table.GOAL_CURRENT, 1193)  # as after power-up
    currents = watch_torque(run.bus)
    lose(run.bus, table.GOAL_CURRENT, 2)
    run.until(lambda: run.leader.mode is LeaderMode.MIRRORS, Driver.POLICY, HOME, "mirroring")
    assert len(currents) >= 7 and set(currents) == {CONFIG.mirror_current_ma}, "1 mA a unit"
    assert all(s["torque"] for s in run.arm.state().values())


def test_letting_go_is_said_until_every_servo_has_heard_it(run: Running) -> None:
    run.until(lambda: run.leader.mode is LeaderMode.MIRRORS, Driver.POLICY, HOME, "mirroring")
    lose(run.bus, table.TORQUE_ENABLE, 2)
    run.until(lambda: run.leader.mode is LeaderMode.FREE, Driver.HUMAN, HOME, "letting go")
    run.until(lambda: not any(s["torque"] for s in run.arm.state().values()), Driver.HUMAN, HOME, "no torque")


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, Reason.NOT_FINITE), (np.inf, Reason.NOT_FINITE), (1e12, Reason.OUT_OF_LIMITS)],
)
def test_a_mirror_target_that_cannot_be_is_rejected_and_the_last_one_stays(
    run: Running, value: float, reason: Reason
) -> None:
    run.until(lambda: run.leader.mode is LeaderMode.MIRRORS, Driver.POLICY, AWAY, "mirroring")
    rejection = run.leader.on_mirror(np.where(np.arange(7) == 1, value, HOME))
    assert rejection is not None and rejection.reason is reason and "shoulder" in rejection.message
    run.until(lambda: bool(np.allclose(run.joints, AWAY, atol=0.01)), Driver.POLICY, AWAY, "the mirror")
    run.loop.raise_failure()


def test_the_mirror_stays_inside_what_the_leader_s_servos_may_reach(tmp_path: Path) -> None:
    motors = tuple(m.model_copy(update={"limits": (1500, 2300)}) if m.id == 1 else m for m in CONFIG.motors)
    far = HOME + np.array([2.0, 0, 0, 0, 0, 0, 0])
    with running(tmp_path, motors=motors, mirror_velocity=10.0) as run:
        run.until(lambda: run.ticks(1) >= 2299, Driver.POLICY, far, "the mirror")
        run.spend(0.2, Driver.POLICY, far)
        assert run.arm.state()[1]["goal"] == 2300


def test_a_person_who_takes_over_finds_it_aligned_and_free(run: Running) -> None:
    run.until(lambda: bool(np.allclose(run.joints, AWAY, atol=0.01)), Driver.POLICY, AWAY, "the mirror")
    before = run.joints.copy()
    run.until(lambda: run.leader.mode is LeaderMode.FREE, Driver.ALIGNING, AWAY, "letting go")
    assert np.allclose(run.joints, before, atol=0.01)
    assert not any(s["torque"] for s in run.arm.state().values())
    run.hand(1, 2048 - 300)
    run.until(lambda: run.ticks(1) == 2048 - 300, Driver.HUMAN, AWAY, "the hand's motion")
    assert run.joints[0] == pytest.approx(-300 * RAD_PER_TICK, abs=0.01)


def test_it_lets_go_when_nobody_says_who_drives(run: Running) -> None:
    run.until(lambda: run.leader.mode is LeaderMode.MIRRORS, Driver.POLICY, AWAY, "mirroring")
    time.sleep(0.8)
    assert run.leader.mode is LeaderMode.FREE


def test_help_holds_the_arm_where_the_hand_leaves_it(tmp_path: Path) -> None:
    with running(tmp_path, help_current_ma=60.0) as run:
        run.until(lambda: run.leader.mode is LeaderMode.HELPS, Driver.HUMAN, HOME, "help")
        assert run.arm.state()[2]["goal_current"] == 60
        run.hand(1, 2300)
        run.until(lambda: run.ticks(1) == 2300, Driver.HUMAN, HOME, "a hand that wins")
        run.arm.order("release")
        run.spend(0.2, Driver.HUMAN, HOME)
        assert abs(run.ticks(1) - 2300) < 5


def test_a_passive_leader_never_has_torque(tmp_path: Path) -> None:
    with running(tmp_path, actuated=False) as run:
        run.spend(0.3, Driver.POLICY, AWAY)
        assert not any(s["torque"] for s in run.arm.state().values())
        assert np.allclose(run.joints, HOME, atol=0.01)


def test_pulling_the_lever_away_from_the_mirror_is_one_wish_to_take_over(run: Running) -> None:
    run.until(lambda: run.leader.mode is LeaderMode.MIRRORS, Driver.POLICY, HOME, "mirroring")
    run.spend(0.5, Driver.POLICY, HOME)
    assert not any(s.pulled for s in run.samples), "a mirroring lever says nothing"
    run.hand(7, 2048 + round(0.9 / RAD_PER_TICK))
    run.until(lambda: any(s.pulled for s in run.samples), Driver.POLICY, HOME, "the wish")
    run.spend(0.5, Driver.POLICY, HOME)
    assert sum(s.pulled for s in run.samples) == 1


def test_unplugged_and_plugged_in_again_it_goes_on_free_and_without_a_jump(run: Running) -> None:
    run.until(lambda: run.leader.mode is LeaderMode.MIRRORS, Driver.POLICY, AWAY, "mirroring")
    run.arm.order("unplug 0.3")
    run.until(lambda: run.loop.status.state is LoopState.BUS_FAULT, Driver.POLICY, AWAY, "the fault")
    run.samples.clear()
    run.until(lambda: bool(run.samples), Driver.HUMAN, AWAY, "samples again")
    assert run.leader.mode is LeaderMode.FREE


def test_unplugged_while_it_helps_it_comes_back_limp_and_then_helps_where_the_hand_is(tmp_path: Path) -> None:
    with running(tmp_path, help_current_ma=60.0) as run:
        run.until(lambda: run.leader.mode is LeaderMode.HELPS, Driver.HUMAN, HOME, "help")
        currents = watch_torque(run.bus)
        run.arm.order("unplug 0.3")
        run.until(lambda: run.loop.status.state is LoopState.BUS_FAULT, Driver.HUMAN, HOME, "the fault")
        run.hand(1, 2300)  # meanwhile the watchdogs have stopped the servos, and the hand moves on
        run.until(lambda: run.loop.status.ok, Driver.HUMAN, HOME, "the port again")
        run.until(lambda: run.leader.mode is LeaderMode.HELPS and run.ticks(1) == 2300, Driver.HUMAN, HOME, "help")
        assert len(currents) >= 7 and set(currents) == {60}
        run.arm.order("release")
        run.spend(0.2, Driver.HUMAN, HOME)
        assert abs(run.ticks(1) - 2300) < 5


def test_leader_and_follower_may_differ_in_scale_offset_and_gripper_range() -> None:
    motors = [m.model_copy(update={"scale": 0.5, "offset": 0.2}) if m.id == 1 else m for m in CONFIG.motors]
    leader = MotorMap(motors, ARM.joints)
    lever = round(0.9 / RAD_PER_TICK)
    ticks = np.array([2048 + 1000, 2048, 2048, 2048, 2048, 2048, 2048])
    assert leader.joints(ticks)[0] == pytest.approx(0.2 + 0.5 * 1000 * RAD_PER_TICK)
    assert leader.joints(ticks)[-1] == pytest.approx(LOWER[-1])
    ticks[-1] += lever
    assert leader.joints(ticks)[-1] == pytest.approx(UPPER[-1], abs=1e-4)
    assert leader.ticks(leader.joints(ticks)).tolist() == ticks.tolist(), "and back, for the mirror"


def test_what_a_leader_shows_is_inside_the_follower_s_limits(run: Running) -> None:
    run.hand(2, 3800)  # further than the follower's shoulder goes
    run.until(lambda: run.ticks(2) == 3800, Driver.HUMAN, HOME, "the hand")
    run.spend(0.1, Driver.HUMAN, HOME)
    assert run.joints[1] <= UPPER[1]


def test_a_short_twitch_of_the_lever_is_no_wish() -> None:
    lever = Lever(ARM.joints[-1], rate_hz=100)
    assert not any(lever.pulled(0.03, 0.0) for _ in range(10))
    assert not lever.pulled(0.0, 0.0)
    assert [lever.pulled(0.03, 0.0) for _ in range(20)].count(True) == 1


def test_a_pedal_speaks_once_per_press() -> None:
    pedal = Pedal({Signal.TAKEOVER: 0, Signal.SUCCESS: 2, Signal.ROLLBACK: -1})
    assert pedal.press([1, 0, 0]) == [], "held when it appeared"
    assert pedal.press([0, 0, 0]) == []
    assert pedal.press([1, 0, 1]) == [Signal.TAKEOVER, Signal.SUCCESS]
    assert pedal.press([1, 0, 1]) == []
    assert pedal.press([0, 1]) == [], "another device"
