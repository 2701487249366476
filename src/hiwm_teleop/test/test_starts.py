"""Starts are real first frames that look like the task to the operator: neither done nor out of reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hiwm_data.dataset import Dataset, DatasetWriter
from hiwm_data.features import rig_features
from hiwm_teleop.starts import fitting_starts
from toy import RIG, ToySkill


def recorded(root: Path, brightness: list[int]) -> Dataset:
    with DatasetWriter(root, fps=10, features=rig_features(RIG), robot_type="toy") as writer:
        for value in brightness:
            frames = {
                "observation.images.front": np.full((4, 128, 128, 3), value, np.uint8),
                "observation.state": np.tile(np.array(RIG.home, np.float32), (4, 1)),
                "action": np.tile(np.array(RIG.home, np.float32), (4, 1)),
                "next.success": np.zeros(4, bool),
            }
            writer.add_episode(frames, task="toy")
    return Dataset(root, root.parent / "cache")


def test_only_first_frames_that_look_right_are_starts(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data", [0, 60, 250, 80])  # done, right, too far, right
    starts = fitting_starts(data, RIG, ToySkill(), max_distance=0.5)
    assert starts.episodes.tolist() == [1, 3]
    assert starts.images["front"].shape == (2, 128, 128, 3)


def test_no_fitting_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no first frame"):
        fitting_starts(recorded(tmp_path / "data", [0]), RIG, ToySkill(), max_distance=0.5)
