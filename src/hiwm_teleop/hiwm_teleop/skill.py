"""What an operator knows of a task. Skills register themselves by task name. No ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, FloatArray, Image


@dataclass(frozen=True)
class View:
    """What a person has in front of them on one frame.

    Attributes:
        images: camera name -> (H, W, 3) uint8 RGB.
        joints: (D,) follower positions, rad or m.
        stamp_ns: of the frame.
        driver: who drives.
        branch_id: of the branch shown; grows. 0 on a rig without branches.
        snapshot_id: number of the frame shown; -1 on a rig without snapshots.
        step: control steps since the root.
        success_probability: as displayed, or None.
        time_s: of the rig, where it differs from the stamps: a world that is stopped shows frames, but no time passes.
    """

    images: Mapping[str, Image]
    joints: FloatArray
    stamp_ns: int
    driver: Driver
    branch_id: int = 0
    snapshot_id: int = -1
    step: int = 0
    success_probability: float | None = None
    time_s: float | None = None

    @property
    def seconds(self) -> float:
        """Time of the rig, from an arbitrary start."""
        return self.stamp_ns / NS_PER_S if self.time_s is None else self.time_s


@dataclass(frozen=True)
class Glimpse:
    """What an operator makes of one frame.

    Attributes:
        distance: how far the task is from done, in a unit of the skill's (m for Push-T); NaN where it cannot be seen.
        solved: whether it looks done.
        joints: (D,) joint positions, to see whether the robot stands still.
        pose: of the manipulated object, meaning defined by the skill; empty where it cannot be seen.
        clarity: 0..1, how well it could be seen.
    """

    distance: float
    solved: bool
    joints: FloatArray
    pose: FloatArray
    clarity: float = 1.0

    @property
    def clear(self) -> bool:
        """Whether the object could be seen."""
        return bool(np.isfinite(self.distance))


class Correction(Protocol):
    """A hand that knows what to do; looks at each frame before it moves on."""

    def next(self, glimpse: Glimpse) -> FloatArray | None:
        """(D,) leader position one control period from now, rad or m; None when the correction is finished.

        Called once a frame, beside the control loop. Where it takes longer than a frame, the hand rests meanwhile.
        """
        ...


class Skill(Protocol):
    """What a person who knows a task does with their eyes and their head."""

    def reset(self) -> None:
        """Forget the last episode."""
        ...

    def look(self, view: View) -> Glimpse:
        """Make sense of one frame."""
        ...

    def failing(self, history: Sequence[Glimpse], watched: int) -> str | None:
        """Why the rollout is failing, or None. ``watched``: frames since the policy (again) drives."""
        ...

    def settled(self, history: Sequence[Glimpse]) -> bool:
        """Whether a task that looks done is left alone (the robot has withdrawn)."""
        ...

    def good_span(self, history: Sequence[Glimpse]) -> tuple[int, int]:
        """First and last index of the frames at which the trouble began: any of them is worth going back to."""
        ...

    def recall(self, history: Sequence[Glimpse]) -> Glimpse:
        """What the last frame must look like; an earlier glimpse where the object is hidden in it."""
        ...

    def plan(self, glimpse: Glimpse, joints: FloatArray, attempt: int, rng: np.random.Generator) -> Correction | None:
        """A correction of at most a few seconds, or None. May take a second: it is called beside the control loop.

        Args:
            glimpse: what the situation is.
            joints: (D,) follower positions, rad or m.
            attempt: 0 for the first correction of a situation; others must differ.
            rng: of its choices.
        """
        ...


SkillFactory = Callable[[Rig], Skill]
_SKILLS: dict[str, SkillFactory] = {}


_F = TypeVar("_F", bound=SkillFactory)


def register_skill(task: str) -> Callable[[_F], _F]:
    """Decorator: the skill class of a task; it is made with the rig."""

    def add(factory: _F) -> _F:
        if task in _SKILLS:
            raise ValueError(f"there is already a skill for task '{task}'")
        _SKILLS[task] = factory
        return factory

    return add


def make_skill(task: str, rig: Rig) -> Skill:
    """The skill of a task, on a rig.

    Raises:
        KeyError: naming the tasks there are skills for.
    """
    import hiwm_teleop.operators  # noqa: F401  (registers the skills; imports simulation code)

    if task not in _SKILLS:
        raise KeyError(f"the scripted operator knows no task '{task}'; it knows {sorted(_SKILLS)}")
    return _SKILLS[task](rig)
