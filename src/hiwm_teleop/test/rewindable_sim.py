"""The simulated rig with snapshots, so that the loop can be tested without a world model."""

from __future__ import annotations

import mujoco
import numpy as np
from hiwm_rig.codecs import Chunk
from hiwm_rig.contract import Rig
from hiwm_rig.types import FloatArray, Observation
from hiwm_sim.rig import SimRig
from hiwm_teleop.lockstep import Place

FULL = mujoco.mjtState.mjSTATE_INTEGRATION


class RewindableSim:
    """Implements ``hiwm_teleop.lockstep.Rewindable`` on MuJoCo."""

    def __init__(self, rig: Rig) -> None:
        self.sim = SimRig(rig)
        self._states: list[tuple[np.ndarray, np.ndarray, int]] = []
        self._snapshot = -1
        self._branches: list[tuple[int, int]] = []
        self.actions: list[np.ndarray] = []

    def reset(self, seed: int) -> Observation:
        observation = self.sim.reset(seed)
        self._branches.append((len(self._branches), -1))
        self._keep(0)
        return observation

    def step(self, action: FloatArray) -> Observation:
        self.actions.append(np.asarray(action))
        observation = self.sim.step(action)
        self._keep(self._states[self._snapshot][2] + 1)
        return observation

    def rollback(self, snapshot_id: int) -> Observation:
        return self.branch(snapshot_id)

    def branch(self, snapshot_id: int) -> Observation:
        state, target, _ = self._states[snapshot_id]
        mujoco.mj_setState(self.sim.model, self.sim.data, state, FULL)
        mujoco.mj_forward(self.sim.model, self.sim.data)
        self.sim._target = target.copy()
        self._branches.append((len(self._branches), self._branches[-1][0]))
        self._snapshot = snapshot_id
        return self.sim.observe()

    def place(self) -> Place:
        branch, parent = self._branches[-1]
        return Place(branch, parent, self._snapshot, self._states[self._snapshot][2], 0.0, 1.0)

    def _keep(self, step: int) -> None:
        state = np.zeros(mujoco.mj_stateSize(self.sim.model, FULL))
        mujoco.mj_getState(self.sim.model, self.sim.data, state, FULL)
        self._states.append((state, self.sim.target, step))
        self._snapshot = len(self._states) - 1


class StandStill:
    """A policy that never moves: every rollout stalls."""

    def reset(self, seed: int | None = None) -> None:
        self._goal: np.ndarray | None = None

    def propose(self, observation: Observation) -> Chunk | None:
        if self._goal is None:
            self._goal = observation.joints.copy()
        return Chunk(observation.stamp_ns, np.arange(1, 17) * 0.1, np.tile(self._goal, (16, 1)))
