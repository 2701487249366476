"""The world rig and a policy's runner as the lock-step loop wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hiwm_rig.codecs import Chunk
from hiwm_rig.types import FloatArray, Observation

from hiwm_teleop.lockstep import Place

if TYPE_CHECKING:
    from hiwm_policy.runner import ChunkedRunner
    from hiwm_world_model.env import WorldRigEnv


class RunnerProposer:
    """A policy's ``ChunkedRunner`` as the lock-step loop wants it."""

    def __init__(self, runner: ChunkedRunner, period_s: float) -> None:
        """Args: runner: of the policy; period_s: control period."""
        self._runner = runner
        self._period_s = period_s

    def reset(self, seed: int | None = None) -> None:
        """Forget history and chunk."""
        self._runner.reset(seed)

    def propose(self, observation: Observation) -> Chunk | None:
        """See :class:`~hiwm_teleop.lockstep.Proposer`."""
        self._runner.observe(observation)
        if not self._runner.due():
            return None
        request = self._runner.snapshot()
        chunk = np.asarray(self._runner.infer(request), np.float64)
        offsets = self._period_s * np.arange(1, len(chunk) + 1, dtype=np.float64)
        return Chunk(observation.stamp_ns, offsets, chunk)


class WorldRewindable:
    """A ``WorldRigEnv`` as the lock-step loop wants it."""

    def __init__(self, env: WorldRigEnv) -> None:
        """Args: env: the virtual robot."""
        self._env = env

    def reset(self, seed: int) -> Observation:
        """Start at the real first frame that belongs to ``seed``."""
        return self._env.reset(seed)

    def step(self, action: FloatArray) -> Observation:
        """Obey (D,) joint targets for one control period."""
        return self._env.step(action)

    def rollback(self, snapshot_id: int) -> Observation:
        """Return to an ancestor."""
        return self._env.rollback(snapshot_id=snapshot_id)

    def branch(self, snapshot_id: int) -> Observation:
        """Start a new branch at any snapshot."""
        return self._env.branch(snapshot_id)

    def place(self) -> Place:
        """Which frame it shows."""
        moment = self._env.moment
        return Place(
            branch_id=moment.branch.id,
            parent_branch_id=moment.branch.parent_id,
            snapshot_id=moment.snapshot.id,
            step=moment.snapshot.step,
            success_probability=self._env.success_probability,
            trust=self._env.trust,
        )
