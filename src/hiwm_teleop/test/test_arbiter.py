"""The arbiter core: its table is complete, and the command never jumps, whatever arrives."""

from __future__ import annotations

import numpy as np
import pytest
from hiwm_rig.codecs import NS_PER_S, Chunk
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Driver
from hiwm_teleop.arbiter import TRANSITIONS, Alignment, Arbiter, ArbiterSettings, Event
from hypothesis import given, settings
from hypothesis import strategies as st

RIG = load_rig("push_t")
HOME = np.array(RIG.home)
LOWER = np.array([j.lower for j in RIG.joints])
UPPER = np.array([j.upper for j in RIG.joints])
VMAX = np.array([j.max_velocity for j in RIG.joints])
TICK = NS_PER_S // 50
PERIOD = NS_PER_S // 10


class Rig:
    """An arbiter with a clock and a follower that obeys at once."""

    def __init__(self, **settings: object) -> None:
        self.arbiter = Arbiter(RIG, ArbiterSettings(**settings))  # type: ignore[arg-type]
        self.now = NS_PER_S
        self.joints = HOME.copy()
        self.arbiter.on_rig(self.joints, self.now, self.now)

    def chunk(self, target: np.ndarray, stamp: int | None = None) -> bool:
        start = self.now if stamp is None else stamp
        offsets = 0.1 * np.arange(1, 17)
        return self.arbiter.on_policy(Chunk(start, offsets, np.tile(target, (16, 1))), self.now)

    def ticks(self, count: int, leader: np.ndarray | None = None, rig: bool = True):  # type: ignore[no-untyped-def]
        for k in range(count):
            self.now += TICK
            if rig and k % 5 == 4:
                self.arbiter.on_rig(self.joints, self.now, self.now)
            if leader is not None:
                self.arbiter.on_leader(leader, self.now, self.now)
            decision = self.arbiter.tick(self.now)
            if decision.command is not None:
                self.joints = decision.command
        return decision


def test_every_request_and_event_is_in_the_table_for_every_driver() -> None:
    optional = {Event.ALIGNED, Event.LEADER_STALE}
    for driver in Driver:
        for event in set(Event) - optional:
            assert (driver, event) in TRANSITIONS, (driver, event)
    assert {d for d, e in TRANSITIONS if e is Event.ALIGNED} == {Driver.ALIGNING}
    assert {d for d, e in TRANSITIONS if e is Event.LEADER_STALE} == {Driver.ALIGNING, Driver.HUMAN}


def test_human_is_only_reached_through_aligning() -> None:
    assert {d for (d, _), after in TRANSITIONS.items() if after is Driver.HUMAN} == {Driver.ALIGNING, Driver.HUMAN}


def test_the_policy_chunk_is_followed_exactly_at_the_next_rig_tick() -> None:
    rig = Rig()
    target = HOME + 0.05 * np.array([1, 1, 1, 0, 1, 0, 0])
    rig.chunk(target)
    assert np.allclose(rig.ticks(4).command, target)


