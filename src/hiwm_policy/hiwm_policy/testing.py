"""For tests of policies: a task learned in seconds. Two joints go to where a bright square is, seen at 32x32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hiwm_data.dataset import Dataset, DatasetWriter, rig_features
from hiwm_rig.contract import Rig
from hiwm_rig.types import Observation

from hiwm_policy.policy import CameraInput, PolicySpec

RIG_YAML = """
name: tiny
control_rate_hz: 10.0
arms:
  - joints:
      - {name: x, lower: -1.0, upper: 1.0, max_velocity: 3.0}
      - {name: y, lower: -1.0, upper: 1.0, max_velocity: 3.0}
      - {name: fixed, type: prismatic, lower: 0.0, upper: 0.03, max_velocity: 0.1}
    home: [0.0, 0.0, 0.009]
cameras:
  - {name: front, width: 32, height: 32}
"""
TINY_SPEC = PolicySpec(
    cameras=(CameraInput(name="front", height=32, width=32),),
    joint_names=("x", "y", "fixed"),
    rate_hz=10.0,
    horizon=6,
    execute=3,
)
SPEED = 0.15
SMALL = {
    "channels": (8, 16),
    "keypoints": 8,
    "condition": 32,
    "width": 64,
    "blocks": 2,
    "train_timesteps": 50,
    "inference_steps": 5,
    "crop": 1.0,
}
"""A network for this task, as overrides of :class:`hiwm_policy.diffusion.DiffusionConfig`."""


def draw(goal: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """The goal in red, the joints in green."""
    image = np.zeros((32, 32, 3), np.uint8)
    for point, channel in ((goal, 0), (joints, 1)):
        row, column = np.round(16 + 10 * point[:2]).astype(int)
        image[max(0, row - 3) : row + 3, max(0, column - 3) : column + 3, channel] = 255
    return image


class TinyEnv:
    """A RigEnv: joints obey at once; solved within 0.15 of the goal."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.goal = np.zeros(2)
        self.joints = np.array(rig.home)
        self.stamp_ns = 0

    def reset(self, seed: int) -> Observation:
        """A goal that belongs to the seed."""
        self.goal = np.random.default_rng(seed).uniform(-0.9, 0.9, 2)
        self.joints = np.array(self.rig.home)
        self.stamp_ns = 0
        return self._observe()

    def step(self, action: np.ndarray) -> Observation:
        """Joints are where they are told to be."""
        self.joints = np.asarray(action, np.float64).copy()
        self.stamp_ns += 100_000_000
        return self._observe()

    def succeeded(self) -> bool:
        """Both joints are near the goal."""
        return bool(np.abs(self.joints[:2] - self.goal).max() < 0.15)

    def finish(self) -> bool:
        """There is no tool to retreat."""
        return self.succeeded()

    def _observe(self) -> Observation:
        return Observation({"front": draw(self.goal, self.joints)}, self.joints.copy(), self.stamp_ns)


def expert(env: TinyEnv) -> np.ndarray:
    """Straight to the goal."""
    step = np.clip(env.goal - env.joints[:2], -SPEED, SPEED)
    return np.array([*(env.joints[:2] + step), 0.009])


def record(root: Path, rig: Rig, episodes: int, *, provenance: bool = False, length: int = 14) -> Dataset:
    """Demonstrations; with ``provenance``, frames 3 to 8 count as driven by a person."""
    env = TinyEnv(rig)
    with DatasetWriter(
        root, fps=rig.control_rate_hz, features=rig_features(rig, provenance=provenance), robot_type="tiny"
    ) as writer:
        for seed in range(episodes):
            writer.add_episode(
                episode_frames(env, seed, length, provenance), task="tiny", meta={"split": "train", "seed": seed}
            )
    return Dataset(root)


def episode_frames(env: TinyEnv, seed: int, length: int, provenance: bool) -> dict[str, np.ndarray]:
    """Columns of one demonstration."""
    observation = env.reset(seed)
    images, joints, actions, done = [], [], [], []
    for _ in range(length):
        action = expert(env)
        images.append(observation.images["front"])
        joints.append(observation.joints)
        actions.append(action)
        observation = env.step(action)
        done.append(env.succeeded())
    frames: dict[str, np.ndarray] = {
        "observation.images.front": np.stack(images),
        "observation.state": np.stack(joints).astype(np.float32),
        "action": np.stack(actions).astype(np.float32),
        "next.success": np.array(done),
    }
    if provenance:
        human = (np.arange(length) >= 3) & (np.arange(length) < 9)
        frames |= {"driver": np.where(human, 2, 0), "intervention": human, "trust": np.ones(length, np.float32)}
        for key, feature in rig_features(env.rig, provenance=True).items():
            shape = (length,) if feature.shape == (1,) else (length, *feature.shape)
            frames.setdefault(key, np.zeros(shape, feature.numpy_dtype))
    return frames
