"""Executing chunks step by step: history, when to ask for the next chunk, forgetting. For evaluation and for the node.

No ROS and no clock: the caller says which observation is new. In lock-step use :meth:`ChunkedRunner.act`. Where
inference runs beside the rig, one thread calls ``infer`` and another everything else.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Joint
from hiwm_rig.types import FloatArray, Observation

from hiwm_policy.policy import Policy, PolicyObservation, PolicySpec


@dataclass(frozen=True)
class Request:
    """What one chunk is computed from.

    Attributes:
        observation: one row, history included.
        stamp_ns: of the newest frame.
        epoch: counts the resets; a chunk of an earlier epoch is worthless.
        seed: of the policy's noise in this epoch, or None.
    """

    observation: PolicyObservation
    stamp_ns: int
    epoch: int
    seed: int | None


class History:
    """The newest observations, repeated backwards while there are fewer than the policy looks at."""

    def __init__(self, spec: PolicySpec) -> None:
        self._spec = spec
        self._frames: deque[Observation] = deque(maxlen=spec.history)

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, observation: Observation) -> None:
        """Add the newest observation."""
        self._frames.append(observation)

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()

    def stacked(self) -> PolicyObservation:
        """One row for :meth:`Policy.predict_action`.

        Raises:
            IndexError: without any observation.
        """
        missing = self._spec.history - len(self._frames)
        frames = [self._frames[0]] * missing + list(self._frames)
        return PolicyObservation(
            images={c.name: np.stack([f.images[c.name] for f in frames])[None] for c in self._spec.cameras},
            joints=np.stack([f.joints for f in frames]).astype(np.float32)[None],
        )


class ChunkedRunner:
    """Decides when a policy is asked, and what is executed of its answers.

    Args:
        policy: any policy.
        joints: of the rig; targets are kept inside their limits.
        execute: steps between chunks; None takes the policy's own number.
    """

    def __init__(self, policy: Policy, joints: tuple[Joint, ...], execute: int | None = None) -> None:
        if len(joints) != len(policy.spec.joint_names):
            raise ValueError(f"the policy moves {len(policy.spec.joint_names)} joints, the rig has {len(joints)}")
        if execute is not None and not 1 <= execute <= policy.spec.horizon:
            raise ValueError(f"execute must lie in 1..{policy.spec.horizon} (the policy's horizon), got {execute}")
        self.policy = policy
        self.execute = execute or policy.spec.execute
        self.epoch = 0
        self._history = History(policy.spec)
        self._lower = np.array([j.lower for j in joints])
        self._upper = np.array([j.upper for j in joints])
        self._chunk: npt.NDArray[np.float64] | None = None
        self._position = 0
        self._since_request: int | None = None
        self._stamp_ns = 0
        self._seed: int | None = None
        self._policy_epoch = -1

    def reset(self, seed: int | None = None) -> None:
        """Forget history and chunk: a new episode, a rollback, a branch."""
        self.epoch += 1
        self._seed = seed
        self._history.clear()
        self._chunk = None
        self._since_request = None

    def observe(self, observation: Observation) -> None:
        """Add the newest observation of the rig."""
        self._history.push(observation)
        self._stamp_ns = observation.stamp_ns
        if self._since_request is not None:
            self._since_request += 1

    def due(self, execute: int | None = None) -> bool:
        """Whether a chunk should be computed from what is known now.

        Args:
            execute: steps between chunks, where it differs from :attr:`execute` for now.
        """
        if not len(self._history):
            return False
        return self._since_request is None or self._since_request >= (execute or self.execute)

    def snapshot(self) -> Request:
        """What to compute the chunk from; :meth:`due` is false until ``execute`` more observations came."""
        self._since_request = 0
        return Request(self._history.stacked(), self._stamp_ns, self.epoch, self._seed)

    def infer(self, request: Request) -> npt.NDArray[np.float64]:
        """(H, D) absolute joint targets inside the limits; the slow part."""
        if request.epoch != self._policy_epoch:
            self.policy.reset(request.seed)
            self._policy_epoch = request.epoch
        chunk = self.policy.predict_action(request.observation)[0]
        return np.clip(np.asarray(chunk, np.float64), self._lower, self._upper)

    def accept(self, request: Request) -> bool:
        """Whether a chunk computed from ``request`` may still be used."""
        return request.epoch == self.epoch

    def act(self, observation: Observation) -> FloatArray:
        """Lock-step: the (D,) target for the period that starts at ``observation``."""
        self.observe(observation)
        if self._chunk is None or self.due():
            self._chunk = self.infer(self.snapshot())
            self._position = 0
        target: FloatArray = self._chunk[self._position]
        self._position += 1
        return target
