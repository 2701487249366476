"""Joint commands as every rig obeys them: validated, interpolated, held when stale. No ROS.

A rig takes single targets and whole chunks. A command that is wrong in any way is rejected as a whole with a reason,
and the last valid one stays in force.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from hiwm_rig.codecs import NS_PER_S, Chunk, CodecError, trajectory_to_chunk
from hiwm_rig.contract import Joint
from hiwm_rig.types import FloatArray

LIMIT_TOLERANCE = 1e-3
"""How far (rad or m) a target may lie outside a joint's limits; it is clipped. Beyond: rejected."""


class Reason(StrEnum):
    """Why a command was rejected; the keys of the counters."""

    MALFORMED = "rejected_malformed"
    NOT_FINITE = "rejected_not_finite"
    OUT_OF_LIMITS = "rejected_out_of_limits"
    OLD = "rejected_old"


@dataclass(frozen=True)
class Rejection:
    """A command that was not taken, and why."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Target:
    """What to obey now.

    Attributes:
        positions: (D,) rad or m, inside the limits.
        fresh: False where no command is in force (none yet, or the last one is stale) and the position is held.
    """

    positions: npt.NDArray[np.float64]
    fresh: bool


def limit_velocity(
    previous: FloatArray, target: FloatArray, max_velocity: FloatArray, dt_s: float
) -> npt.NDArray[np.float64]:
    """``target`` moved towards (D,) ``previous`` with no joint faster than (D,) ``max_velocity`` over ``dt_s``."""
    step = np.asarray(max_velocity, dtype=np.float64) * dt_s
    return np.asarray(previous + np.clip(np.asarray(target) - previous, -step, step), dtype=np.float64)


def validate_positions(positions: FloatArray, joints: Sequence[Joint]) -> Rejection | None:
    """Judge (..., D) positions against the joints' limits; None where they may be obeyed."""
    values = np.asarray(positions, dtype=np.float64).reshape(-1, len(joints))
    if not np.isfinite(values).all():
        bad = [joints[int(i)].name for i in np.flatnonzero(~np.isfinite(values).all(axis=0))]
        return Rejection(Reason.NOT_FINITE, f"NaN or infinite target for {bad}")
    lower = np.array([j.lower for j in joints]) - LIMIT_TOLERANCE
    upper = np.array([j.upper for j in joints]) + LIMIT_TOLERANCE
    outside = ((values < lower) | (values > upper)).any(axis=0)
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        worst = values[:, i][np.argmax(np.abs(values[:, i] - np.clip(values[:, i], lower[i], upper[i])))]
        joint = joints[i]
        return Rejection(
            Reason.OUT_OF_LIMITS,
            f"target {worst:.4f} of joint '{joint.name}' is outside [{joint.lower}, {joint.upper}]",
        )
    return None