def test_a_chunk_is_interpolated_between_its_points() -> None:
    rig = Rig()
    rows = np.stack([HOME, HOME + [0.02, 0, 0, 0, 0, 0, 0]])
    rig.arbiter.on_policy(Chunk(rig.now - PERIOD // 2, np.array([0.1, 0.2]), rows), rig.now)
    assert rig.ticks(1).policy_action[0] == pytest.approx(0.01)


def test_takeover_ramps_to_the_leader_and_then_follows_it() -> None:
    rig = Rig()
    leader = HOME + [0.5, 0, 0, 0, 0, 0, 0]
    rig.ticks(1, leader)
    assert rig.arbiter.request(Driver.HUMAN, "test", rig.now)[0]
    assert rig.ticks(1, leader).driver is Driver.ALIGNING
    decision = rig.ticks(30, leader)
    assert decision.driver is Driver.HUMAN
    assert np.allclose(decision.command, leader)


def test_a_clutched_leader_moves_the_follower_relatively() -> None:
    rig = Rig(alignment=Alignment.CLUTCH)
    away = HOME + [0.5, 0, 0, 0, 0, 0, 0]
    rig.ticks(1, away)
    rig.arbiter.request(Driver.HUMAN, "test", rig.now)
    assert np.allclose(rig.ticks(2, away).command, HOME)
    assert np.allclose(rig.ticks(5, away + [0.05, 0, 0, 0, 0, 0, 0]).command, HOME + [0.05, 0, 0, 0, 0, 0, 0])


def test_a_stale_leader_means_hold_until_asked_again() -> None:
    rig = Rig()
    rig.ticks(1, HOME)
    rig.arbiter.request(Driver.HUMAN, "test", rig.now)
    rig.ticks(3, HOME)
    decision = rig.ticks(20)
    assert (decision.driver, decision.reason, decision.held) == (Driver.PAUSED, "leader stale", "paused")
    far = HOME + [1.0, 0, 0, 0, 0, 0, 0]
    assert np.allclose(rig.ticks(5, far).command, HOME)


def test_a_takeover_without_a_leader_is_refused_with_the_reason() -> None:
    granted, message = Rig().arbiter.request(Driver.HUMAN, "test", 2 * NS_PER_S)
    assert not granted
    assert "leader is stale" in message


def test_a_fault_of_the_rig_pauses_whoever_drives_says_why_and_sends_nothing() -> None:
    rig = Rig()
    rig.ticks(1, HOME)
    rig.arbiter.request(Driver.HUMAN, "test", rig.now)
    rig.ticks(3, HOME)
    rig.arbiter.on_trouble("arm 'follower': no answer", True, rig.now)
    decision = rig.ticks(3, HOME)
    assert (decision.driver, decision.reason) == (Driver.PAUSED, "arm 'follower': no answer")
    assert decision.command is None and not decision.rig_fresh and decision.held == decision.reason
    rig.joints = HOME + 0.1 * np.array([1, 1, 1, 1, 1, 1, 0])  # moved by hand meanwhile
    rig.arbiter.on_trouble("", False, rig.now)
    decision = rig.ticks(6, HOME)
    assert decision.driver is Driver.PAUSED, "whoever drove has to ask again"
    assert np.allclose(decision.command, rig.joints), "it starts from where the arm is now"


def test_a_rig_that_is_busy_is_waited_for_without_a_pause() -> None:
    rig = Rig()
    rig.arbiter.on_trouble("on its way home", False, rig.now)
    assert rig.ticks(6).command is None
    rig.arbiter.on_trouble("", False, rig.now)
    decision = rig.ticks(6)
    assert decision.driver is Driver.POLICY and decision.command is not None


def test_a_fault_of_the_leader_pauses_a_person_and_not_the_policy() -> None:
    rig = Rig()
    rig.arbiter.on_leader_fault("leader: unplugged")
    assert rig.arbiter.driver is Driver.POLICY
    rig.arbiter.on_leader_fault("")
    rig.ticks(1, HOME)
    rig.arbiter.request(Driver.HUMAN, "test", rig.now)
    rig.ticks(3, HOME)
    rig.arbiter.on_leader_fault("leader: unplugged")
    assert (rig.arbiter.driver, rig.arbiter.reason) == (Driver.PAUSED, "leader: unplugged")


def test_while_the_leader_is_at_fault_a_person_is_refused_with_its_words() -> None:
    rig = Rig()
    rig.arbiter.on_leader_fault("leader: servo 3 overload")
    decision = rig.ticks(5, HOME)  # a servo without torque still tells where it is
    assert not decision.leader_fresh
    granted, message = rig.arbiter.request(Driver.HUMAN, "test", rig.now)
    assert not granted and "servo 3 overload" in message
    assert rig.arbiter.request(Driver.POLICY, "test", rig.now)[0], "a policy needs no leader"
    rig.arbiter.on_leader_fault("")
    rig.ticks(1, HOME)
    assert rig.arbiter.request(Driver.HUMAN, "test", rig.now)[0]


@pytest.mark.parametrize("driver", [Driver.POLICY, Driver.HUMAN])
def test_while_the_rig_is_at_fault_nobody_is_granted_so_that_nobody_drives_when_it_obeys_again(driver: Driver) -> None:
    rig = Rig()
    rig.ticks(1, HOME)
    rig.arbiter.on_trouble("arm 'follower': emergency stop", True, rig.now)
    granted, message = rig.arbiter.request(driver, "test", rig.now)
    assert not granted and "emergency stop" in message
    rig.arbiter.begin_episode(rig.now)
    assert rig.arbiter.request(Driver.PAUSED, "test", rig.now)[0]
    rig.arbiter.on_trouble("", False, rig.now)
    assert rig.ticks(6, HOME).driver is Driver.PAUSED
    assert rig.arbiter.request(driver, "test", rig.now)[0]


@pytest.mark.parametrize("driver", list(Driver))
def test_an_actuated_leader_mirrors_while_no_person_drives(driver: Driver) -> None:
    rig = Rig()
    rig.ticks(1, HOME)
    rig.arbiter.driver = driver
    mirrors = rig.ticks(1, HOME + 0.5).mirror is not None
    assert mirrors == (driver in (Driver.POLICY, Driver.PAUSED))


@pytest.mark.parametrize("source", ["policy", "rig"])
def test_a_stale_source_means_hold(source: str) -> None:
    rig = Rig()
    rig.chunk(HOME + [0.02, 0, 0, 0, 0, 0, 0])
    before = rig.ticks(5).command
    decision = rig.ticks(150, rig=source != "rig")
    assert decision.held == f"{source} stale"
    assert np.allclose(decision.command, before)


def test_after_a_rollback_it_sends_nothing_until_the_new_state_is_seen_and_starts_from_it() -> None:
    rig = Rig()
    rig.chunk(HOME + [0.2, 0, 0, 0, 0, 0, 0])
    rig.ticks(10)
    event = rig.now + 1
    rig.arbiter.on_teleport(event, "rollback")
    assert not rig.arbiter.on_rig(HOME + 0.1, event - 1, rig.now), "a state from before the rollback is not the anchor"
    assert not rig.chunk(HOME, stamp=event - 1), "nor is a chunk computed before it followed"
    assert rig.arbiter.tick(rig.now + 1).command is None
    there = HOME + [-0.7, 0, 0, 0, 0, 0, 0]
    assert rig.arbiter.on_rig(there, event, rig.now + 2)
    assert np.allclose(rig.arbiter.tick(rig.now + 3).command, there)


def test_a_rollback_while_the_human_drives_aligns_again() -> None:
    rig = Rig()
    rig.ticks(1, HOME)
    rig.arbiter.request(Driver.HUMAN, "test", rig.now)
    rig.ticks(3, HOME)
    rig.arbiter.on_teleport(rig.now, "rollback")
    assert rig.arbiter.driver is Driver.ALIGNING


def test_a_reset_seen_as_a_jump_of_the_follower_is_a_new_anchor() -> None:
    rig = Rig()
    rig.ticks(5)
    rig.joints = HOME + [2.0, 0, 0, 0, 0, 0, 0]
    assert np.allclose(rig.ticks(5).command, rig.joints)


def test_between_episodes_nothing_is_sent() -> None:
    rig = Rig()
    rig.arbiter.end_episode()
    assert rig.ticks(10).command is None
    rig.arbiter.begin_episode(rig.now)
    assert rig.ticks(10).command is not None
    assert rig.arbiter.driver is Driver.POLICY


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.where(np.arange(7) == 2, np.nan, HOME), "rejected_not_finite"),
        (np.where(np.arange(7) == 2, np.inf, HOME), "rejected_not_finite"),
        (np.where(np.arange(7) == 2, 9.0, HOME), "rejected_out_of_limits"),
        (HOME[:6], "rejected_malformed"),
    ],
)
def test_bad_values_are_rejected_with_a_counted_reason_and_change_nothing(values: np.ndarray, reason: str) -> None:
    rig = Rig()
    assert not rig.arbiter.on_leader(values, rig.now, rig.now)
    bad = Chunk(rig.now, np.array([0.1]), values[None])
    assert not rig.arbiter.on_policy(bad, rig.now)
    assert rig.arbiter.rejections == {f"{reason}_leader": 1, f"{reason}_policy": 1}
    assert np.allclose(rig.ticks(5).command, HOME)


