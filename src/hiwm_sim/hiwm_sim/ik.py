"""Closed-form kinematics of the reference arm: joints <-> tool tip, with the tool pointing straight down.

The arm is the WidowX-250-like one of :mod:`hiwm_sim.scene`. With the forearm roll at zero, a down-facing tool leaves
a planar two-link problem, so the inverse is exact, deterministic and smooth (no iteration, no branch flips).
Lengths in metres, angles in radians, positions in the base frame (x forward, y left, z up).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class UnreachableError(ValueError):
    """A tool position the arm cannot reach with the tool pointing down."""


@dataclass(frozen=True)
class ArmGeometry:
    """Lengths of the arm; the MJCF of the scene is built from the same values."""

    shoulder_height: float = 0.1105
    upper_offset: float = 0.05
    upper_length: float = 0.25
    forearm_length: float = 0.25
    tool_length: float = 0.17
    gripper_opening: float = 0.009


class ArmKinematics:
    """Forward and inverse kinematics for the joints of the rig file.

    In order: waist, shoulder, elbow, forearm_roll, wrist_angle, wrist_rotate, gripper.
    """

    def __init__(self, geometry: ArmGeometry | None = None) -> None:
        self.geometry = geometry or ArmGeometry()
        g = self.geometry
        self._link1 = float(np.hypot(g.upper_offset, g.upper_length))
        self._link1_elevation = float(np.arctan2(g.upper_length, g.upper_offset))

    def inverse(self, tip: npt.ArrayLike, *, yaw: float | None = None, gripper: float | None = None) -> Array:
        """Joints that put the tool tip at ``tip`` with the tool pointing down.

        Args:
            tip: (3,) position of the tool tip, m.
            yaw: heading of the hand about the vertical, rad; None leaves the wrist rotation at zero, so that the hand
                turns with the waist.
            gripper: opening, m; None means closed on the rod.

        Returns:
            (7,) joint positions.

        Raises:
            UnreachableError: if the tip is out of reach.
        """
        g = self.geometry
        x, y, z = (float(v) for v in np.asarray(tip, dtype=np.float64))
        waist = float(np.arctan2(y, x))
        r, h = float(np.hypot(x, y)), z + g.tool_length - g.shoulder_height
        distance = float(np.hypot(r, h))
        if not abs(self._link1 - g.forearm_length) < distance < self._link1 + g.forearm_length:
            raise UnreachableError(
                f"tool tip ({x:.3f}, {y:.3f}, {z:.3f}) m is out of reach (wrist distance {distance:.3f} m)"
            )
        cosine = (self._link1**2 + distance**2 - g.forearm_length**2) / (2 * self._link1 * distance)
        elevation = float(np.arctan2(h, r) + np.arccos(np.clip(cosine, -1, 1)))
        forearm = float(np.arctan2(h - self._link1 * np.sin(elevation), r - self._link1 * np.cos(elevation)))
        shoulder = self._link1_elevation - elevation
        elbow = -forearm - shoulder
        wrist = np.pi / 2 - shoulder - elbow
        rotate = 0.0 if yaw is None else float((waist - yaw + np.pi) % (2 * np.pi) - np.pi)
        opening = g.gripper_opening if gripper is None else gripper
        return np.array([waist, shoulder, elbow, 0.0, wrist, rotate, opening])

    def reachable(self, tip: npt.ArrayLike, margin: float = 0.01) -> bool:
        """Whether ``tip`` (3,) is within reach by at least ``margin`` metres."""
        g = self.geometry
        x, y, z = (float(v) for v in np.asarray(tip, dtype=np.float64))
        distance = float(np.hypot(np.hypot(x, y), z + g.tool_length - g.shoulder_height))
        return abs(self._link1 - g.forearm_length) + margin < distance < self._link1 + g.forearm_length - margin

    def nearest_reachable(self, tip: npt.ArrayLike, margin: float = 0.005) -> Array:
        """``tip`` (3,), moved horizontally towards the base if it is out of reach; m.

        Raises:
            UnreachableError: if it is too high or too low for any distance from the base.
        """
        g, point = self.geometry, np.array(tip, dtype=np.float64)
        reach = self._link1 + g.forearm_length - margin
        height = point[2] + g.tool_length - g.shoulder_height
        if abs(height) >= reach:
            raise UnreachableError(f"no tool tip at height {point[2]:.3f} m is within reach")
        radius, limit = float(np.hypot(point[0], point[1])), float(np.sqrt(reach**2 - height**2))
        if radius > limit:
            point[:2] *= limit / radius
        return point

    def tip(self, joints: npt.ArrayLike) -> Array:
        """Tool tip (..., 3) in metres for joints (..., >=6), any forearm roll and wrist rotation included."""
        q = np.asarray(joints, dtype=np.float64)
        g = self.geometry
        waist, shoulder, elbow, roll, wrist = (q[..., i] for i in range(5))
        forearm = shoulder + elbow
        # Frame of the forearm in the plane of the arm: `along` and `normal`; the roll turns the normal out of it.
        along_r, along_z = np.cos(forearm), -np.sin(forearm)
        normal_r, normal_z = np.sin(forearm), np.cos(forearm)
        r = g.upper_offset * np.cos(shoulder) + g.upper_length * np.sin(shoulder) + g.forearm_length * along_r
        z = (
            g.shoulder_height
            - g.upper_offset * np.sin(shoulder)
            + g.upper_length * np.cos(shoulder)
            + g.forearm_length * along_z
        )
        forward, down = g.tool_length * np.cos(wrist), g.tool_length * np.sin(wrist)
        r = r + forward * along_r - down * np.cos(roll) * normal_r
        z = z + forward * along_z - down * np.cos(roll) * normal_z
        side = down * np.sin(roll)
        x = r * np.cos(waist) - side * np.sin(waist)
        y = r * np.sin(waist) + side * np.cos(waist)
        return np.stack([x, y, z], axis=-1)
