"""A wrong section ``hardware`` of a rig file is refused with the key and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hiwm_rig.contract import RigFileError, load_rig, parse_rig

Raw = dict[str, Any]


def good() -> Raw:
    joints = [
        {"name": "a", "lower": -1.0, "upper": 1.0, "max_velocity": 2.0},
        {"name": "grip", "type": "prismatic", "lower": 0.0, "upper": 0.04, "max_velocity": 0.1},
    ]
    follower = [
        {"joint": "a", "id": 1, "model": "XM430-W350", "homing_offset": 2048},
        {"joint": "grip", "id": 2, "model": "XM430-W350", "homing_offset": 1400, "ratio": 0.0155},
    ]
    leader = [
        {"joint": "a", "id": 1, "model": "XL330-M288", "homing_offset": 2048},
        {"joint": "grip", "id": 2, "model": "XL330-M077", "homing_offset": 2048, "range": [0.0, 0.9]},
    ]
    hardware = {
        "follower": {"port": "/dev/f", "motors": follower},
        "leader": {"port": "/dev/l", "motors": leader},
    }
    return {
        "name": "tiny",
        "arms": [{"joints": joints, "home": [0.0, 0.0], "hardware": hardware}],
        "cameras": [{"name": "front", "width": 8, "height": 6}],
    }


def motors(raw: Raw, part: str = "follower") -> list[Raw]:
    found: list[Raw] = raw["arms"][0]["hardware"][part]["motors"]
    return found


def bus(raw: Raw, part: str = "follower") -> Raw:
    found: Raw = raw["arms"][0]["hardware"][part]
    return found


def test_the_reference_arm_and_the_bimanual_rig_are_complete() -> None:
    for name, arms in (("push_t", 1), ("bimanual", 2)):
        rig = load_rig(name)
        assert len(rig.arms) == arms
        assert all(a.hardware is not None and a.hardware.leader is not None for a in rig.arms)
    assert len(load_rig("bimanual").cameras) == 3


def test_it_is_optional() -> None:
    raw = good()
    del raw["arms"][0]["hardware"]
    assert parse_rig(yaml.safe_dump(raw)).arms[0].hardware is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: motors(r)[1].update(id=1), r"servo ids must be unique on a bus; \[1\] are used twice"),
        (lambda r: motors(r)[0].update(id=253), r"motors.0.id.*less than or equal to 252"),
        (lambda r: motors(r)[0].update(model="AX-12"), r"unknown servo model 'AX-12'; known are XL330"),
        (lambda r: motors(r)[0].update(limits=[3000, 1000]), r"limits of servo 1 \('a'\) are reversed"),
        (lambda r: motors(r)[0].update(direction=0), r"motors.0.direction"),
        (lambda r: motors(r)[0].update(ratio=0.0), r"ratio of servo 1 \('a'\) must not be 0"),
        (lambda r: motors(r).reverse(), r"hardware.follower.motors must name the joints \['a', 'grip'\] in this order"),
        (lambda r: motors(r, "leader").pop(), r"hardware.leader.motors must name the joints"),
        (lambda r: motors(r, "leader")[0].update(scale=0.0), r"scale of leader servo 1 \('a'\) must not be 0"),
        (lambda r: motors(r, "leader")[1].update(range=[0.5, 0.5]), r"range of leader servo 2 \('grip'\) is empty"),
        (lambda r: motors(r, "leader")[0].update(model="XL430-W250"), r"\['a'\] cannot limit their current: set act"),
        (lambda r: bus(r).update(baud=12345), r"the servos know the baud rates .*, not 12345"),
        (lambda r: bus(r).update(watchdog_s=60.0), r"watchdog_s must be within"),
        (lambda r: bus(r).update(rate_hz=0), r"rate_hz.*greater than 0"),
        (lambda r: bus(r).update(speed=3), r"hardware.follower.speed"),
    ],
)
def test_a_wrong_section_names_the_key_and_what_was_expected(change: Callable[[Raw], Any], expected: str) -> None:
    raw = good()
    change(raw)
    with pytest.raises(RigFileError, match=expected):
        parse_rig(yaml.safe_dump(raw), "my_rig.yaml")


def test_a_leader_without_current_limit_may_be_passive() -> None:
    raw = good()
    motors(raw, "leader")[0].update(model="XL430-W250")
    bus(raw, "leader").update(actuated=False)
    hardware = parse_rig(yaml.safe_dump(raw)).arms[0].hardware
    assert hardware is not None and hardware.leader is not None and not hardware.leader.actuated


@pytest.mark.parametrize("key", ["joint_states", "command", "leader_joint_states", "policy_command", "name"])
def test_two_arms_may_share_no_topic(key: str) -> None:
    raw = yaml.safe_load(load_text("bimanual"))
    raw["arms"][1][key] = raw["arms"][0][key]
    with pytest.raises(RigFileError, match=f"each arm needs its own '{key}'"):
        parse_rig(yaml.safe_dump(raw))


def load_text(name: str) -> str:
    from importlib import resources

    return resources.files("hiwm_rig").joinpath("rigs", f"{name}.yaml").read_text(encoding="utf-8")
