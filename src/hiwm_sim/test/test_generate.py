"""Generated datasets hold what was asked for, and the same data whatever the number of workers."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.dataset import Dataset
from hiwm_rig.contract import Rig
from hiwm_sim.commands import add_generate_arguments, run_generate
from hiwm_sim.generate import GenerateConfig, GenerationError, generate_dataset, plan_episodes, record_episode
from hiwm_sim.rig import SimRig

SMALL = GenerateConfig(play=3, val=1, play_steps=12)


def test_held_out_seeds_never_meet_training_seeds() -> None:
    plans = plan_episodes(GenerateConfig(demos=30, noisy=30, play=300, val=40), 150)
    assert len({p.seed for p in plans}) == len(plans) == 400
    assert sum(p.split == "val" for p in plans) == 40
    larger = plan_episodes(GenerateConfig(demos=60, noisy=60, play=600, val=40), 150)
    held_out = {p.seed for p in plans if p.split == "val"}
    assert not held_out & {p.seed for p in larger if p.split == "train"}


def test_nothing_asked_for_is_an_error() -> None:
    with pytest.raises(GenerationError, match="nothing to generate"):
        plan_episodes(GenerateConfig(), 150)


def test_a_dataset_has_the_columns_labels_and_splits_of_the_plan(tmp_path: Path, rig: Rig) -> None:
    out = generate_dataset(tmp_path / "play", rig, SMALL, workers=2, progress=False)
    dataset = Dataset(out, cache_dir=tmp_path / "cache")
    assert dataset.num_episodes == 4
    assert dataset.num_frames == 48
    assert [e.meta["split"] for e in dataset.episodes] == ["train"] * 3 + ["val"]
    assert {e.meta["source"] for e in dataset.episodes} == {"play"}
    assert dataset.images("front").shape == (48, 128, 128, 3)
    assert dataset.column("observation.state").shape == dataset.column("action").shape == (48, 7)
    assert dataset.column("next.success").dtype == bool
    assert dataset.column("observation.environment_state").shape == (48, 9)
    assert not list(tmp_path.glob("*.shards"))


def test_the_number_of_workers_does_not_change_the_data(tmp_path: Path, rig: Rig) -> None:
    roots = [generate_dataset(tmp_path / f"w{n}", rig, SMALL, workers=n, progress=False) for n in (1, 2)]
    one, two = (Dataset(root, cache_dir=tmp_path / root.name) for root in roots)
    for column in ("action", "observation.state", "observation.environment_state"):
        np.testing.assert_array_equal(one.column(column), two.column(column))


def test_an_existing_dataset_is_kept(tmp_path: Path, rig: Rig) -> None:
    (tmp_path / "play").mkdir()
    with pytest.raises(GenerationError, match="exists"):
        generate_dataset(tmp_path / "play", rig, SMALL, progress=False)


def test_a_frame_is_labelled_a_success_where_the_task_is_done(env: SimRig) -> None:
    config = GenerateConfig(demos=1)
    columns, success = record_episode(env, plan_episodes(config, env.task.max_steps)[0])
    labels = columns["next.success"]
    assert success
    assert not labels[0]
    assert labels[-5:].all()
    length = len(labels)
    assert columns["observation.images.front"].shape == (length, 128, 128, 3)
    np.testing.assert_allclose(columns["action"][-1], env.rig.home, atol=2e-3)


def test_some_play_starts_on_the_goal(blind: SimRig) -> None:
    solved = 0
    for seed in range(60):
        blind.reset_play(seed)
        solved += blind.succeeded()
    assert 2 <= solved <= 25


def test_ctrl_c_ends_generation_and_leaves_nothing_behind(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "play"), "--play", "400"]
    code = (
        "import argparse, sys\n"
        "from hiwm_sim.commands import add_generate_arguments, run_generate\n"
        "if __name__ == '__main__':\n"
        "    parser = argparse.ArgumentParser()\n"
        "    add_generate_arguments(parser)\n"
        "    sys.exit(run_generate(parser.parse_args()))\n"
    )
    script = tmp_path / "generate.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), *words], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("play.shards/*")) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert [p.name for p in tmp_path.iterdir()] == ["generate.py"]


def test_unusable_arguments_are_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_generate_arguments(parser)
    assert run_generate(parser.parse_args(["--out", str(tmp_path / "x"), "--play", "1", "--task", "juggle"])) == 2
    assert run_generate(parser.parse_args(["--out", str(tmp_path / "x"), "--play", "1", "--rig", "nope"])) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 2
    assert "juggle" in errors[0]
    assert "nope" in errors[1]
