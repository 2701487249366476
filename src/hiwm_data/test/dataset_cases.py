"""Small datasets for tests: recordings with branches, and episodes whose content is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hiwm_data.dataset import DatasetWriter, Feature, rig_features
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Driver

SIZE = (16, 32)
JOINTS = ("a", "b")
FEATURES = {
    "observation.images.front": Feature("video", (*SIZE, 3)),
    "observation.images.wrist": Feature("video", (*SIZE, 3)),
    "observation.state": Feature("float32", (2,), JOINTS),
    "action": Feature("float32", (2,), JOINTS),
    "next.success": Feature("bool", (1,)),
    "driver": Feature("int64", (1,)),
    "intervention": Feature("bool", (1,)),
    "trust": Feature("float32", (1,)),
}


def frames(first_step: int, length: int, human: int = 0, trust: float = 1.0) -> dict[str, np.ndarray]:
    """Columns whose state and grey level say the step; the first ``human`` frames were driven by a person."""
    steps = np.arange(first_step, first_step + length)
    grey = np.broadcast_to((steps * 9 % 256).astype(np.uint8)[:, None, None, None], (length, *SIZE, 3))
    driven = np.arange(length) < human
    return {
        "observation.images.front": grey,
        "observation.images.wrist": 255 - grey,
        "observation.state": np.stack([steps, -steps], 1).astype(np.float32),
        "action": np.stack([steps + 0.5, steps % 3], 1).astype(np.float32),
        "next.success": np.zeros(length, bool),
        "driver": np.where(driven, int(Driver.HUMAN), int(Driver.POLICY)),
        "intervention": driven,
        "trust": np.full(length, trust, np.float32),
    }


def write_tree(root: Path) -> Path:
    """One recording, branches three deep, beside an episode of another recording without any.

    ======= ====== ========== ============
    episode branch steps      leaves
    ======= ====== ========== ============
    0       0      0 to 9     (root)
    1       1      4 to 11    branch 0
    2       2      7 to 13    branch 1
    3       3      2 to 5     branch 2, before it and branch 1 began: its past is branch 0 alone
    4       0      0 to 4     (root of another recording)
    5       0      6 to 8     the same branch after a gap
    ======= ====== ========== ============
    """
    branches = [
        (0, -1, 0, 10, "one", 0),
        (1, 0, 4, 8, "one", 0),
        (2, 1, 7, 7, "one", 0),
        (3, 2, 2, 4, "one", 0),
        (0, -1, 0, 5, "two", 0),
        (0, -1, 6, 3, "two", 1),
    ]
    with DatasetWriter(root, fps=10, features=FEATURES, robot_type="test") as writer:
        for branch, parent, start, length, episode, part in branches:
            meta = {"branch_id": branch, "parent_id": parent, "snapshot_id": start - 1 if parent >= 0 else -1}
            meta |= {"start_step": start, "episode_id": episode, "bag": "bag", "part": part}
            meta |= {"outcome": "success" if branch == 2 else "failure"}
            columns = frames(start, length, human=3 * (parent >= 0)) | {"next.success": np.zeros(length, bool)}
            columns["next.success"][-1] = branch == 2
            writer.add_episode(columns, task="push", meta=meta)
    return root


def write_plain(root: Path, lengths: tuple[int, ...] = (12, 25, 9), robot: str = "test", **meta: str) -> Path:
    """Episodes of two tasks: 0 driven by the policy, 1 in part by a person, 2 by a person alone and hardly trusted."""
    human, trust, outcomes = (0, 5, 99), (1.0, 0.8, 0.3), ("success", "failure", "success")
    with DatasetWriter(root, fps=10, features=FEATURES, robot_type=robot) as writer:
        for i, length in enumerate(lengths):
            k = i % 3
            facts = {"outcome": outcomes[k], "source": ("rollout", "correction", "demonstration")[k], **meta}
            columns = frames(20 * i, length, human[k], trust[k])
            writer.add_episode(columns, task=f"push {'left' if k else 'right'}", meta=facts)
    return root


def write_rig(root: Path, name: str = "push_t", length: int = 6) -> Path:
    """An episode with the columns of a shipped rig."""
    rig = load_rig(name)
    features = rig_features(rig)
    columns = {
        k: np.zeros((length, *f.shape) if f.shape != (1,) else (length,), f.numpy_dtype) for k, f in features.items()
    }
    with DatasetWriter(root, fps=rig.control_rate_hz, features=features, robot_type=rig.name) as writer:
        writer.add_episode(columns, task="t", meta={"outcome": "success"})
    return root
