"""A world, a policy and a skill that cost nothing: the waist must reach 0.5 rad, the picture shows how far it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hiwm_rig.codecs import Chunk
from hiwm_rig.contract import load_rig
from hiwm_rig.types import FloatArray, Observation
from hiwm_teleop.lockstep import Place
from hiwm_teleop.skill import Correction, Glimpse, View

RIG = load_rig("push_t")
GOAL = 0.5


class ToyWorld:
    """A follower that obeys at once; the brightness of its picture is the distance to the goal."""

    def __init__(self, trust: float = 1.0) -> None:
        self.frames: list[np.ndarray] = []
        self.commands: list[np.ndarray] = []
        self._trust = trust
        self._snapshot = self._branch = -1
        self._parent = -1

    def reset(self, seed: int) -> Observation:
        self._parent, self._branch = -1, self._branch + 1
        return self._show(np.array(RIG.home))

    def step(self, action: FloatArray) -> Observation:
        self.commands.append(np.asarray(action))
        return self._show(np.asarray(action))

    def rollback(self, snapshot_id: int) -> Observation:
        return self.branch(snapshot_id)

    def branch(self, snapshot_id: int) -> Observation:
        self._parent, self._branch = self._branch, self._branch + 1
        self._snapshot = snapshot_id
        return self._observe()

    def place(self) -> Place:
        return Place(self._branch, self._parent, self._snapshot, self._snapshot, 0.0, self._trust)

    def _show(self, joints: np.ndarray) -> Observation:
        self.frames.append(joints.copy())
        self._snapshot = len(self.frames) - 1
        return self._observe()

    def _observe(self) -> Observation:
        joints = self.frames[self._snapshot]
        image = np.full((128, 128, 3), np.clip(255 * abs(GOAL - joints[0]), 0, 255), np.uint8)
        return Observation({"front": image}, joints, 0)


class StandStill:
    """A policy that stays where it is."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self, seed: int | None = None) -> None:
        self.resets += 1

    def propose(self, observation: Observation) -> Chunk | None:
        return Chunk(observation.stamp_ns, np.arange(1, 17) * 0.1, np.tile(observation.joints, (16, 1)))


class Push:
    """Moves the waist towards the goal."""

    def __init__(self, joints: FloatArray, frames: int, step: float) -> None:
        self._position, self._left, self._step = np.array(joints), frames, step

    def next(self, glimpse: Glimpse) -> FloatArray | None:
        if self._left == 0:
            return None
        self._left -= 1
        self._position[0] = min(GOAL, self._position[0] + self._step)
        return self._position.copy()


class ToySkill:
    """Reads the distance off the picture."""

    def __init__(self, frames: int = 15, step: float = 0.05) -> None:
        self.frames, self.step = frames, step

    def reset(self) -> None:
        pass

    def look(self, view: View) -> Glimpse:
        distance = float(view.images["front"].mean()) / 255
        return Glimpse(distance, distance < 0.02, np.asarray(view.joints), np.zeros(1))

    def failing(self, history: Sequence[Glimpse], watched: int) -> str | None:
        return "stands still" if watched >= 10 and not history[-1].solved else None

    def settled(self, history: Sequence[Glimpse]) -> bool:
        return True

    def good_span(self, history: Sequence[Glimpse]) -> tuple[int, int]:
        return 0, 0

    def recall(self, history: Sequence[Glimpse]) -> Glimpse:
        return history[-1]

    def plan(self, glimpse: Glimpse, joints: FloatArray, attempt: int, rng: np.random.Generator) -> Correction | None:
        return Push(joints, self.frames, self.step)
