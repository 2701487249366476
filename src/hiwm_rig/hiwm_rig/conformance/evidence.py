"""What was received from a rig, reduced to what checks look at. No ROS; pixels are not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hiwm_rig.codecs import NS_PER_S, stamp_to_ns

Array = npt.NDArray[np.float64]
_SAMPLED_BYTES = 997
"""Stride at which pixels are looked at: prime, so that it meets all columns and channels."""


@dataclass(frozen=True)
class Frame:
    """One ``sensor_msgs/Image``; ``contrast`` is the largest less the smallest of the bytes sampled."""

    stamp_ns: int
    received_ns: int
    frame_id: str
    width: int
    height: int
    encoding: str
    step: int
    size: int
    bigendian: bool
    contrast: int


@dataclass(frozen=True)
class Info:
    """One ``sensor_msgs/CameraInfo``; d (N,), k (3, 3), r (3, 3), p (3, 4)."""

    stamp_ns: int
    received_ns: int
    frame_id: str
    width: int
    height: int
    model: str
    d: Array
    k: Array
    r: Array
    p: Array


@dataclass(frozen=True)
class State:
    """One ``sensor_msgs/JointState``, in the order of the message."""

    stamp_ns: int
    received_ns: int
    names: tuple[str, ...]
    positions: tuple[float, ...]
    velocities: tuple[float, ...]


@dataclass(frozen=True)
class Track:
    """How an arm moved while it was watched.

    Attributes:
        times_s: (N,) stamps in seconds after the watch began.
        received_s: (N,) when the samples were received, on the same clock.
        positions: (N, D) rad or m, in the rig file's joint order.
        velocities: (N, D) as published, or (N, 0).
    """

    times_s: Array
    received_s: Array
    positions: Array
    velocities: Array


def frame_of(msg: Any, received_ns: int) -> Frame:
    """Evidence of an ``Image``."""
    data = np.frombuffer(msg.data, dtype=np.uint8)
    sampled = data[::_SAMPLED_BYTES] if data.size > _SAMPLED_BYTES**2 // 100 else data
    return Frame(
        stamp_ns=stamp_to_ns(msg.header.stamp),
        received_ns=received_ns,
        frame_id=str(msg.header.frame_id),
        width=int(msg.width),
        height=int(msg.height),
        encoding=str(msg.encoding),
        step=int(msg.step),
        size=int(data.size),
        bigendian=bool(msg.is_bigendian),
        contrast=int(sampled.max()) - int(sampled.min()) if sampled.size else 0,
    )


def info_of(msg: Any, received_ns: int) -> Info:
    """Evidence of a ``CameraInfo``."""
    return Info(
        stamp_ns=stamp_to_ns(msg.header.stamp),
        received_ns=received_ns,
        frame_id=str(msg.header.frame_id),
        width=int(msg.width),
        height=int(msg.height),
        model=str(msg.distortion_model),
        d=np.asarray(msg.d, dtype=np.float64),
        k=np.asarray(msg.k, dtype=np.float64).reshape(3, 3),
        r=np.asarray(msg.r, dtype=np.float64).reshape(3, 3),
        p=np.asarray(msg.p, dtype=np.float64).reshape(3, 4),
    )


def state_of(msg: Any, received_ns: int) -> State:
    """Evidence of a ``JointState``."""
    return State(stamp_to_ns(msg.header.stamp), received_ns, tuple(msg.name), tuple(msg.position), tuple(msg.velocity))


def in_order(state: State, names: Sequence[str]) -> Array | None:
    """(D,) positions of a state in the order of ``names``; None where it does not hold them all, finite."""
    if len(state.positions) != len(state.names) or not set(names) <= set(state.names):
        return None
    index = {name: i for i, name in enumerate(state.names)}
    values = np.array([state.positions[index[name]] for name in names])
    return values if np.isfinite(values).all() else None


def track_of(states: Sequence[State], names: Sequence[str], origin_ns: int) -> Track:
    """The states that hold these joints, as arrays; times count from ``origin_ns``."""
    kept = [(s, p) for s in states if (p := in_order(s, names)) is not None]
    order = {name: i for i, name in enumerate(names)}
    velocities = [
        [v for _, v in sorted(zip(s.names, s.velocities, strict=True), key=lambda nv: order.get(nv[0], len(order)))]
        for s, _ in kept
        if len(s.velocities) == len(s.names)
    ]
    complete = len(velocities) == len(kept) and bool(kept)
    return Track(
        times_s=np.array([(s.stamp_ns - origin_ns) / NS_PER_S for s, _ in kept]),
        received_s=np.array([(s.received_ns - origin_ns) / NS_PER_S for s, _ in kept]),
        positions=np.array([p for _, p in kept]).reshape(len(kept), len(names)),
        velocities=np.array(velocities)[:, : len(names)] if complete else np.zeros((len(kept), 0)),
    )


def mean_rate(stamps_ns: Sequence[int]) -> float:
    """Samples per second over the stamps; 0 for fewer than two or for stamps that stand still."""
    span = stamps_ns[-1] - stamps_ns[0] if len(stamps_ns) > 1 else 0
    return (len(stamps_ns) - 1) * NS_PER_S / span if span > 0 else 0.0


def jitter_s(stamps_ns: Sequence[int], period_s: float) -> float:
    """95th percentile of how far intervals are from the period, seconds; infinite for fewer than three stamps."""
    if len(stamps_ns) < 3:
        return float("inf")
    return float(np.percentile(np.abs(np.diff(stamps_ns) / NS_PER_S - period_s), 95))
