"""What the operator sees and does on Push-T, from synthetic glimpses and rendered pictures, never from sim state."""

from __future__ import annotations

import inspect

import hiwm_teleop.operators.push_t as module
import numpy as np
import pytest
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Driver
from hiwm_sim.ik import ArmKinematics
from hiwm_sim.rig import SimRig
from hiwm_teleop.operators.push_t import PushTSkill
from hiwm_teleop.skill import Glimpse, View, make_skill

RIG = load_rig("push_t")
HOME = np.array(RIG.home)
VMAX = np.array([j.max_velocity for j in RIG.joints])


@pytest.fixture(scope="module")
def skill() -> PushTSkill:
    return PushTSkill(RIG)


def history(distances: list[float], moving: bool = True, solved: bool = False) -> list[Glimpse]:
    wiggle = 0.05 * np.sin(np.arange(len(distances))) * moving
    return [Glimpse(d, solved, HOME + w, np.zeros(3)) for d, w in zip(distances, wiggle)]


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (history([0.05] * 31, moving=False), "the policy stands still"),
        (history([0.05] * 45), "the policy hesitates"),
        (history(list(np.linspace(0.05, 0.03, 20)) + list(np.linspace(0.03, 0.05, 12))), "wrong contact"),
        (history([0.03 + 0.004 * (k % 3) for k in range(60)]), "no progress"),
        (history(list(np.linspace(0.06, 0.0, 60))), None),
        (history([0.004] * 60, moving=False, solved=True), None),
        ([Glimpse(np.nan, False, HOME, np.zeros(0))] * 60, None),
    ],
)
def test_a_rollout_is_failing_exactly_when_it_looks_so(
    skill: PushTSkill, seen: list[Glimpse], reason: str | None
) -> None:
    assert skill.failing(seen, len(seen)) == reason


def test_it_goes_back_to_where_the_t_was_nearest_to_the_goal(skill: PushTSkill) -> None:
    seen = history([0.06, 0.05, 0.03, 0.0305, 0.03, 0.045, 0.05])
    assert skill.good_span(seen) == (2, 4)


def test_a_hidden_t_is_where_it_was_seen_last(skill: PushTSkill) -> None:
    seen = [Glimpse(0.03, False, HOME, np.array([0.3, 0.0, 1.0])), Glimpse(np.nan, False, HOME + 0.1, np.zeros(0), 0.1)]
    remembered = skill.recall(seen)
    assert np.allclose(remembered.pose, [0.3, 0.0, 1.0]) and np.allclose(remembered.joints, HOME + 0.1)


def test_a_correction_moves_like_the_demonstrator_within_the_limits_and_the_time(skill: PushTSkill) -> None:
    glimpse = Glimpse(0.04, False, HOME, np.array([0.36, 0.04, 0.5]))
    correction = skill.plan(glimpse, HOME, 0, np.random.default_rng(0))
    assert correction is not None
    rows = []
    while (row := correction.next(glimpse)) is not None and len(rows) < 60:
        rows.append(row)
    path = np.stack([HOME, *rows])
    assert 10 <= len(rows) <= 40
    assert np.all(np.abs(np.diff(path, axis=0)) <= VMAX * RIG.period_s)
    heights = ArmKinematics().tip(path)[:, 2]
    tool = skill.config.tool
    assert heights.min() == pytest.approx(tool.push_height, abs=1e-3)
    assert heights[-1] >= tool.travel_height - 1e-3


def test_where_the_t_fits_the_tool_only_withdraws_and_rests(skill: PushTSkill) -> None:
    glimpse = Glimpse(0.0, True, HOME, np.array(skill.config.goal))
    low = ArmKinematics().inverse([0.3, 0.1, 0.012])
    correction = skill.plan(glimpse, low, 0, np.random.default_rng(0))
    assert correction is not None
    rows = []
    while (row := correction.next(glimpse)) is not None:
        rows.append(row)
    assert np.allclose(rows[-1], HOME, atol=2e-3) and np.allclose(rows[-5], rows[-1])


def test_an_unseen_t_gives_no_correction(skill: PushTSkill) -> None:
    assert skill.plan(Glimpse(np.nan, False, HOME, np.zeros(0)), HOME, 0, np.random.default_rng(0)) is None


def test_another_branch_pushes_differently(skill: PushTSkill) -> None:
    glimpse = Glimpse(0.04, False, HOME, np.array([0.36, 0.04, 0.5]))

    def ends(attempt: int) -> np.ndarray:
        correction = skill.plan(glimpse, HOME, attempt, np.random.default_rng(attempt))
        assert correction is not None
        return np.stack([correction.next(glimpse) for _ in range(9)])

    assert np.allclose(ends(0), ends(0))
    assert not np.allclose(ends(0), ends(1))


def test_the_stand_in_finishes_an_episode_from_pictures_alone(skill: PushTSkill) -> None:
    with SimRig(RIG) as rig:
        observation, correction = rig.reset(9003), None
        skill.reset()
        for _ in range(120):
            view = View(observation.images, observation.joints, observation.stamp_ns, Driver.HUMAN)
            glimpse = skill.look(view)
            action = None if correction is None else correction.next(glimpse)
            if action is None:
                if correction is not None and skill.done(glimpse):
                    break
                correction = skill.plan(glimpse, observation.joints, 0, np.random.default_rng(0))
                assert correction is not None
                action = correction.next(glimpse)
            assert action is not None
            observation = rig.step(action)
        assert rig.finish()


def test_the_operator_reads_no_simulator_state() -> None:
    source = inspect.getsource(module)
    for forbidden in ("SimRig", "environment_state", "mj_", "qpos", ".task"):
        assert forbidden not in source.replace("hiwm_sim.tasks", "")


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="push_t"):
        make_skill("juggling", RIG)
