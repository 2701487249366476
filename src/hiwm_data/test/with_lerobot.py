"""What lerobot itself reads and writes, run in a process of its own that finds lerobot first (see test_lerobot.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

try:
    import torchvision
except RuntimeError:
    # The wheel's compiled operators need CUDA. The reader uses none of them, but importing them asks for their names.
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS = 10
REPO = "local/test"


def read(root: Path, out: Path) -> None:
    """Everything lerobot says about the dataset at ``root``: arrays to ``out``.npz, the rest to ``out``.json."""
    dataset = LeRobotDataset(REPO, root=root)
    items = [dataset[i] for i in range(len(dataset))]
    arrays = {k: np.stack([np.asarray(i[k]) for i in items]) for k in items[0] if k != "task"}
    windows = LeRobotDataset(
        REPO, root=root, delta_timestamps={"observation.images.front": [-1 / FPS, 0.0], "action": [0.0, 1 / FPS]}
    )
    window = [windows[i] for i in range(len(windows))]
    for key in ("observation.images.front", "action", "action_is_pad", "observation.images.front_is_pad"):
        arrays[f"window/{key}"] = np.stack([np.asarray(w[key]) for w in window])
    second = LeRobotDataset(REPO, root=root, episodes=[1])
    arrays["second/action"] = np.stack([np.asarray(second[i]["action"]) for i in range(len(second))])
    meta = dataset.meta
    facts: dict[str, Any] = {
        "fps": dataset.fps,
        "episodes": dataset.num_episodes,
        "tasks": [i["task"] for i in items],
        "cameras": list(meta.camera_keys),
        "shapes": {k: list(v) for k, v in meta.shapes.items()},
        "names": meta.names,
        "robot_type": meta.robot_type,
        "lengths": [int(n) for n in meta.episodes["length"]],
        "outcomes": list(meta.episodes["outcome"]),
        "stats": {k: {n: np.asarray(v).tolist() for n, v in s.items()} for k, s in meta.stats.items()},
    }
    np.savez(out.with_suffix(".npz"), **arrays)
    out.with_suffix(".json").write_text(json.dumps(facts))


def write(root: Path, codec: str) -> None:
    """A dataset by lerobot's own writer: episodes of 8 and 13 frames, two tasks, one camera.

    Frame ``i`` of all is grey ``10 i``, its state ``[i, -i]``, its action ``[i + 0.5, 0]``.
    """
    features = {
        "observation.images.front": {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    dataset = LeRobotDataset.create(REPO, FPS, features, root=root, robot_type="so100", use_videos=True, vcodec=codec)
    number = 0
    for task, length in (("reach", 8), ("push", 13)):
        for step in range(length):
            frame = {
                "observation.images.front": np.full((64, 96, 3), 10 * number, np.uint8),
                "observation.state": np.array([number, -number], np.float32),
                "action": np.array([number + 0.5, 0], np.float32),
                "next.success": np.array([step == length - 1]),
                "task": task,
            }
            dataset.add_frame(frame)
            number += 1
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        write(Path(sys.argv[2]), sys.argv[3])
