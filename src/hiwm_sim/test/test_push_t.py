"""Push-T: success is what it claims, the demonstrator reaches it, play reaches everything else."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hiwm_sim.rig import SimRig
from hiwm_sim.tasks import TASKS, Task, make_task, register_task, task_names
from hiwm_sim.tasks.push_t import PushT, PushTConfig, geometry

CONFIG = PushTConfig()
GOAL = np.array(CONFIG.goal)


def place(env: SimRig, offset: tuple[float, float, float], tip: tuple[float, float, float] | None = None) -> PushT:
    """A reset rig with the T at the goal plus ``offset``, and the tool at ``tip``."""
    task = env.task
    assert isinstance(task, PushT)
    env.reset(0)
    if tip is not None:
        for _ in range(12):
            env.advance(env.kinematics.inverse(tip))
    task.place(env.model, env.data, GOAL + offset)
    for _ in range(3):
        env.advance(env.target)
    return task


def test_tasks_register_themselves_and_an_unknown_one_is_named_with_the_known() -> None:
    assert "push_t" in task_names()
    assert isinstance(make_task("push_t"), Task)
    with pytest.raises(KeyError, match=r"fold.*push_t"):
        make_task("fold")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register_task("push_t")(PushT)
    assert TASKS["push_t"] is PushT


def test_coverage_is_the_overlap_of_two_ts() -> None:
    assert geometry.coverage(GOAL, GOAL, CONFIG.shape) == pytest.approx(1.0, abs=1e-5)
    assert geometry.coverage(GOAL + [0.3, 0, 0], GOAL, CONFIG.shape) == 0.0
    # Along its stem by one unit u: the bar leaves 4u^2 and finds u^2 of the goal's stem, the stem leaves u^2.
    shifted = geometry.transform([*GOAL], np.array([[0.0, -CONFIG.shape.unit]]))[0]
    assert geometry.coverage([*shifted, GOAL[2]], GOAL, CONFIG.shape) == pytest.approx(3 / 7, abs=1e-4)


def test_a_covered_goal_with_the_tool_up_is_success(blind: SimRig) -> None:
    place(blind, (0, 0, 0))
    assert blind.succeeded()
    assert blind.finish()


def test_a_covered_goal_under_a_lowered_tool_is_not_success_until_the_tool_retreats(blind: SimRig) -> None:
    place(blind, (0, 0, 0), tip=(0.25, 0.12, 0.015))
    assert not blind.succeeded()
    assert blind.finish()


def test_an_uncovered_goal_is_failure(blind: SimRig) -> None:
    place(blind, (0.04, 0.0, 0.0))
    assert not blind.succeeded()
    assert not blind.finish()


def test_a_moving_t_is_not_success(blind: SimRig) -> None:
    place(blind, (0, 0, 0))
    blind.data.qvel[int(blind.model.joint("T").dofadr[0])] = 0.3
    assert not blind.succeeded()


def test_success_survives_an_arm_that_was_left_stretched_out(blind: SimRig) -> None:
    place(blind, (0, 0, 0))
    for _ in range(20):
        blind.advance([0.9, 1.0, -1.2, 0.0, 0.5, 0.0, 0.009])
    blind.finish()
    np.testing.assert_allclose(blind.observe().joints[:6], blind.rig.home[:6], atol=0.02)


def test_starts_are_within_the_configured_distance_and_not_solved(blind: SimRig) -> None:
    for seed in range(30):
        blind.reset(seed)
        pose = blind.environment_state()[:3]
        assert np.linalg.norm(pose[:2] - GOAL[:2]) < CONFIG.start_distance + 1e-3
        assert abs(pose[2] - GOAL[2]) < CONFIG.start_angle + 0.02
        assert not blind.succeeded()


def test_the_demonstrator_succeeds_and_ends_still_at_home(blind: SimRig) -> None:
    for seed in (100, 101):
        blind.reset(seed)
        for action in islice(blind.task.demonstrate(blind, np.random.default_rng(0)), blind.task.max_steps):
            blind.advance(action)
        assert blind.succeeded()
        assert blind.steps < blind.task.max_steps
        np.testing.assert_allclose(blind.observe().joints, blind.rig.home, atol=5e-3)


def test_the_demonstrator_does_the_same_thing_twice(blind: SimRig) -> None:
    def actions() -> np.ndarray:
        blind.reset(5)
        taken = []
        for action in islice(blind.task.demonstrate(blind, np.random.default_rng(0)), 25):
            blind.advance(action)
            taken.append(action)
        return np.array(taken)

    np.testing.assert_array_equal(actions(), actions())


def test_play_moves_the_t_keeps_the_limits_and_never_ends(blind: SimRig) -> None:
    lower = np.array([j.lower for j in blind.rig.joints])
    upper = np.array([j.upper for j in blind.rig.joints])
    moved = 0
    for seed in range(4):
        blind.reset_play(seed)
        start = blind.environment_state()[:3]
        for action in islice(blind.task.play(blind, np.random.default_rng(seed)), 120):
            assert ((action >= lower) & (action <= upper)).all()
            blind.advance(action)
        moved += np.linalg.norm(blind.environment_state()[:2] - start[:2]) > 0.01
        assert blind.steps == 120
    assert moved >= 2
