"""A made-up rig for tests of the general model: two cameras of unlike size, three joints, a square that they move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hiwm_data.dataset import ACTION, IMAGE_PREFIX, STATE, SUCCESS, DatasetWriter, rig_features
from hiwm_rig.contract import Rig, parse_rig

RIG = """
name: squares
control_rate_hz: 10.0
arms:
  - name: follower
    joints:
      - {name: a, lower: -1.0, upper: 1.0, max_velocity: 4.0}
      - {name: b, lower: -1.0, upper: 1.0, max_velocity: 4.0}
      - {name: c, type: prismatic, lower: 0.0, upper: 0.1, max_velocity: 1.0}
    home: [0.0, 0.0, 0.0]
cameras:
  - {name: near, width: 66, height: 50}
  - {name: far, width: 48, height: 40}
"""
SMALL = {
    "height": "40", "width": "48", "channels": "32", "blocks": "2", "embedding": "16", "arm_layer": "false",
    "crop": "0", "batch": "6", "unroll": "3", "burn_in": "2", "minutes": "0.1", "steps": "120", "joint_share": "0.3",
}  # fmt: skip


def rig_file(folder: Path) -> Path:
    """Write the rig file."""
    path = folder / "squares.yaml"
    path.write_text(RIG)
    return path


def rig() -> Rig:
    """The rig."""
    return parse_rig(RIG)


def draw(joints: np.ndarray, size: tuple[int, int], seed: int) -> np.ndarray:
    """[T, 3] joints -> [T, H, W, 3]: a bright square over a still, uneven ground."""
    height, width = size
    ground = np.random.default_rng(seed).integers(60, 110, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    ground = ground.repeat(10, 0).repeat(10, 1)[:height, :width]
    frames = np.repeat(ground[None], len(joints), 0)
    for frame, (a, b, _) in zip(frames, joints):
        y, x = round((0.5 + 0.3 * b) * height), round((0.5 + 0.3 * a) * width)
        frame[y - 6 : y + 6, x - 6 : x + 6] = (230, 200, 40)
    return frames


def motion(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Joints and actions [length, 3]: the joints go half of the way to the target in each period."""
    knots = rng.uniform(-1, 1, (length // 8 + 2, 3)) * (1, 1, 0.05) + (0, 0, 0.05)
    at = np.arange(length) / 8
    actions = np.stack([np.interp(at, np.arange(len(knots)), knots[:, j]) for j in range(3)], 1)
    joints = np.empty_like(actions)
    now = actions[0]
    for t in range(length):
        joints[t] = now
        now = now + 0.5 * (actions[t] - now)
    return joints.astype(np.float32), actions.astype(np.float32)


def record(folder: Path, episodes: int = 10, length: int = 40, labels: bool = True) -> Path:
    """Record a dataset; the task counts as done while the first joint is large. The last two episodes are held out."""
    root, made, rng = folder / "squares", rig(), np.random.default_rng(0)
    with DatasetWriter(root, fps=10.0, features=rig_features(made), robot_type="squares") as writer:
        for index in range(episodes):
            joints, actions = motion(length, rng)
            frames = {
                f"{IMAGE_PREFIX}{c.name}": draw(joints, (c.height, c.width), k) for k, c in enumerate(made.cameras)
            }
            done = joints[:, 0] > 0.2 if labels else np.zeros(length, bool)
            columns = {**frames, STATE: joints, ACTION: actions, SUCCESS: done}
            writer.add_episode(columns, task="", meta={"split": "val" if index >= episodes - 2 else "train"})
    return root
