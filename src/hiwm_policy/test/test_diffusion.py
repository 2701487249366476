"""The diffusion policy: shapes, determinism, save and load, normalisation, learning at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_data.dataset import Dataset
from hiwm_policy.data import WindowSource, demonstration_frames, infer_spec
from hiwm_policy.diffusion import DiffusionConfig, DiffusionPolicy
from hiwm_policy.evaluation import EvaluationConfig, evaluate
from hiwm_policy.normalizer import ACTION_STD_FLOOR, Normalizer
from hiwm_policy.policy import CONFIG_FILE, WEIGHTS_FILE, PolicyError, PolicyObservation, load_policy, policy_names
from hiwm_policy.testing import SMALL, TinyEnv, record
from hiwm_policy.training import TrainConfig, train_policy
from hiwm_rig.contract import Rig


@pytest.fixture(scope="module")
def policy(tiny_demos: Dataset) -> DiffusionPolicy:
    torch.manual_seed(0)
    made = DiffusionPolicy(DiffusionConfig(spec=infer_spec(tiny_demos), **SMALL))
    made.fit_normalizer([WindowSource(tiny_demos, demonstration_frames(tiny_demos), made.spec, 1)])
    return made


def observation(batch: int = 2) -> PolicyObservation:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (batch, 2, 32, 32, 3), dtype=np.uint8)
    return PolicyObservation({"front": images}, rng.normal(size=(batch, 2, 3)).astype(np.float32) * 0.3)


def test_a_chunk_has_one_row_per_step_of_the_horizon(policy: DiffusionPolicy) -> None:
    chunk = policy.predict_action(observation(3))
    assert chunk.shape == (3, 16, 3) and chunk.dtype == np.float32 and np.isfinite(chunk).all()


def test_the_same_seed_draws_the_same_chunk_and_another_seed_another(policy: DiffusionPolicy) -> None:
    chunks = []
    for seed in (5, 5, 6):
        policy.reset(seed)
        chunks.append(policy.predict_action(observation()))
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert np.abs(chunks[0] - chunks[2]).max() > 1e-5


def test_without_a_seed_episodes_differ(policy: DiffusionPolicy) -> None:
    policy.reset()
    first = policy.predict_action(observation())
    policy.reset()
    assert np.abs(first - policy.predict_action(observation())).max() > 1e-5


def test_a_saved_policy_acts_as_the_one_in_memory(policy: DiffusionPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    loaded = load_policy(tmp_path)
    assert "diffusion" in policy_names() and loaded.spec == policy.spec
    policy.reset(1)
    loaded.reset(1)
    np.testing.assert_allclose(loaded.predict_action(observation()), policy.predict_action(observation()), atol=5e-3)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda d: (d / CONFIG_FILE).unlink(), "config.json is missing"),
        (lambda d: (d / WEIGHTS_FILE).unlink(), "weights are missing"),
        (lambda d: (d / WEIGHTS_FILE).write_bytes(b"not tensors"), "not a readable safetensors"),
        (lambda d: (d / CONFIG_FILE).write_text("{"), "not JSON"),
        (lambda d: _edit(d, ["policy"], "oracle"), "unknown policy 'oracle'"),
        (lambda d: _edit(d, ["config", "width"], 72), "does not fit"),
        (lambda d: _edit(d, ["config", "width"], "wide"), "width"),
    ],
)
def test_a_broken_checkpoint_says_what_is_wrong(
    policy: DiffusionPolicy, tmp_path: Path, break_it: object, expected: str
) -> None:
    policy.save(tmp_path)
    break_it(tmp_path)  # type: ignore[operator]
    with pytest.raises(PolicyError, match=expected):
        load_policy(tmp_path)


def _edit(directory: Path, keys: list[str], value: object) -> None:
    path = directory / CONFIG_FILE
    raw = json.loads(path.read_text())
    place = raw
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(raw))


def test_an_observation_of_the_wrong_size_is_refused_with_what_was_expected(policy: DiffusionPolicy) -> None:
    good = observation()
    with pytest.raises(PolicyError, match=r"joints must be \(B, 2, 3\)"):
        policy.predict_action(PolicyObservation(good.images, good.joints[:, :, :2]))
    with pytest.raises(PolicyError, match="no image of camera 'front'"):
        policy.predict_action(PolicyObservation({}, good.joints))
    with pytest.raises(PolicyError, match="must be uint8"):
        policy.predict_action(PolicyObservation({"front": good.images["front"][:, :, :16]}, good.joints))


def test_a_rig_that_the_policy_does_not_know_is_refused(policy: DiffusionPolicy, tiny_rig: Rig) -> None:
    policy.spec.check_rig(tiny_rig)
    other = tiny_rig.model_copy(update={"cameras": (tiny_rig.cameras[0].model_copy(update={"width": 64}),)})
    with pytest.raises(PolicyError, match="64x32"):
        policy.spec.check_rig(other)
    with pytest.raises(PolicyError, match=r"20\.0 Hz"):
        policy.spec.check_rig(tiny_rig.model_copy(update={"control_rate_hz": 20.0}))


def test_a_joint_that_never_moves_is_normalised_without_dividing_by_nothing() -> None:
    rng = np.random.default_rng(0)
    joints = np.column_stack([rng.normal(size=200), np.full(200, 0.009)]).astype(np.float32)
    chunks = np.repeat(joints[:, None], 4, axis=1) + rng.normal(size=(200, 4, 1)).astype(np.float32) * [0.1, 0.0]
    normalizer = Normalizer(4, 2)
    normalizer.fit(joints, chunks.astype(np.float32))
    assert torch.isfinite(normalizer.joints(torch.tensor(joints))).all()
    assert float(normalizer.action_std[:, 1].max()) == pytest.approx(ACTION_STD_FLOOR)
    # Even noise at the limit of the diffusion moves a constant joint by millimetres at most.
    worst = normalizer.decode(torch.full((1, 4, 2), float(normalizer.action_limit)), torch.tensor([[0.0, 0.009]]))
    assert float((worst[..., 1] - 0.009).abs().max()) < 0.03


def test_encoding_and_decoding_a_chunk_are_inverse(policy: DiffusionPolicy) -> None:
    newest, chunk = torch.randn(3, 3), torch.randn(3, 16, 3)
    normalizer = policy.network.normalizer
    torch.testing.assert_close(normalizer.decode(normalizer.encode(chunk, newest), newest), chunk)


def test_positions_do_not_depend_on_where_the_crop_was_taken(policy: DiffusionPolicy) -> None:
    """The same bright square, cropped twice: keypoints are in coordinates of the full image."""
    encoder = policy.network.encoders["front"]
    maps = torch.full((2, 1, 8, 8), -20.0)
    maps[0, 0, 3, 4] = maps[1, 0, 1, 2] = 20.0  # the same place, seen from crops that differ by two cells
    window = torch.tensor([[-1.0, -1.0, 0.0, 0.0], [-0.75, -0.75, 0.25, 0.25]])
    first, second = encoder._positions(maps, window)
    torch.testing.assert_close(first, second)


def test_a_handful_of_demonstrations_is_learned_by_heart(tiny_rig: Rig, tmp_path: Path) -> None:
    data = record(tmp_path / "data", tiny_rig, 6)
    config = TrainConfig(
        steps=250, batch_size=24, learning_rate=4e-3, warmup_steps=10, ema_decay=0.95, save_every=250, precision="no"
    )
    train_policy([data.root], tmp_path / "policy", config, model=SMALL)
    short = EvaluationConfig(max_steps=24)
    result = evaluate(load_policy(tmp_path / "policy"), TinyEnv(tiny_rig), range(6), tiny_rig, short)
    assert result["success"] >= 0.6


def test_training_stopped_and_continued_gives_the_same_weights(tiny_demos: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(steps=6, save_every=3, batch_size=8, precision="no", keep_snapshots=True)
    train_policy([tiny_demos.root], tmp_path / "whole", config, model=SMALL)

    class Killed(Exception):
        pass

    from hiwm_policy import training

    saved = training.save_state

    def save_and_die(directory: Path, trainer: training.Trainer) -> None:
        saved(directory, trainer)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save_state", save_and_die)
        with pytest.raises(Killed):
            train_policy([tiny_demos.root], tmp_path / "parts", config, model=SMALL)
    train_policy([tiny_demos.root], tmp_path / "parts", config, model=SMALL)
    whole, parts = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_training_is_not_continued_with_another_configuration(tiny_demos: Dataset, tmp_path: Path) -> None:
    settings = {"batch_size": 8, "precision": "no"}
    train_policy([tiny_demos.root], tmp_path, TrainConfig(steps=1, **settings), model=SMALL)
    with pytest.raises(PolicyError, match="another configuration"):
        train_policy([tiny_demos.root], tmp_path, TrainConfig(steps=1, seed=3, **settings), model=SMALL)
