"""Where the cameras sit, and the pinhole projection that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Camera

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mount:
    """Where a camera is fixed.

    Attributes:
        body: ``world``, or the body of the arm that carries it.
        position: (3,) in the frame of that body, m.
        right, up: directions of the picture's right and up, in the same frame; need not be normalised.
    """

    body: str
    position: tuple[float, float, float]
    right: tuple[float, float, float]
    up: tuple[float, float, float]

    def mjcf(self) -> str:
        """Attributes of an MJCF ``<camera>``."""
        position, axes = " ".join(map(str, self.position)), " ".join(map(str, (*self.right, *self.up)))
        return f'pos="{position}" xyaxes="{axes}"'


MOUNTS: dict[str, Mount] = {
    "front": Mount("world", (0.71, 0.0, 0.537), (0.0, 1.0, 0.0), (-0.79, 0.0, 0.61)),
    "wrist": Mount("hand", (0.0, 0.0, 0.05), (0.0, -1.0, 0.0), (0.35, 0.0, 0.94)),
}
"""Mounts by the camera name of the rig file."""


class Projection:
    """Pinhole projection of a camera fixed to the world: metres in the base frame to pixels.

    Pixels are continuous: the first pixel covers 0 to 1, u to the right, v down.

    Raises:
        ValueError: if the camera moves with the arm.
    """

    def __init__(self, camera: Camera) -> None:
        mount = MOUNTS[camera.name]
        if mount.body != "world":
            raise ValueError(
                f"camera '{camera.name}' moves with '{mount.body}'; only fixed cameras have one projection"
            )
        right, up = np.array(mount.right), np.array(mount.up)
        right = right / np.linalg.norm(right)
        up = up - right * (up @ right)
        up = up / np.linalg.norm(up)
        self._axes = np.stack([right, -up, -np.cross(right, up)])
        self._position = np.array(mount.position)
        self._focal = 0.5 * camera.height / np.tan(np.radians(camera.fovy_deg) / 2)
        self._centre = np.array([camera.width / 2, camera.height / 2])

    def __call__(self, points: npt.ArrayLike) -> Array:
        """(..., 3) points in m -> (..., 2) pixels."""
        local = (np.asarray(points, dtype=np.float64) - self._position) @ self._axes.T
        return np.asarray(self._focal * local[..., :2] / local[..., 2:] + self._centre)

    def on_plane(self, pixels: npt.ArrayLike, height: float) -> Array:
        """(..., 2) pixels -> (..., 2) x, y in m where their rays meet the plane z = ``height``."""
        offsets = (np.asarray(pixels, dtype=np.float64) - self._centre) / self._focal
        rays = np.concatenate([offsets, np.ones_like(offsets[..., :1])], axis=-1) @ self._axes
        scale = (height - self._position[2]) / rays[..., 2:]
        return np.asarray((self._position + scale * rays)[..., :2])
