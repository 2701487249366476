"""Samples with the arm elsewhere: what changes in them, what must not, and that a resumed training sees the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hiwm_data.dataset import Dataset
from hiwm_policy.data import DataError, WindowSource, demonstration_frames, infer_spec
from hiwm_policy.displaced import DisplacedSource, Displacement

SETTINGS = Displacement(share=0.5, copies=2, moved=200.0)


class Painter:
    """Draws the first displaced joint as the brightness of the whole picture."""

    def redraw(
        self, images: Mapping[str, np.ndarray], joints: np.ndarray, displaced: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        assert joints.shape == displaced.shape and displaced.dtype == np.float32
        value = np.clip(128 + 100 * displaced[:, 0], 0, 255).astype(np.uint8)[:, None, None, None]
        return {name: np.broadcast_to(value, image.shape).copy() for name, image in images.items()}


def make(demos: Dataset, settings: Displacement = SETTINGS, image_steps: int = 1) -> DisplacedSource:
    return DisplacedSource(demos, demonstration_frames(demos), infer_spec(demos), image_steps, Painter(), settings)


def test_displaced_samples_show_their_joints_and_keep_their_targets(tiny_demos: Dataset) -> None:
    picks = np.arange(64)
    plain = WindowSource(tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1).batch(picks)
    batch = make(tiny_demos).batch(picks)
    assert torch.equal(batch.chunk, plain.chunk) and torch.equal(batch.mask, plain.mask)
    moved = (batch.joints[:, -1] != plain.joints[:, -1]).any(1)
    assert 16 < int(moved.sum()) < 48
    [camera] = batch.images
    shown, before = batch.images[camera][:, -1].float(), plain.images[camera][:, -1].float()
    assert torch.equal(shown[~moved], before[~moved])
    expected = (128 + 100 * batch.joints[moved, -1, 0]).clamp(0, 255).floor()
    assert (shown[moved].mean((1, 2, 3)) - expected).abs().max() <= 1


def test_the_arm_arrives_from_further_out_or_nearer_not_by_a_jump(tiny_demos: Dataset) -> None:
    picks = np.arange(64)
    plain = WindowSource(tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1).batch(picks)
    offset = make(tiny_demos).batch(picks).joints - plain.joints
    now, earlier = offset[:, -1:], offset[:, :-1]
    assert ((earlier - now).abs() <= 0.21 * now.abs() + 1e-6).all()


def test_a_batch_depends_on_its_picks_alone(tiny_demos: Dataset) -> None:
    first, second, picks = make(tiny_demos), make(tiny_demos), np.array([5, 9, 2, 30, 31, 8])
    first.batch(np.arange(10))
    a, b = first.batch(picks), second.batch(picks)
    assert torch.equal(a.joints, b.joints)
    assert all(torch.equal(a.images[n], b.images[n]) for n in a.images)


def test_where_the_scene_moves_the_arm_is_only_jittered(tiny_demos: Dataset) -> None:
    picks = np.arange(64)
    plain = WindowSource(tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1).batch(picks)

    def reach(source: DisplacedSource) -> float:
        return float((source.batch(picks).joints[:, -1] - plain.joints[:, -1]).abs().max())

    resting = make(tiny_demos)

    class Restless(Painter):
        count = 0

        def redraw(self, images, joints, displaced):  # type: ignore[no-untyped-def]
            Restless.count += 1
            return {n: np.full_like(i, 250 * (Restless.count % 2)) for n, i in images.items()}

    restless = DisplacedSource(
        tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1, Restless(), SETTINGS
    )
    assert reach(restless) < 0.5 * reach(resting)


def test_a_policy_that_sees_several_frames_is_refused(tiny_demos: Dataset) -> None:
    with pytest.raises(DataError, match="sees one frame, this one sees 2"):
        make(tiny_demos, image_steps=2)
