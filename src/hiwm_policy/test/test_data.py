"""Which frames are learned from: successes only, corrections only where a person drove, nothing across a branch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_data.dataset import Dataset, DatasetWriter, rig_features
from hiwm_policy.data import (
    DataError,
    MixedSampler,
    WindowSource,
    correction_frames,
    demonstration_frames,
    infer_spec,
)
from hiwm_policy.loader import batches
from hiwm_policy.policy import PolicyError, load_policy
from hiwm_policy.posttraining import PosttrainConfig, posttrain_policy
from hiwm_policy.testing import SMALL, TinyEnv, episode_frames, record
from hiwm_policy.training import TrainConfig, train_policy
from hiwm_rig.contract import Rig


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory, tiny_rig: Rig) -> Dataset:
    """Episodes of 14 frames; frames 3 to 8 were driven by a person."""
    return record(tmp_path_factory.mktemp("corrections") / "set", tiny_rig, 3, provenance=True)


def test_play_failures_and_the_other_split_are_not_learned_from(tmp_path: Path, tiny_rig: Rig) -> None:
    metas = [
        {"split": "train", "source": "demonstration", "outcome": "success"},
        {"split": "train", "source": "demonstration", "outcome": "failure"},
        {"split": "train", "source": "play", "outcome": "success"},
        {"split": "val", "source": "demonstration", "outcome": "success"},
    ]
    with DatasetWriter(tmp_path / "d", fps=10.0, features=rig_features(tiny_rig), robot_type="tiny") as writer:
        for seed, meta in enumerate(metas):
            writer.add_episode(episode_frames(TinyEnv(tiny_rig), seed, 10, False), task="tiny", meta=meta)
    dataset = Dataset(tmp_path / "d")
    assert demonstration_frames(dataset, "train").index.tolist() == list(range(10))
    assert demonstration_frames(dataset, "val").index.tolist() == list(range(30, 40))


def test_chunks_of_demonstrations_hold_the_last_target_at_the_end(tiny_demos: Dataset) -> None:
    source = WindowSource(tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1)
    batch = source.batch(np.array([12]))  # frame 12 of 14
    actions = tiny_demos.column("action")
    np.testing.assert_array_equal(batch.chunk[0, :2], actions[12:14])
    np.testing.assert_array_equal(batch.chunk[0, 2:], np.repeat(actions[13:14], 14, axis=0))
    assert batch.mask.min() == 1


def test_history_does_not_reach_into_the_previous_episode(tiny_demos: Dataset) -> None:
    source = WindowSource(tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1)
    joints = source.batch(np.array([14])).joints[0]  # first frame of the second episode
    np.testing.assert_array_equal(joints[0], joints[1])


def test_only_corrected_frames_start_a_chunk_and_targets_end_with_the_hand_back(corrections: Dataset) -> None:
    frames = correction_frames(corrections, handback=2)
    assert frames.index[:6].tolist() == [3, 4, 5, 6, 7, 8] and len(frames) == 18
    batch = WindowSource(corrections, frames, infer_spec(corrections), 1).batch(np.array([0, 5]))
    assert batch.mask.sum(1).tolist() == [8, 3]  # rows 3..8 plus two of the hand-back


def test_corrections_below_the_trust_threshold_are_left_out(corrections: Dataset) -> None:
    assert len(correction_frames(corrections, min_trust=1.0)) == 18
    assert len(correction_frames(corrections, min_trust=1.1)) == 0


def test_a_chunk_never_crosses_into_another_branch(tmp_path: Path, tiny_rig: Rig) -> None:
    frames = episode_frames(TinyEnv(tiny_rig), 0, 14, True)
    frames["branch_id"] = (np.arange(14) >= 7).astype(np.int64)
    with DatasetWriter(tmp_path / "d", fps=10.0, features=rig_features(tiny_rig, provenance=True), robot_type="t") as w:
        w.add_episode(frames, task="tiny", meta={})
    found = correction_frames(Dataset(tmp_path / "d"), handback=4, minimum=2)
    assert dict(zip(found.index.tolist(), found.last.tolist(), strict=True)) == {3: 6, 4: 6, 5: 6, 6: 6, 7: 12, 8: 12}
    assert found.first.tolist() == [0, 0, 0, 0, 7, 7]


def test_batches_mix_sources_at_the_configured_share_and_depend_on_the_step_alone(
    tiny_demos: Dataset, corrections: Dataset
) -> None:
    spec = infer_spec(tiny_demos)
    sources = [
        WindowSource(tiny_demos, demonstration_frames(tiny_demos), spec, 1),
        WindowSource(corrections, correction_frames(corrections, handback=0), spec, 1),
    ]
    sampler = MixedSampler(sources, [0.5, 0.5], 32, seed=1)
    batch, again, other = sampler.batch(7), sampler.batch(7), sampler.batch(8)
    assert int((batch.mask.min(1).values == 0).sum()) == 16  # only corrections have masked targets
    assert (batch.joints == again.joints).all() and not (batch.joints == other.joints).all()


def test_a_dataset_without_interventions_is_refused_for_post_training(tiny_demos: Dataset) -> None:
    with pytest.raises(DataError, match="need the column 'intervention'"):
        correction_frames(tiny_demos)


def test_post_training_keeps_the_base_and_its_normalisation(
    tiny_demos: Dataset, corrections: Dataset, tmp_path: Path
) -> None:
    settings = {"batch_size": 8, "precision": "no"}
    train_policy([tiny_demos.root], tmp_path / "base", TrainConfig(steps=2, **settings), model=SMALL)
    before = (tmp_path / "base" / "policy.safetensors").read_bytes()
    config = PosttrainConfig(steps=2, **settings)
    facts = posttrain_policy(tmp_path / "base", [tiny_demos.root], [corrections.root], tmp_path / "new", config)
    assert facts["corrections"].startswith("3 (18 frames)")
    assert (tmp_path / "base" / "policy.safetensors").read_bytes() == before
    base, new = (load_policy(tmp_path / name).network.state_dict() for name in ("base", "new"))
    changed = {name for name in base if not bool((base[name] == new[name]).all())}
    assert changed and not any(name.startswith("normalizer") for name in changed)
    with pytest.raises(PolicyError, match="must differ from --base"):
        posttrain_policy(tmp_path / "base", [tiny_demos.root], [corrections.root], tmp_path / "base", config)


def test_workers_draw_the_same_batches_in_the_same_order(tiny_demos: Dataset) -> None:
    source = WindowSource(tiny_demos, demonstration_frames(tiny_demos), infer_spec(tiny_demos), 1)
    sampler = MixedSampler([source], [1.0], 8, seed=3)
    alone, helped = (list(batches(sampler, range(5, 11), workers=n)) for n in (0, 2))
    assert len(alone) == len(helped) == 6
    for mine, theirs, step in zip(alone, helped, range(5, 11), strict=True):
        wanted = sampler.batch(step)
        for batch in (mine, theirs):
            assert torch.equal(batch.chunk, wanted.chunk) and torch.equal(batch.joints, wanted.joints)
            assert all(torch.equal(batch.images[c], wanted.images[c]) for c in wanted.images)


def test_a_dataset_with_other_joints_is_another_rig(tiny_demos: Dataset) -> None:
    spec = infer_spec(tiny_demos)
    other = spec.model_copy(update={"joint_names": tuple(f"other_{n}" for n in spec.joint_names)})
    with pytest.raises(DataError, match=r"'observation.state' holds .*, expected \['other_.*another rig"):
        WindowSource(tiny_demos, demonstration_frames(tiny_demos), other, 1)
