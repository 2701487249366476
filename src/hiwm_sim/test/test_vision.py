"""The T is measured in a picture to a fraction of a pixel, and found again when the arm hides part of it."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hiwm_rig.contract import Rig
from hiwm_sim.camera import Projection
from hiwm_sim.rig import SimRig
from hiwm_sim.scene import wrist_camera
from hiwm_sim.tasks.push_t.vision import TVision


@pytest.fixture(scope="module")
def vision(rig: Rig) -> TVision:
    return TVision(rig)


def turned(a: float, b: float) -> float:
    return float(np.degrees(abs((a - b + np.pi) % (2 * np.pi) - np.pi)))


def test_the_pose_of_an_unhidden_t_is_found_without_a_guess(env: SimRig, vision: TVision) -> None:
    pixels, degrees = [], []
    for seed in range(12):
        image = env.reset_play(seed).images["front"]
        truth = env.environment_state()[:3]
        found = vision.measure(image)
        assert found is not None
        assert found.fit > 0.85
        pixels.append(np.linalg.norm(vision.centroid(found.pose) - vision.centroid(truth)))
        degrees.append(turned(found.pose[2], truth[2]))
    assert np.median(pixels) < 0.5
    assert max(pixels) < 1.0
    assert np.median(degrees) < 2.0
    assert max(degrees) < 3.0


def test_tracking_keeps_the_t_while_the_arm_hides_parts_of_it(env: SimRig, vision: TVision) -> None:
    seen = env.reset_play(3)
    found = vision.measure(seen.images["front"])
    hidden = 0
    for action in islice(env.task.play(env, np.random.default_rng(3)), 60):
        assert found is not None
        found = vision.measure(env.step(action).images["front"], found.pose)
        truth = env.environment_state()[:3]
        assert found is not None
        hidden += found.visible < 0.95
        assert np.linalg.norm(vision.centroid(found.pose) - vision.centroid(truth)) < 1.5
        assert turned(found.pose[2], truth[2]) < 6
    assert hidden > 3


def test_a_picture_without_a_t_gives_no_pose(vision: TVision) -> None:
    assert vision.measure(np.full((128, 128, 3), 140, np.uint8)) is None


def test_mask_and_silhouette_agree_on_an_unhidden_t(env: SimRig, vision: TVision) -> None:
    image = env.reset_play(6).images["front"]
    mask, drawn = vision.t_mask(image), vision.silhouette(env.environment_state()[:3])
    assert (mask & drawn).sum() / (mask | drawn).sum() > 0.9


def test_the_tip_is_projected_to_where_the_rod_is_seen(env: SimRig, vision: TVision) -> None:
    env.reset_play(0)
    for _ in range(12):
        image = env.step(env.kinematics.inverse([0.36, -0.12, 0.05])).images["front"]
    u, v = vision.tip(env.observe().joints)
    assert image[int(v) - 1, int(u)].max() < 60
    assert image[int(v) + 6, int(u)].max() > 90


def test_a_camera_on_the_arm_has_no_fixed_projection() -> None:
    with pytest.raises(ValueError, match="hand"):
        Projection(wrist_camera())


def test_projection_and_its_inverse_agree(rig: Rig) -> None:
    project = Projection(rig.cameras[0])
    points = np.random.default_rng(0).uniform([0.2, -0.15], [0.45, 0.15], (20, 2))
    pixels = project(np.column_stack([points, np.full(20, 0.03)]))
    np.testing.assert_allclose(project.on_plane(pixels, 0.03), points, atol=1e-9)
