"""Seeing the T: its pose on the table from one picture, from its colour, its shape and the camera's geometry.

For evaluation metrics and the scripted operator (a person sees the T and knows its shape too). Never used in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from hiwm_rig.contract import Rig
from hiwm_rig.types import Image

from hiwm_sim.camera import Projection
from hiwm_sim.ik import ArmKinematics
from hiwm_sim.tasks.push_t import geometry
from hiwm_sim.tasks.push_t.config import PushTConfig

Array = npt.NDArray[np.float64]
Soft = npt.NDArray[np.float32]

SUPERSAMPLING = 3
MARGIN = 28
"""Half the side of the window in which a pose is fitted, as pixels at a width of 128."""
REDNESS = 0.55
"""Chroma (red minus the larger of green and blue, over their sum) of a pixel that is all T."""
GREYISH = 0.08
"""The same measure of a pixel that is no T at all: wooden and grey tables lie below."""
DARK = 75
"""Brightest channel below which a pixel belongs to the arm or the rod: it says nothing about the T."""
STEPS = np.array([0.0015, 0.0015, 0.03])
"""Differences (m, m, rad) for the numerical derivative of the silhouette."""
MIN_PIXELS = 12


@dataclass(frozen=True)
class Measurement:
    """A T found in a picture.

    Attributes:
        pose: (x, y, yaw) in m and rad, base frame.
        fit: agreement of picture and silhouette over the pixels the arm does not hide, 0..1 (soft IoU).
        visible: fraction of the silhouette that the arm does not hide, 0..1.
    """

    pose: Array
    fit: float
    visible: float


class TVision:
    """Measures the T in pictures of one fixed camera.

    Args:
        rig: gives the camera's size and field of view.
        config: gives the shape of the T.
        camera: name of the camera.
    """

    def __init__(self, rig: Rig, config: PushTConfig | None = None, camera: str = "front") -> None:
        self._shape = (config or PushTConfig()).shape
        self._camera = rig.camera(camera)
        self.project = Projection(self._camera)
        self._kinematics = ArmKinematics()
        self._margin = round(MARGIN * self._camera.width / 128)
        signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        flat = np.concatenate([centre + signs * half for centre, half in geometry.boxes(self._shape)])
        # Bar bottom, bar top, stem bottom, stem top: four corners each.
        self._corners = flat.reshape(2, 1, 4, 2).repeat(2, axis=1).reshape(16, 2)
        self._heights = np.tile(np.repeat([0.0, self._shape.height], 4), 2)
        (bar, _), (stem, _) = geometry.boxes(self._shape)
        self._middle = (4 * bar + 3 * stem) / 7

    # -- pictures ----------------------------------------------------------------------------------------------

    def soft_mask(self, image: Image) -> Soft:
        """(H, W) share of T in each pixel of an (H, W, 3) RGB picture, 0..1."""
        pixels = image.astype(np.float32)
        red, other = pixels[..., 0], pixels[..., 1:].max(-1)
        chroma = (red - other) / np.maximum(pixels.sum(-1), 30.0)
        return np.asarray(np.clip((chroma - GREYISH) / (REDNESS - GREYISH), 0.0, 1.0), dtype=np.float32)

    def t_mask(self, image: Image) -> npt.NDArray[np.bool_]:
        """(H, W) pixels that are mostly T."""
        return np.asarray(self.soft_mask(image) > 0.5)

    def silhouette(self, pose: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """(H, W) pixels that a T at ``pose`` (3,) covers where nothing hides it."""
        window = (0, 0, self._camera.width, self._camera.height)
        return np.asarray(self._draw(np.asarray(pose, dtype=np.float64), window) > 0.5)

    def centroid(self, pose: npt.ArrayLike) -> Array:
        """(..., 2) pixels of the centre of area of the top of T's at ``pose`` (..., 3)."""
        points = geometry.transform(pose, self._middle[None])[..., 0, :]
        return self.project(np.concatenate([points, np.full((*points.shape[:-1], 1), self._shape.height)], axis=-1))

    def tip(self, joints: npt.ArrayLike) -> Array:
        """(..., 2) pixels of the tool tip for joints (..., D)."""
        return self.project(self._kinematics.tip(joints))

    # -- measuring ---------------------------------------------------------------------------------------------

    def measure(self, image: Image, initial: npt.ArrayLike | None = None) -> Measurement | None:
        """Pose of the T in an (H, W, 3) RGB picture; None where there is none to be seen.

        Args:
            image: of this camera.
            initial: (x, y, yaw) to track from, as of the last picture; without it the whole picture is searched.
        """
        mask = self.soft_mask(image)
        if float(mask.sum()) < MIN_PIXELS:
            return None
        dark = (image.max(-1) < DARK).astype(np.uint8)
        known = 1.0 - cv2.dilate(dark, np.ones((3, 3), np.uint8)).astype(np.float32)
        if initial is not None:
            tracked = self._refine(np.asarray(initial, dtype=np.float64), mask, known)
            if tracked.fit > 0.85:
                return tracked
            found = self._search(mask, known)
            return tracked if tracked.fit >= found.fit else found
        return self._search(mask, known)

    def _search(self, mask: Soft, known: Soft) -> Measurement:
        """Every heading at the middle of what is seen, the best few refined."""
        v, u = np.nonzero(mask > 0.5)
        seen = np.array([u.mean() + 0.5, v.mean() + 0.5]) if u.size else np.array([64.0, 64.0])
        middle = self.project.on_plane(seen, self._shape.height / 2)
        guesses = []
        for yaw in np.arange(0, 2 * np.pi, np.pi / 12):
            pose = np.array([*(middle - geometry.rotation(yaw) @ self._middle), yaw])
            window = self._window(pose)
            drawn, target, weight = self._draw(pose, window), _cut(mask, window), _cut(known, window)
            guesses.append((float((weight * (drawn - target) ** 2).sum()), pose))
        guesses.sort(key=lambda g: g[0])
        # A few steps tell the right heading from its rivals; only that one is worth more.
        tried = [self._refine(pose, mask, known, iterations=4) for _, pose in guesses[:3]]
        return self._refine(max(tried, key=lambda m: m.fit).pose, mask, known)

    def _refine(self, pose: Array, mask: Soft, known: Soft, iterations: int = 12) -> Measurement:
        """Damped Gauss-Newton on the difference between the picture's soft mask and the drawn silhouette."""
        window, damping = self._window(pose), 1e-3
        target, weight = _cut(mask, window), _cut(known, window)
        drawn = self._draw(pose, window)
        cost = float((weight * (drawn - target) ** 2).sum())
        for _ in range(iterations):
            columns = []
            for i in range(3):
                offset = np.eye(3)[i] * STEPS
                columns.append((self._draw(pose + offset, window) - self._draw(pose - offset, window)).ravel() / 2)
            jacobian = np.stack(columns, axis=1) * np.sqrt(weight).ravel()[:, None]
            error = (np.sqrt(weight) * (target - drawn)).ravel()
            normal = jacobian.T @ jacobian
            scaled = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-6), jacobian.T @ error)
            change = np.clip(scaled, -6, 6) * STEPS
            trial = pose + change
            candidate = self._draw(trial, window)
            trial_cost = float((weight * (candidate - target) ** 2).sum())
            if trial_cost < cost:
                pose, drawn, cost, damping = trial, candidate, trial_cost, damping * 0.3
                if np.abs(scaled).max() < 0.02:
                    break
            elif damping > 1.0:
                break
            else:
                damping = max(damping, 1e-3) * 30
        overlap = float((weight * np.minimum(drawn, target)).sum())
        union = float((weight * np.maximum(drawn, target)).sum())
        # T pixels outside the window count against the fit.
        union += max(0.0, float((known * mask).sum() - (weight * target).sum()))
        visible = float((weight * drawn).sum() / max(float(drawn.sum()), 1e-6))
        yaw = (pose[2] + np.pi) % (2 * np.pi) - np.pi
        return Measurement(np.array([pose[0], pose[1], yaw]), overlap / max(union, 1e-6), visible)

    # -- drawing -----------------------------------------------------------------------------------------------

    def _window(self, pose: Array) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) pixels around a T at ``pose``, inside the picture and never empty."""
        u, v = (round(float(c)) for c in self.centroid(pose))
        width, height, margin = self._camera.width, self._camera.height, self._margin
        left, top = int(np.clip(u - margin, 0, width - 8)), int(np.clip(v - margin, 0, height - 8))
        return left, top, int(np.clip(u + margin, left + 8, width)), int(np.clip(v + margin, top + 8, height))

    def _draw(self, pose: Array, window: tuple[int, int, int, int]) -> Soft:
        """Share of T in each pixel of a window: the hulls of its two boxes, drawn finely and averaged."""
        left, top, right, bottom = window
        canvas = np.zeros(((bottom - top) * SUPERSAMPLING, (right - left) * SUPERSAMPLING), np.uint8)
        solid = np.column_stack([geometry.transform(pose, self._corners), self._heights])
        # In sixteenths of a fine pixel, counted from the middle of the first one, as OpenCV draws.
        points = np.round(((self.project(solid) - [left, top]) * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
        for box in (points[:8], points[8:]):
            cv2.fillConvexPoly(canvas, cv2.convexHull(box), 255, shift=4)
        size = (right - left, bottom - top)
        return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), dtype=np.float32) / np.float32(255)


def _cut(image: Soft, window: tuple[int, int, int, int]) -> Soft:
    left, top, right, bottom = window
    return image[top:bottom, left:right]
