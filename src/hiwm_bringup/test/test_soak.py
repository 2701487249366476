"""The soak counts what it says it counts, and orders only what the emulators understand."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from hiwm_bringup.arm_session import ArmTopics
from hiwm_bringup.soak import FAULTS, Soak
from hiwm_rig.codecs import sample_to_joint_state
from hiwm_rig.contract import load_rig
from hiwm_rig.dynamixel.emulator import ORDERS
from hiwm_rig.types import Driver

from hiwm_bringup import bench, cli, soak

RIG = load_rig("push_t")
ARM = RIG.arms[0]
HOME = np.array(ARM.home)


class FakeSession(SimpleNamespace):
    """What a soak looks at, and the orders it gives."""

    def __init__(self, rows: list[np.ndarray], goal: int = 2048) -> None:
        states = [sample_to_joint_state(ARM.joint_names, row, i) for i, row in enumerate(rows)]
        super().__init__(rig=RIG, arms={ARM.name: ArmTopics(states, [], [])}, control=[], diagnostics=[])
        self.goal = goal
        self.orders: list[str] = []
        self.probe = SimpleNamespace(call=lambda *a: None)

    def servos(self, part: str, arm: Any) -> dict[int, dict[str, int]]:
        return {1: {"goal": self.goal, "min": 100, "max": 4000}}

    def order(self, part: str, text: str, arm: Any) -> None:
        self.orders.append(text)

    def hand(self, joint: int, radians: float, arm: Any) -> None:
        self.orders.append(f"hand {joint + 1} {radians}")


def test_positions_and_goals_outside_their_limits_are_counted_each_once() -> None:
    counts = Soak()
    outside = HOME + np.array([0, 3.0, 0, 0, 0, 0, 0])
    counts.look(FakeSession([HOME, outside, HOME, HOME]))  # type: ignore[arg-type]
    assert (counts.states, counts.outside) == (3, 1)
    counts.look(FakeSession([HOME, HOME], goal=4050))  # type: ignore[arg-type]
    assert counts.outside == 2


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_an_order_that_there_is(name: str) -> None:
    session = FakeSession([])
    FAULTS[name](session, ARM, np.random.default_rng(0))  # type: ignore[arg-type]
    assert all(text.split()[0] in ORDERS and "{" not in text for text in session.orders)
    assert session.orders or name == "emergency stop"


class DrivenSession(FakeSession):
    """A rig that obeys a person, or one that is stuck in one way."""

    def __init__(self, lets_go: int = 0, obeys: bool = True, answers: bool = True) -> None:
        super().__init__([HOME, HOME])
        self.asked: list[Driver] = []
        self.called: list[str] = []
        self.lets_go, self.obeys, self.answers = lets_go, obeys, answers
        self.control = [SimpleNamespace(driver=Driver.PAUSED)]
        self.probe = SimpleNamespace(call=self.call, spin_for=lambda seconds: None)

    def call(self, kind: Any, name: str, request: Any) -> None:
        if not self.answers:
            raise TimeoutError(f"service {name} did not happen")
        self.called.append(name)

    def ask(self, driver: Driver, timeout_s: float) -> None:
        self.asked.append(driver)
        self.control.append(SimpleNamespace(driver=driver))

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        if self.lets_go:
            self.lets_go -= 1
            self.control.append(SimpleNamespace(driver=Driver.PAUSED))
        if not condition():
            raise TimeoutError(f"{what} did not happen")

    def follows(self, joint: int, goal: float, arm: Any) -> bool:
        return self.obeys and self.control[-1].driver == Driver.HUMAN


def round_of(session: DrivenSession) -> Soak:
    counts = Soak()
    soak._round(session, counts, np.random.default_rng(1))  # type: ignore[arg-type]
    return counts


def test_a_round_that_heals_counts_its_fault_and_its_time_and_puts_everything_right() -> None:
    session = DrivenSession()
    counts = round_of(session)
    assert sum(counts.faults.values()) == 1 and len(counts.healed_s) == 1 and not counts.stuck
    assert {"clear", "replug", "release"} <= set(session.orders)
    assert set(session.called) >= {"/follower_leader/restart", "/follower/torque", "/hiwm/emergency_stop"}
    assert session.asked[-1] is Driver.HUMAN


def test_where_the_arbiter_has_let_go_the_person_asks_once_more() -> None:
    session, counts = DrivenSession(lets_go=1), Soak()
    soak._drive_again(session, counts, ARM, 0.4)  # type: ignore[arg-type]
    assert session.asked == [Driver.HUMAN, Driver.HUMAN]
    assert counts.asked_again == 1


def test_a_rig_that_does_not_obey_again_is_stuck_and_named_with_its_fault() -> None:
    counts = round_of(DrivenSession(obeys=False))
    (name,) = counts.faults
    assert counts.stuck == [f"after '{name}': the follower obeys did not happen"]
    assert not counts.healed_s


def test_a_rig_that_cannot_even_be_put_right_loses_no_count() -> None:
    counts = round_of(DrivenSession(answers=False))
    assert len(counts.stuck) == 2 and "after all faults had ended" in counts.stuck[1]


def test_an_emulator_that_has_gone_is_found_not_raised() -> None:
    session = DrivenSession()

    def gone(*args: Any) -> None:
        raise FileNotFoundError("no emulator serves this port")

    session.order = gone
    assert any("no emulator" in text for text in round_of(session).stuck)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (Soak(), "no fault was tried"),
        (Soak(Counter(unplug=3), stuck=["after 'unplug': nothing"]), "stuck after 'unplug': nothing"),
        (Soak(Counter(unplug=3), outside=2), "2 positions or goals"),
        (Soak(Counter(unplug=3), died="node arbiter ended"), "node arbiter ended"),
    ],
)
def test_a_soak_that_found_something_ends_with_it_and_exit_code_1(
    counts: Soak, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "run_soak", lambda options, minutes: {"soak": soak._summary(counts, minutes)})
    out = tmp_path / "soak.json"
    assert cli.main(["bench", "--soak", "1", "--out", str(out)]) == bench.EXIT_FAILED
    assert f"error: soak: {text}" in capsys.readouterr().err
    assert json.loads(out.read_text())["soak"]["minutes"] == 1, "what it counted is kept"


def test_a_soak_that_found_nothing_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = soak._summary(Soak(Counter(unplug=3)), 1.0)
    monkeypatch.setattr(soak, "run_soak", lambda options, minutes: {"soak": clean})
    assert cli.main(["bench", "--soak", "1"]) == bench.EXIT_OK
