"""lerobot itself opens what is written here, and what lerobot writes is read here (both ways, real files)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.dataset import Dataset, DatasetWriter, Feature, merge_datasets

LEROBOT = Path(__file__).resolve().parents[3] / ".lerobot"
SIZE = (64, 96)
JOINTS = ("a", "b", "c")
FEATURES = {
    "observation.images.front": Feature("video", (*SIZE, 3)),
    "observation.images.wrist": Feature("video", (*SIZE, 3)),
    "observation.state": Feature("float32", (3,), JOINTS),
    "action": Feature("float32", (3,), JOINTS),
    "next.success": Feature("bool", (1,)),
    "driver": Feature("int64", (1,)),
    "trust": Feature("float32", (1,)),
}
pytestmark = [
    pytest.mark.skipif(not LEROBOT.is_dir(), reason="lerobot is not installed: run tools/lerobot.sh (140 MB)"),
    pytest.mark.timeout(300),
]


def with_lerobot(*words: object) -> None:
    """Run the other side; its output is the failure's message."""
    libraries = [str(LEROBOT / "ffmpeg"), os.environ.get("LD_LIBRARY_PATH", "")]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(LEROBOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(LEROBOT / "cache"),
    }
    command = [sys.executable, str(Path(__file__).with_name("with_lerobot.py")), *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def episode(length: int, seed: int) -> dict[str, np.ndarray]:
    """A bright square that moves over a gradient: other pixels in every frame and camera."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, SIZE[1])[None, :, None] * np.array([1.0, 0.5, 0.2])
    frames = np.repeat(np.broadcast_to(ramp, (*SIZE, 3)).astype(np.uint8)[None], length, 0)
    for i in range(length):
        at = (5 * i + 7 * seed) % (SIZE[1] - 16)
        frames[i, 20:36, at : at + 16] = (255, 240, 30)
    return {
        "observation.images.front": frames,
        "observation.images.wrist": frames[:, ::-1],
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
        "driver": np.arange(length) % 2,
        "trust": np.linspace(0.3, 1, length, dtype=np.float32),
    }


def write(root: Path, lengths: tuple[int, ...], seed: int = 0) -> Path:
    with DatasetWriter(root, fps=10, features=FEATURES, robot_type="test") as writer:
        for i, length in enumerate(lengths):
            meta = {"outcome": ("success", "failure")[i % 2], "split": "train"}
            writer.add_episode(episode(length, seed + i), task=f"task {(seed + i) % 2}", meta=meta)
    return root


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[Dataset, dict[str, np.ndarray], dict]:
    """A merged dataset (two files of every kind), and what lerobot reads from it."""
    folder = tmp_path_factory.mktemp("lerobot")
    parts = [write(folder / "a", (12, 25)), write(folder / "b", (7,), seed=2)]
    root = merge_datasets(parts, folder / "merged")
    with_lerobot("read", root, folder / "seen")
    with np.load(folder / "seen.npz") as arrays:
        return Dataset(root), dict(arrays), json.loads((folder / "seen.json").read_text())


def test_lerobot_reads_every_column_timestamp_and_task(seen):
    dataset, arrays, facts = seen
    for name in dataset.features:
        if not dataset.features[name].is_video:
            np.testing.assert_array_equal(arrays[name].reshape(dataset.column(name).shape), dataset.column(name), name)
    assert facts["tasks"] == ["task 0"] * 12 + ["task 1"] * 25 + ["task 0"] * 7
    assert arrays["action"].dtype == np.float32 and arrays["next.success"].dtype == bool
    assert (facts["fps"], facts["episodes"], facts["lengths"]) == (10, 3, [12, 25, 7])
    assert facts["outcomes"] == ["success", "failure", "success"] and facts["robot_type"] == "test"


def test_lerobot_decodes_the_frames_that_were_recorded(seen):
    dataset, arrays, facts = seen
    assert facts["cameras"] == ["observation.images.front", "observation.images.wrist"]
    recorded = [episode(12, 0), episode(25, 1), episode(7, 2)]
    for key in facts["cameras"]:
        theirs = arrays[key].transpose(0, 2, 3, 1) * 255
        assert theirs.shape == (44, *SIZE, 3)
        truth = np.concatenate([e[key] for e in recorded]).astype(float)
        assert np.abs(theirs - truth).mean() < 2, "within what the codec loses"
        # The two sides round differently when they turn YUV into RGB.
        assert np.abs(theirs - dataset.images(key)[:].astype(float)).mean() < 1.5, "the same pixels as this reader"


def test_lerobot_cuts_windows_at_the_ends_of_episodes(seen):
    dataset, arrays, _ = seen
    action, padded = arrays["window/action"], arrays["window/action_is_pad"]
    np.testing.assert_array_equal(action[:, 0], dataset.column("action"))
    ends = np.cumsum([12, 25, 7]) - 1
    assert np.flatnonzero(padded[:, 1]).tolist() == ends.tolist() and not padded[:, 0].any()
    inside = np.setdiff1d(np.arange(44), ends)
    np.testing.assert_array_equal(action[inside, 1], dataset.column("action")[inside + 1])
    frames = arrays["window/observation.images.front"]
    starts = [0, 12, 37]
    assert np.flatnonzero(arrays["window/observation.images.front_is_pad"][:, 0]).tolist() == starts
    later = np.setdiff1d(np.arange(44), starts)
    np.testing.assert_array_equal(frames[later, 0], frames[later - 1, 1])
    np.testing.assert_array_equal(arrays["second/action"], dataset.column("action")[12:37])


def test_lerobot_loads_statistics_shapes_and_names(seen):
    dataset, _, facts = seen
    for key, moments in dataset.stats.items():
        theirs = facts["stats"][key]
        np.testing.assert_allclose(theirs["mean"], moments.mean, atol=1e-6)
        np.testing.assert_allclose(theirs["std"], np.sqrt(moments.variance), atol=1e-6)
        assert theirs["count"] == [44]
    assert facts["names"]["action"] == list(JOINTS)
    assert facts["shapes"]["observation.images.front"] == [*SIZE, 3]


@pytest.mark.parametrize("codec", ["h264", "libsvtav1"])
def test_what_lerobot_writes_is_read_here(tmp_path, codec):
    with_lerobot("write", tmp_path / "theirs", codec)
    dataset = Dataset(tmp_path / "theirs")
    assert (dataset.num_episodes, len(dataset), dataset.fps, dataset.cameras) == (2, 21, 10.0, ["front"])
    assert [(e.length, e.task) for e in dataset.episodes] == [(8, "reach"), (13, "push")]
    number = np.arange(21)
    np.testing.assert_allclose(dataset.column("observation.state"), np.stack([number, -number], 1))
    np.testing.assert_allclose(dataset.column("action")[:, 0], number + 0.5)
    assert np.flatnonzero(dataset.column("next.success")).tolist() == [7, 20]
    np.testing.assert_allclose(dataset.images("front")[:].mean((1, 2, 3)), 10 * number, atol=3)
    assert dataset.features["action"].names == ("a", "b") and dataset.stats["action"].count == 21
    merged = Dataset(merge_datasets([tmp_path / "theirs", tmp_path / "theirs"], tmp_path / "merged"))
    assert len(merged) == 42 and merged.stats["action"].count == 42
