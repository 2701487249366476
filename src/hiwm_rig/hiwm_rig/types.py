"""Values every package shares: what a rig shows, and what a user of a rig may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
Image = npt.NDArray[np.uint8]


class Driver(IntEnum):
    """Who commands the follower; the values of ``hiwm_msgs/ControlState``."""

    POLICY = 0
    ALIGNING = 1
    HUMAN = 2
    PAUSED = 3


class Outcome(IntEnum):
    """How an episode or a branch ended; the values of ``hiwm_msgs/EpisodeEvent``."""

    UNKNOWN = 0
    SUCCESS = 1
    FAILURE = 2
    DISCARD = 3


@dataclass(frozen=True)
class Observation:
    """What a rig shows on one control tick.

    Attributes:
        images: camera name -> (height, width, 3) uint8 RGB.
        joints: (D,) positions in the rig file's joint order, rad or m.
        stamp_ns: when it was taken, nanoseconds since the epoch of the rig's clock.
        velocities: (D,) rad/s or m/s; empty where the rig does not report them.
    """

    images: Mapping[str, Image]
    joints: FloatArray
    stamp_ns: int
    velocities: FloatArray = field(default_factory=lambda: np.zeros(0))


@runtime_checkable
class RigEnv(Protocol):
    """A rig in lock-step, in process, for mass rollouts; the ROS nodes wrap the same cores.

    Time advances only in :meth:`step`, by one control period of the rig file.
    """

    def reset(self, seed: int) -> Observation:
        """Put the rig into the initial state that belongs to ``seed``."""
        ...

    def step(self, action: FloatArray) -> Observation:
        """Obey (D,) joint targets for one control period."""
        ...

    def succeeded(self) -> bool:
        """Whether the task is done in the present state; read by evaluation only, never by a policy."""
        ...

    def finish(self) -> bool:
        """End the episode as a rig does (the tool retreats) and say whether the task is done."""
        ...
