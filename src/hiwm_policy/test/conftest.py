"""A tiny task on a rig of two joints and a 32x32 camera: move both joints to where the bright square is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hiwm_data.dataset import Dataset, DatasetWriter, rig_features
from hiwm_rig.contract import Rig, parse_rig
from hiwm_rig.types import Observation

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
SPEED = 0.15


def draw(goal: np.ndarray, joints: np.ndarray) -> np.ndarray:
    image = np.zeros((32, 32, 3), np.uint8)
    for point, channel in ((goal, 0), (joints, 1)):
        row, column = np.round(16 + 10 * point[:2]).astype(int)
        image[max(0, row - 3) : row + 3, max(0, column - 3) : column + 3, channel] = 255
    return image


class TinyEnv:
    """A RigEnv: joints obey at once; solved within 0.15 of the goal."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def reset(self, seed: int) -> Observation:
        self.goal = np.random.default_rng(seed).uniform(-0.9, 0.9, 2)
        self.joints = np.array(self.rig.home)
        self.stamp_ns = 0
        return self._observe()

    def step(self, action: np.ndarray) -> Observation:
        self.joints = np.asarray(action, np.float64).copy()
        self.stamp_ns += 100_000_000
        return self._observe()

    def succeeded(self) -> bool:
        return bool(np.abs(self.joints[:2] - self.goal).max() < 0.15)

    def finish(self) -> bool:
        return self.succeeded()

    def _observe(self) -> Observation:
        return Observation({"front": draw(self.goal, self.joints)}, self.joints.copy(), self.stamp_ns)


def expert(env: TinyEnv) -> np.ndarray:
    step = np.clip(env.goal - env.joints[:2], -SPEED, SPEED)
    return np.array([*(env.joints[:2] + step), 0.009])


def record(root: Path, rig: Rig, episodes: int, *, provenance: bool = False, length: int = 14) -> Dataset:
    env = TinyEnv(rig)
    with DatasetWriter(
        root, fps=rig.control_rate_hz, features=rig_features(rig, provenance=provenance), robot_type="tiny"
    ) as writer:
        for seed in range(episodes):
            writer.add_episode(
                _episode(env, seed, length, provenance), task="tiny", meta={"split": "train", "seed": seed}
            )
    return Dataset(root)


def _episode(env: TinyEnv, seed: int, length: int, provenance: bool) -> dict[str, np.ndarray]:
    observation = env.reset(seed)
    images, joints, actions, done = [], [], [], []
    for _ in range(length):
        action = expert(env)
        images.append(observation.images["front"])
        joints.append(observation.joints)
        actions.append(action)
        observation = env.step(action)
        done.append(env.succeeded())
    frames = {
        "observation.images.front": np.stack(images),
        "observation.state": np.stack(joints).astype(np.float32),
        "action": np.stack(actions).astype(np.float32),
        "next.success": np.array(done),
    }
    if provenance:
        human = (np.arange(length) >= 3) & (np.arange(length) < 9)
        frames |= {
            "driver": np.where(human, 2, 0),
            "intervention": human,
            "policy_action": frames["action"],
            "policy_fresh": np.ones(length, bool),
            "branch_id": np.zeros(length, np.int64),
            "parent_id": np.full(length, -1),
            "trust": np.ones(length, np.float32),
            "stamp_ns": np.arange(length) * 100_000_000,
        }
    return frames


@pytest.fixture(scope="session")
def tiny_rig() -> Rig:
    return parse_rig(RIG_YAML, "tiny.yaml")


@pytest.fixture(scope="session")
def tiny_demos(tmp_path_factory: pytest.TempPathFactory, tiny_rig: Rig) -> Dataset:
    return record(tmp_path_factory.mktemp("tiny") / "demos", tiny_rig, 60)
