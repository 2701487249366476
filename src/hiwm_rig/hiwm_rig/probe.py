"""Looking for a task's object in pictures: what a task offers to those who measure fidelity. Never used in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hiwm_rig.types import Image

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ObjectView:
    """A task's object in one picture.

    Attributes:
        centroid: (2,) pixels.
        angle: heading in rad.
        pose: what the probe can track from in the next picture; its own affair.
    """

    centroid: Array
    angle: float
    pose: Array


class ObjectProbe(Protocol):
    """Measures a task's object and tool in pictures; a task hands one out. For evaluation only, never in training."""

    def measure(self, image: Image, near: ObjectView | None = None) -> ObjectView | None:
        """The object in an (H, W, 3) picture, searched from ``near`` on; None where none is to be seen."""
        ...

    def mask(self, image: Image) -> npt.NDArray[np.bool_]:
        """(H, W) pixels of the object."""
        ...

    def tip(self, joints: npt.ArrayLike) -> Array:
        """(..., 2) pixels of the tool's tip for joints (..., D)."""
        ...

    def tip_shift(self, predicted: Image, real: Image, joints: npt.ArrayLike) -> float:
        """How far, in pixels, the tool's tip in a predicted picture is from where the real one shows it."""
        ...

    def label(self, row: npt.ArrayLike) -> ObjectView | None:
        """The object from a dataset's evaluation label, where it has one."""
        ...
