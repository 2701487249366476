"""A recorded dataset of the push_t rig, small enough for tests: a block that follows the first joint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hiwm_data.dataset import DatasetWriter
from hiwm_data.features import Feature
from hiwm_rig.contract import load_rig

LENGTH = 24


def write_tiny_dataset(root: Path, episodes: int = 6) -> Path:
    rig = load_rig("push_t")
    names = rig.joint_names
    features = {
        "observation.images.front": Feature("video", (128, 128, 3)),
        "observation.state": Feature("float32", (7,), names),
        "action": Feature("float32", (7,), names),
        "next.success": Feature("bool", (1,)),
    }
    with DatasetWriter(root, fps=10, features=features, robot_type="push_t") as writer:
        for episode in range(episodes):
            rng = np.random.default_rng(episode)
            action = np.array(rig.home) + np.cumsum(rng.normal(0, 0.05, (LENGTH, 7)), 0) * [1, 1, 1, 1, 1, 1, 0]
            state = np.vstack([np.array(rig.home), action[:-1]])
            light = (60 + 5 * np.arange(LENGTH) + episode).astype(np.uint8)
            images = np.broadcast_to(light[:, None, None, None], (LENGTH, 128, 128, 3)).copy()
            for t in range(LENGTH):
                x = int(np.clip(64 + 100 * state[t, 0], 8, 120))
                images[t, 58:70, x - 6 : x + 6] = (220, 30, 30)
            columns = {
                "observation.images.front": images,
                "observation.state": state.astype(np.float32),
                "action": action.astype(np.float32),
                "next.success": (np.arange(LENGTH) > LENGTH - 4) & (episode % 2 == 0),
            }
            split = "val" if episode >= episodes // 2 else "train"
            writer.add_episode(columns, task="push", meta={"split": split, "source": "play", "seed": episode})
    return root
