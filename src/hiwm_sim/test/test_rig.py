"""The simulated rig keeps the contract of a rig: lock-step, deterministic, inside its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hiwm_rig.contract import Rig
from hiwm_rig.types import RigEnv
from hiwm_sim.rig import SimRig
from hiwm_sim.scene import SceneError


def test_sim_rig_is_a_rig_env(env: SimRig) -> None:
    assert isinstance(env, RigEnv)


def test_observation_is_what_the_rig_file_says(env: SimRig, rig: Rig) -> None:
    seen = env.reset(0)
    assert seen.images["front"].shape == (128, 128, 3)
    assert seen.images["front"].dtype == np.uint8
    np.testing.assert_allclose(seen.joints, rig.home, atol=2e-3)
    assert env.step(np.array(rig.home)).stamp_ns - seen.stamp_ns == 100_000_000


def test_equal_seeds_and_actions_give_equal_pictures_and_joints(rig: Rig) -> None:
    def run() -> tuple[np.ndarray, np.ndarray]:
        with SimRig(rig) as env:
            env.reset(7)
            for action in [env.kinematics.inverse([0.3, y, 0.03]) for y in (0.02, 0.05, 0.08)]:
                seen = env.step(action)
            return seen.images["front"], seen.joints

    (image_a, joints_a), (image_b, joints_b) = run(), run()
    np.testing.assert_array_equal(joints_a, joints_b)
    np.testing.assert_array_equal(image_a, image_b)


def test_a_reset_forgets_the_episode_before(blind: SimRig) -> None:
    blind.reset(3)
    first = blind.environment_state()
    for _ in range(5):
        blind.step(blind.kinematics.inverse([0.3, 0.1, 0.05]))
    blind.reset(3)
    np.testing.assert_array_equal(blind.environment_state(), first)


def test_other_seeds_start_elsewhere(blind: SimRig) -> None:
    starts = []
    for seed in range(4):
        blind.reset(seed)
        starts.append(blind.environment_state()[:3])
    assert len({tuple(np.round(s, 4)) for s in starts}) == 4


def test_targets_are_limited_in_velocity_and_position(blind: SimRig, rig: Rig) -> None:
    blind.reset(0)
    wild = np.array(rig.home) + 10.0
    before = blind.target
    blind.advance(wild)
    limits = np.array([j.max_velocity for j in rig.joints]) * rig.period_s
    assert (np.abs(blind.target - before) <= limits + 1e-12).all()
    for _ in range(30):
        blind.advance(wild)
    assert (blind.target <= np.array([j.upper for j in rig.joints]) + 1e-12).all()


@pytest.mark.parametrize("action", [np.zeros(6), np.zeros((1, 7)), np.full(7, np.nan), np.full(7, np.inf)])
def test_an_unusable_action_is_refused_and_changes_nothing(blind: SimRig, action: np.ndarray) -> None:
    blind.reset(0)
    before = blind.environment_state()
    with pytest.raises(ValueError, match="action must"):
        blind.step(action)
    np.testing.assert_array_equal(blind.environment_state(), before)


def test_the_arm_follows_its_targets(blind: SimRig) -> None:
    blind.reset(0)
    goal = [0.25, 0.1, 0.1]
    for _ in range(15):
        blind.advance(blind.kinematics.inverse(goal))
    np.testing.assert_allclose(blind.tip(), goal, atol=2e-3)


def test_a_wrist_camera_can_be_switched_on(rig: Rig) -> None:
    with SimRig(rig, wrist=True) as env:
        images = env.reset(0).images
    assert set(images) == {"front", "wrist"}
    assert images["wrist"].std() > 5


def test_a_rig_file_of_another_robot_is_refused_with_its_name(rig: Rig) -> None:
    arm = rig.arms[0].model_copy(update={"joints": rig.joints[:-1], "home": rig.home[:-1]})
    with pytest.raises(SceneError, match="push_t"):
        SimRig(rig.model_copy(update={"arms": (arm,)}))
    with pytest.raises(SceneError, match="ceiling"):
        SimRig(rig.model_copy(update={"cameras": (rig.cameras[0].model_copy(update={"name": "ceiling"}),)}))
