"""What a task is, and the registry tasks enter by being imported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import mujoco
import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Rig
from hiwm_rig.probe import ObjectProbe

from hiwm_sim.scene import SceneParts

if TYPE_CHECKING:
    from hiwm_sim.rig import SimRig

Action = npt.NDArray[np.float64]
Script = Iterator[Action]
"""A behaviour: yields (D,) joint targets; the rig has been stepped with the last one before the next is asked for."""


class Task(ABC):
    """One manipulation task: its objects, where they start, when it is done, and scripted behaviours for data.

    The scripts and :meth:`state` may look into the simulator: they play the people who set up, demonstrate and judge.
    Policies and operators never see a Task; they get images and joints.
    """

    name: str = ""
    instruction: str = ""

    @abstractmethod
    def scene(self) -> SceneParts:
        """The MJCF pieces of the task."""

    @abstractmethod
    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draw an initial state into ``data``; the arm is at home already."""

    @abstractmethod
    def succeeded(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """Whether the task is done now, with the tool clear of the objects."""

    @abstractmethod
    def state(self, model: mujoco.MjModel, data: mujoco.MjData) -> npt.NDArray[np.float64]:
        """(K,) values of the task's objects; an evaluation label only. Names in :attr:`state_names`."""

    @property
    @abstractmethod
    def state_names(self) -> tuple[str, ...]:
        """Names of the values of :meth:`state`."""

    @property
    @abstractmethod
    def max_steps(self) -> int:
        """Control steps after which an episode is over."""

    @abstractmethod
    def demonstrate(self, env: SimRig, rng: np.random.Generator, noise: float = 0.0) -> Script:
        """The scripted demonstrator, from the present state; ``noise`` (m) perturbs what it sends."""

    @abstractmethod
    def play(self, env: SimRig, rng: np.random.Generator) -> Script:
        """Endless undirected manipulation for world-model data."""

    @abstractmethod
    def reset_play(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draw an initial state for play: wider than :meth:`reset`, and sometimes already solved."""

    def probe(self, rig: Rig) -> ObjectProbe | None:
        """What measures the task's object in this rig's pictures, for fidelity metrics; None where there is none."""
        return None


TASKS: dict[str, Callable[[], Task]] = {}
T = TypeVar("T", bound=Task)


def register_task(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: make a task constructible by name.

    Raises:
        ValueError: if the name is taken.
    """

    def register(cls: type[T]) -> type[T]:
        if name in TASKS:
            raise ValueError(f"task '{name}' is already registered")
        cls.name = name
        TASKS[name] = cls
        return cls

    return register
