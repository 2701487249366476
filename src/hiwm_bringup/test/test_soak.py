"""The soak counts what it says it counts, and orders only what the emulators understand."""

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
    soak = Soak()
    outside = HOME + np.array([0, 3.0, 0, 0, 0, 0, 0])
    soak.look(FakeSession([HOME, outside, HOME, HOME]))  # type: ignore[arg-type]
    assert (soak.states, soak.outside) == (3, 1)
    soak.look(FakeSession([HOME, HOME], goal=4050))  # type: ignore[arg-type]
    assert soak.outside == 2


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_an_order_that_there_is(name: str) -> None:
    session = FakeSession([])
    FAULTS[name](session, ARM, np.random.default_rng(0))  # type: ignore[arg-type]
    assert all(text.split()[0] in ORDERS and "{" not in text for text in session.orders)
    assert session.orders or name == "emergency stop"