class CommandReceiver:
    """The command input of one arm.

    Args:
        joints: the arm's joints, in the order of every array here.
        initial: (D,) position held until the first command.
        timeout_s: age above which a command is stale. A chunk ages from its last point on.
    """

    def __init__(self, joints: Sequence[Joint], initial: FloatArray, timeout_s: float) -> None:
        self._joints = tuple(joints)
        self._names = tuple(j.name for j in joints)
        self._lower = np.array([j.lower for j in joints])
        self._upper = np.array([j.upper for j in joints])
        self._timeout_ns = round(timeout_s * NS_PER_S)
        self.counters: Counter[str] = Counter(accepted=0, stale=0, **{r.value: 0 for r in Reason})
        self.last_rejection: Rejection | None = None
        self._chunk: Chunk | None = None
        self._valid_until_ns = 0
        self._held = np.zeros(0)
        self.hold(initial)

    def hold(self, positions: FloatArray) -> None:
        """Forget the command in force and hold (D,) positions: after a reset or a rollback.

        Raises:
            ValueError: wrong size or not finite.
        """
        values = np.asarray(positions, dtype=np.float64)
        if values.shape != (len(self._names),) or not np.isfinite(values).all():
            raise ValueError(f"hold needs {len(self._names)} finite positions, got {values.tolist()}")
        self._held = np.clip(values, self._lower, self._upper)
        self._chunk = None

    def offer_message(self, msg: Any, now_ns: int) -> Rejection | None:
        """Take a ``JointTrajectory``; see :meth:`offer`."""
        try:
            chunk = trajectory_to_chunk(msg, self._names)
        except CodecError as error:
            return self._reject(Rejection(Reason.MALFORMED, str(error)))
        return self.offer(chunk, now_ns)

    def offer(self, chunk: Chunk, now_ns: int) -> Rejection | None:
        """Take a command in joint order, received at ``now_ns``; None where it was accepted.

        A stamp of 0 means "from now on", as in ros2_control.
        """
        stamp_ns = chunk.stamp_ns or now_ns
        rejection = self._judge(chunk, stamp_ns, now_ns)
        if rejection is not None:
            return self._reject(rejection)
        self._chunk = Chunk(stamp_ns, chunk.offsets_s, np.clip(chunk.positions, self._lower, self._upper))
        self._valid_until_ns = self._end_ns(stamp_ns, chunk, now_ns) + self._timeout_ns
        self.counters["accepted"] += 1
        return None

    def target(self, at_ns: int, now_ns: int) -> Target:
        """What to obey at ``now_ns`` for the position due at ``at_ns`` (the end of the control period).

        A single target applies at once. A chunk is interpolated linearly and held at its ends.
        """
        if self._chunk is None:
            return Target(self._held.copy(), fresh=False)
        if now_ns > self._valid_until_ns:
            self.counters["stale"] += 1
            self._chunk = None
            return Target(self._held.copy(), fresh=False)
        self._held = interpolate(self._chunk, at_ns)
        return Target(self._held.copy(), fresh=True)

    def _judge(self, chunk: Chunk, stamp_ns: int, now_ns: int) -> Rejection | None:
        if chunk.positions.ndim != 2 or chunk.positions.shape != (chunk.offsets_s.size, len(self._names)):
            expected = f"({chunk.offsets_s.size}, {len(self._names)})"
            return Rejection(Reason.MALFORMED, f"positions must be {expected}, got {chunk.positions.shape}")
        if chunk.offsets_s.size == 0:
            return Rejection(Reason.MALFORMED, "a command needs at least one point")
        if now_ns > self._end_ns(stamp_ns, chunk, stamp_ns) + self._timeout_ns:
            return Rejection(Reason.OLD, f"command of {(now_ns - stamp_ns) / NS_PER_S:.2f} s ago has run out")
        return validate_positions(chunk.positions, self._joints)

    @staticmethod
    def _end_ns(stamp_ns: int, chunk: Chunk, received_ns: int) -> int:
        return max(received_ns, stamp_ns + round(float(chunk.offsets_s[-1]) * NS_PER_S))

    def _reject(self, rejection: Rejection) -> Rejection:
        self.counters[rejection.reason.value] += 1
        self.last_rejection = rejection
        return rejection


def interpolate(chunk: Chunk, at_ns: int) -> npt.NDArray[np.float64]:
    """(D,) position of a chunk at a time: linear between points, exact at points, held at both ends."""
    at_s = (at_ns - chunk.stamp_ns) / NS_PER_S
    right = int(np.searchsorted(chunk.offsets_s, at_s))
    if right == 0:
        return chunk.positions[0].copy()
    if right == chunk.offsets_s.size:
        return chunk.positions[-1].copy()
    left = right - 1
    weight = (at_s - chunk.offsets_s[left]) / (chunk.offsets_s[right] - chunk.offsets_s[left])
    return np.asarray((1 - weight) * chunk.positions[left] + weight * chunk.positions[right], dtype=np.float64)
