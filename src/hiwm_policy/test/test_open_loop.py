"""The open-loop check: the same frames as in training, asked as often as on a rig, errors joint by joint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.dataset import ACTION, STATE
from hiwm_data.testing import recorded_session, write_bag
from hiwm_policy.open_loop import Recorded, open_loop, recordings_of_bags, recordings_of_dataset
from hiwm_policy.policy import Policy, PolicyError, PolicyObservation
from hiwm_policy.testing import TINY_SPEC, record
from hiwm_rig.contract import Rig

from hiwm_bringup import cli
from hiwm_policy import open_loop_command


class Follow(Policy):
    """Proposes where the joints are, plus a hundredth a step."""

    spec = TINY_SPEC

    def __init__(self) -> None:
        self.seen: list[PolicyObservation] = []

    def predict_action(self, observation: PolicyObservation) -> np.ndarray:
        self.check(observation)
        self.seen.append(observation)
        steps = 0.01 * np.arange(1, 7)[:, None]
        return (observation.joints[:, -1] + steps)[None].astype(np.float32)

    def reset(self, seed: int | None = None) -> None:
        self.seen.clear()

    def save(self, directory: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Follow:
        return cls()


def drift(frames: int = 7) -> Recorded:
    """Joint x moves by a hundredth a frame, and the action is where it goes next."""
    joints = np.zeros((frames, 3))
    joints[:, 0] = 0.01 * np.arange(frames)
    actions = joints + [0.01, 0.0, 0.0]
    images = {"front": np.zeros((frames, 32, 32, 3), np.uint8)}
    driver = np.array([0] * (frames - 2) + [2] * 2)
    return Recorded("drift", images, joints, actions, driver, np.full_like(actions, np.nan))


def test_errors_are_those_of_what_would_have_been_executed(tiny_rig: Rig) -> None:
    policy = Follow()
    result = open_loop(policy, tiny_rig, [drift()])
    assert len(policy.seen) == 3, "asked at frames 0, 3 and 6, as on a rig"
    (prediction,) = result.predictions
    np.testing.assert_array_equal(prediction.step, [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_allclose(prediction.by_method["hold"][:, 0], [0, 0, 0, 0.03, 0.03, 0.03, 0.06])
    np.testing.assert_allclose(prediction.by_method["repeat"][:, 0], [0, 0, 0, 0.03, 0.03, 0.03, 0.06])
    report = result.to_json()
    assert report["joints"]["x"]["policy"] == pytest.approx(0, abs=1e-6)
    assert report["joints"]["y"]["policy"] == pytest.approx(np.mean([1, 2, 3, 1, 2, 3, 1]) / 100, rel=1e-3)
    assert report["joints"]["x"]["hold"] == pytest.approx(np.mean([1, 2, 3, 1, 2, 3, 1]) / 100, rel=1e-3)
    assert report["joints"]["fixed"]["unit"] == "m" and report["joints"]["x"]["recorded_policy"] is None
    assert {k: v["frames"] for k, v in report["by_step"].items()} == {"0": 3, "1": 2, "2": 2}
    assert {k: v["frames"] for k, v in report["by_driver"].items()} == {"policy": 5, "human": 2}


def test_a_bag_and_the_dataset_made_of_it_give_the_same_recordings(tiny_rig: Rig, tmp_path: Path) -> None:
    from hiwm_data.convert import convert_bags

    bag = write_bag(tmp_path / "bag", tiny_rig, recorded_session(tiny_rig))
    convert_bags([bag], tmp_path / "data")
    rig, of_bag = recordings_of_bags([bag])
    assert rig == tiny_rig
    bags, datasets = list(of_bag), list(recordings_of_dataset(tmp_path / "data", tiny_rig))
    assert [len(r.joints) for r in bags] == [8, 8, 8]
    for a, b in zip(bags, datasets, strict=True):
        np.testing.assert_allclose(a.actions, b.actions)
        np.testing.assert_allclose(a.proposals, b.proposals)
        np.testing.assert_array_equal(a.driver, b.driver)
    report = open_loop(Follow(), tiny_rig, bags).to_json()
    assert report["joints"]["x"]["recorded_policy"] == pytest.approx(0.05 / 3, rel=1e-3), "a person pushed by 0.05"


def test_the_command_prints_a_table_and_writes_numbers_and_a_plot(
    tiny_rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(open_loop_command, "load_policy", lambda path, device: Follow())
    bag = write_bag(tmp_path / "bag", tiny_rig, recorded_session(tiny_rig))
    out = tmp_path / "new" / "result.json"
    words = ["evaluate", "open-loop", "--policy", "p", "--bag", str(bag), "--out", str(out)]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "hold still" in text and "driven by human" in text and "steps after asking 2" in text
    assert set(json.loads(out.read_text())["joints"]) == {"x", "y", "fixed"}
    assert out.with_suffix(".png").stat().st_size > 10_000 and len(list(out.parent.iterdir())) == 2


def test_what_does_not_fit_is_one_line(tiny_rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PolicyError, match="no recording"):
        open_loop(Follow(), tiny_rig, [])
    data = record(tmp_path / "data", tiny_rig, 1)
    assert {STATE, ACTION} <= set(data.features)
    assert cli.main(["evaluate", "open-loop", "--policy", str(tmp_path), "--bag", "/nowhere"]) == 2
    assert "no policy checkpoint" in capsys.readouterr().err
