"""Metrics mean what they say, windows never look past an episode, and trust is calibrated on episodes of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_data.dataset import Dataset
from hiwm_rig.probe import ObjectView
from hiwm_world_model.evaluate import Options, evaluate_world, markdown
from hiwm_world_model.interface import ModelError
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.registry import load_world_model
from hiwm_world_model.rollouts import check_dataset, held_out, open_loop, windows_of
from hiwm_world_model.trust import Samples, TrustHead, collect_samples, fit, fold_of
from tiny_dataset import LENGTH, write_tiny_dataset
from tiny_world_model import TinyWorldModel

from hiwm_world_model import commands, fidelity


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", episodes=16)


def test_equal_pictures_are_perfect_and_a_moved_square_is_not() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert fidelity.mean_absolute_error(image, image) == 0
    assert fidelity.psnr(image, image) == 100 and fidelity.ssim(image, image) == pytest.approx(1, abs=1e-5)
    noisy = np.clip(image.astype(int) + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)
    assert 26 < fidelity.psnr(noisy, image) < 30
    flat = np.full((64, 64, 3), 100, np.uint8)
    moved = flat.copy()
    moved[20:28, 20:28] = 200
    assert fidelity.worst_block(flat, moved) == pytest.approx(100 / 255, rel=0.01)
    assert fidelity.mean_absolute_error(flat, moved) < 0.01, "the mean hardly sees what the worst block shows"


def test_angles_are_compared_around_the_circle_and_a_lost_object_counts_as_far_off() -> None:
    a = ObjectView(np.array([10.0, 10.0]), np.pi - 0.01, np.zeros(3))
    b = ObjectView(np.array([13.0, 14.0]), -np.pi + 0.01, np.zeros(3))
    errors = fidelity.object_errors(a, b, width=100)
    assert errors["centroid"] == pytest.approx(0.05) and errors["angle_deg"] == pytest.approx(np.degrees(0.02))
    assert fidelity.object_errors(None, b, 100)["lost"] == 1
    assert fidelity.moved(a, b, 100) and not fidelity.moved(a, a, 100)


def test_auroc_and_calibration_error_on_known_cases() -> None:
    right = np.array([True, True, False, False])
    assert fidelity.auroc(np.array([0.9, 0.8, 0.2, 0.1]), right) == 1
    assert fidelity.auroc(np.array([0.5, 0.5, 0.5, 0.5]), right) == 0.5
    assert np.isnan(fidelity.auroc(np.ones(3), np.ones(3, bool)))
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    assert fidelity.calibration_error(p, rng.uniform(size=p.size) < p) < 0.02
    assert fidelity.calibration_error(np.full(100, 0.9), np.zeros(100, bool)) == pytest.approx(0.9)


def test_windows_stay_inside_their_episode_and_inside_the_split(data: Path) -> None:
    dataset = Dataset(data)
    episodes = held_out(dataset)
    assert [e.index for e in episodes] == list(range(8, 16))
    windows = windows_of(episodes, horizon=15, stride=5)
    ends = {e.index: e.start + e.length for e in episodes}
    assert windows and all(w.row + w.length < ends[w.episode] and w.row >= w.first for w in windows)
    with pytest.raises(ModelError, match="no episode of split 'test'; it has"):
        held_out(dataset, "test")


def test_a_rollout_is_the_same_in_a_batch_and_alone(data: Path, tiny: TinyWorldModel) -> None:
    dataset = Dataset(data)
    windows = windows_of(held_out(dataset), horizon=8, stride=7)
    together = {
        (p.step, int(w)): p.result.joints[k]
        for p in open_loop(tiny, dataset, windows, 8)
        for w, k in zip(p.windows, p.picks)
    }
    alone = [(p.step, p.result.joints[0]) for p in open_loop(tiny, dataset, windows[-1:], 8)]
    assert len(alone) == windows[-1].length
    for step, joints in alone:
        np.testing.assert_allclose(joints, together[step, len(windows) - 1], atol=1e-6)


def test_data_of_another_rig_is_refused(data: Path) -> None:
    model = TinyWorldModel.make(seed=0, rig_name="droid")
    with pytest.raises(ModelError, match=r"the model needs camera .* the data has \{'front': \(128, 128, 3\)\}"):
        check_dataset(model, Dataset(data))


def test_the_report_has_the_model_and_the_repeated_frame_side_by_side(data: Path, tiny: TinyWorldModel) -> None:
    report = evaluate_world(tiny, data, Options(horizons=(1, 10), stride=8, objects=False))
    part = report["horizons"]["10"]
    assert part["windows"] > 0 and {"mae", "psnr_db", "ssim", "joints"} <= set(part["model"])
    assert part["model"]["joints"]["median"] < part["repeat_last"]["joints"]["median"], "absolute targets are known"
    assert part["model"]["mae"]["n"] == part["windows"]
    table = markdown(report)
    assert "last frame repeated" in table and "| 10 (0 moving) | model |" in table


def made_up_samples(noise: float) -> Samples:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(600, 3)).astype(np.float32)
    error = 0.2 + 0.1 * features[:, 0] + noise * rng.normal(size=600)
    return Samples(features, error, np.arange(600) % 2, np.ones(600, np.int64))


def test_trust_ranks_right_above_wrong_and_is_calibrated(tmp_path: Path) -> None:
    head = fit(made_up_samples(0.05))
    assert head.report.auroc > 0.9 and head.report.calibration_error < 0.1
    trust = head(torch.tensor([[-2.0, 0, 0], [2.0, 0, 0]]))
    assert trust[0] > 0.9 and trust[1] < 0.1
    head.save(tmp_path)
    again = TrustHead.load_if_present(tmp_path)
    assert again is not None and again.report == head.report
    assert torch.equal(again(torch.ones(1, 3)), head(torch.ones(1, 3)))
    far = head(torch.tensor([[1e9, 1e9, 1e9]]))
    assert torch.isfinite(far).all() and 0 <= float(far[0]) <= 1


def test_trust_that_cannot_be_learned_is_refused_with_a_reason() -> None:
    samples = made_up_samples(0.05)
    with pytest.raises(ModelError, match="0 are right"):
        fit(samples, threshold=-1.0)


def test_a_damaged_trust_head_is_named(tmp_path: Path) -> None:
    (tmp_path / "trust.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"trust\.safetensors: not a trust head"):
        TrustHead.load_if_present(tmp_path)


def test_the_episodes_trust_is_reported_on_are_not_those_it_is_fitted_on(data: Path, tiny: TinyWorldModel) -> None:
    folds = fold_of(held_out(Dataset(data)))
    assert sorted(folds.values()) == [0] * 4 + [1] * 4
    samples = collect_samples(tiny, Dataset(data), horizon=12, stride=6)
    assert set(samples.fold) == {0, 1} and len(samples.features) == len(samples.error)
    assert samples.step.max() <= LENGTH


def test_finishing_a_model_makes_it_complete_and_the_commands_report(data: Path, tmp_path: Path, capsys) -> None:
    import argparse

    TinyWorldModel.make(seed=3).save(tmp_path)
    commands.finish_model(tmp_path, [data], None)
    model = load_world_model(tmp_path)
    assert model.trust_head is not None and len(StartLibrary.load(tmp_path)) == 16
    parser = argparse.ArgumentParser()
    commands.add_evaluate_arguments(parser)
    out = tmp_path / "deep" / "report.json"
    words = ["--model", str(tmp_path), "--data", str(data), "--out", str(out), "--horizons", "1", "5", "--windows", "6"]
    assert commands.run_evaluate(parser.parse_args(words)) == 0
    assert out.is_file() and "| 5 (" in out.with_suffix(".md").read_text()
    words[1] = str(tmp_path / "nothing")
    assert commands.run_evaluate(parser.parse_args(words)) == 1
    assert "config.json: missing" in capsys.readouterr().err


def test_too_few_held_out_episodes_leave_a_model_without_trust(tmp_path: Path, capsys) -> None:
    few = write_tiny_dataset(tmp_path / "few", episodes=2)
    TinyWorldModel.make(seed=3).save(tmp_path)
    commands.finish_model(tmp_path, [few], None)
    assert "no trust head written" in capsys.readouterr().err
    assert load_world_model(tmp_path).trust_head is None and len(StartLibrary.load(tmp_path)) == 2


def test_an_unknown_model_name_is_answered_with_the_known_ones(data: Path, tmp_path: Path, capsys) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    commands.add_train_arguments(parser)
    words = ["--data", str(data), "--out", str(tmp_path), "--model", "crystal_ball"]
    assert commands.run_train(parser.parse_args(words)) == 1
    assert "expected one of" in capsys.readouterr().err