joint_noise = st.lists(st.floats(-1.5, 1.5), min_size=7, max_size=7).map(np.array)
steps = st.one_of(
    st.tuples(st.just("leader"), joint_noise),
    st.tuples(st.just("policy"), joint_noise),
    st.tuples(st.just("request"), st.sampled_from([Driver.POLICY, Driver.HUMAN, Driver.PAUSED])),
    st.tuples(st.just("rollback"), joint_noise),
    st.tuples(st.just("nan"), st.none()),
    st.tuples(st.just("fault"), joint_noise),
    st.tuples(st.just("busy"), joint_noise),
    st.tuples(st.just("leader fault"), st.booleans()),
    st.tuples(st.just("rig fault"), st.booleans()),
    st.tuples(st.just("late tick"), st.integers(1, 20)),
    st.tuples(st.just("episode"), st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, 40)),
    st.tuples(st.just("silence"), st.integers(1, 60)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, min_size=1, max_size=25), st.sampled_from(list(Alignment)))
def test_no_step_exceeds_the_velocity_limit_whatever_happens(
    sequence: list[tuple[str, object]], alignment: Alignment
) -> None:
    rig = Rig(alignment=alignment)
    arbiter = rig.arbiter
    previous: np.ndarray | None = None
    leader: np.ndarray | None = None

    def tick(with_rig: bool, step: int = TICK) -> None:
        nonlocal previous
        rig.now += step
        if with_rig:
            arbiter.on_rig(rig.joints, rig.now, rig.now)
        if leader is not None:
            arbiter.on_leader(leader, rig.now, rig.now)
        decision = arbiter.tick(rig.now)
        command = decision.command
        assert not (arbiter.rig_fault and decision.driver is not Driver.PAUSED)
        assert not (arbiter.leader_fault and decision.driver in (Driver.ALIGNING, Driver.HUMAN))
        if command is not None:
            assert np.all(np.isfinite(command)) and np.all(command >= LOWER) and np.all(command <= UPPER)
            if previous is not None:
                assert np.all(np.abs(command - previous) <= VMAX * min(step, PERIOD) / NS_PER_S + 1e-9)
            rig.joints = command
        previous = command

    for kind, value in sequence:
        if kind == "leader":
            leader = np.clip(HOME + value, LOWER, UPPER)
        elif kind == "policy":
            rig.chunk(np.clip(HOME + value, LOWER, UPPER))
        elif kind == "request":
            arbiter.request(value, "test", rig.now)  # type: ignore[arg-type]
        elif kind == "rollback":
            arbiter.on_teleport(rig.now + 1, "rollback")
            rig.joints, previous = np.clip(HOME + value, LOWER, UPPER), None
        elif kind == "nan":
            arbiter.on_leader(np.full(7, np.nan), rig.now, rig.now)
            rig.chunk(np.full(7, np.nan))
        elif kind in ("fault", "busy"):
            arbiter.on_trouble("the arm does not obey", kind == "fault", rig.now)
            tick(with_rig=False)
            assert previous is None, "nothing is sent to an arm that does not obey"
            rig.joints = np.clip(rig.joints + 0.1 * value, LOWER, UPPER)  # a hand moves it meanwhile
            rig.now += TICK
            arbiter.on_trouble("", False, rig.now)
        elif kind == "leader fault":
            arbiter.on_leader_fault("overload" if value else "")
        elif kind == "rig fault":
            arbiter.on_trouble("emergency stop" if value else "", bool(value), rig.now)
            previous = None
        elif kind == "late tick":
            tick(with_rig=True, step=value * TICK)  # type: ignore[operator]
        elif kind == "episode":
            arbiter.begin_episode(rig.now) if value else arbiter.end_episode()
            previous = None
        elif kind == "silence":
            leader = None
        for _ in range(value if kind in ("wait", "silence") else 3):  # type: ignore[call-overload]
            tick(with_rig=kind != "silence")
