"""Plane geometry of the T: outline, coverage, distance. Poses are (x, y, yaw) in m and rad; no simulator here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from shapely.geometry import Polygon

from hiwm_sim.tasks.push_t.config import TShape

Array = npt.NDArray[np.float64]


def boxes(shape: TShape) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Centre and half size (2,) of the bar and of the stem, in the frame of the T."""
    u = shape.unit
    return (np.zeros(2), np.array([2 * u, u / 2])), (np.array([0.0, -2 * u]), np.array([u / 2, 1.5 * u]))


def outline(shape: TShape) -> Array:
    """(8, 2) corners of the T in its own frame, counter-clockwise from the foot of the stem."""
    right = np.array([[0.5, -3.5], [0.5, -0.5], [2, -0.5], [2, 0.5]])
    return shape.unit * np.concatenate([right, right[::-1] * [-1, 1]])


def rotation(yaw: float) -> Array:
    """(2, 2) rotation matrix."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s], [s, c]])


def transform(pose: npt.ArrayLike, points: npt.ArrayLike) -> Array:
    """Points (K, 2) in the frame of the T -> (..., K, 2) on the table, for poses (..., 3)."""
    p, q = np.asarray(pose, dtype=np.float64), np.asarray(points, dtype=np.float64)
    c, s = np.cos(p[..., 2:3]), np.sin(p[..., 2:3])
    x = p[..., 0:1] + c * q[:, 0] - s * q[:, 1]
    y = p[..., 1:2] + s * q[:, 0] + c * q[:, 1]
    return np.stack([x, y], axis=-1)


def coverage(pose: npt.ArrayLike, goal: npt.ArrayLike, shape: TShape) -> float:
    """Fraction of the goal T that a T at ``pose`` covers."""
    corners = outline(shape)
    block, wanted = Polygon(transform(pose, corners)), Polygon(transform(goal, corners))
    return float(block.intersection(wanted).area / wanted.area)


def corner_error(pose: npt.ArrayLike, goal: npt.ArrayLike, shape: TShape) -> Array:
    """Root mean square distance (...,) in m between the corners of T's at ``pose`` (..., 3) and ``goal`` (3,)."""
    corners = outline(shape)
    difference = transform(pose, corners) - transform(goal, corners)
    return np.asarray(np.sqrt((difference**2).sum(-1).mean(-1)))


def distance_to_t(points: npt.ArrayLike, shape: TShape) -> Array:
    """Signed distance (K,) in m of points (K, 2), in the frame of the T, to its outline; negative inside."""
    p = np.asarray(points, dtype=np.float64)
    signed = []
    for centre, half in boxes(shape):
        q = np.abs(p - centre) - half
        signed.append(np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0))
    return np.asarray(np.minimum(*signed))


def contact_points(shape: TShape, spacing: float) -> tuple[Array, Array]:
    """Points (K, 2) along the outline, about ``spacing`` apart, and their outward normals (K, 2); frame of the T."""
    corners = outline(shape)
    points, normals = [], []
    for a, b in zip(corners, np.roll(corners, -1, axis=0)):
        length = float(np.linalg.norm(b - a))
        count = max(2, round(length / spacing))
        fractions = (np.arange(count) + 0.5) / count
        points.append(a + fractions[:, None] * (b - a))
        along = (b - a) / length
        normals.append(np.tile([along[1], -along[0]], (count, 1)))
    return np.concatenate(points), np.concatenate(normals)


def yaw_of(quaternion: npt.ArrayLike) -> Array:
    """Heading (...,) of quaternions (..., 4), w first."""
    q = np.asarray(quaternion, dtype=np.float64)
    w, x, y, z = (q[..., i] for i in range(4))
    return np.asarray(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2)))


def quaternion(yaw: float) -> Array:
    """(4,) quaternion, w first, of a heading."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
