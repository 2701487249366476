"""Puts the topics of one frame together by their common stamp. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiwm_rig.types import FloatArray, Image

KEPT = 8
"""Frames that may be incomplete at once; older ones are given up."""

PlaceTuple = tuple[int, int, int, float]
"""Branch, snapshot, step, success probability."""


@dataclass
class Frame:
    """What is known of one instant.

    Attributes:
        stamp_ns: common stamp.
        images: camera name -> (H, W, 3) uint8 RGB.
        joints: (D,) rad or m.
        place: where the rig says this is; None on a rig without snapshots.
    """

    stamp_ns: int
    images: dict[str, Image] = field(default_factory=dict)
    joints: FloatArray | None = None
    place: PlaceTuple | None = None


@dataclass(frozen=True)
class CompleteFrame:
    """A frame of which everything asked for is known; see :class:`Frame`."""

    stamp_ns: int
    images: dict[str, Image]
    joints: FloatArray
    place: PlaceTuple | None


class FrameJoiner:
    """Waits until every camera, the joints and (on a world rig) the place of a stamp have arrived."""

    def __init__(self, cameras: Sequence[str]) -> None:
        """Args: cameras: names of all cameras of a frame."""
        self._cameras = frozenset(cameras)
        self._frames: dict[int, Frame] = {}
        self._after_ns = -1

    def add_image(self, stamp_ns: int, camera: str, image: Image) -> None:
        """One camera's picture."""
        self._frame(stamp_ns).images[camera] = image

    def add_joints(self, stamp_ns: int, joints: FloatArray) -> None:
        """The follower's positions."""
        self._frame(stamp_ns).joints = joints

    def add_place(self, stamp_ns: int, place: PlaceTuple) -> None:
        """Where the rig says this is."""
        self._frame(stamp_ns).place = place

    def forget(self, stamp_ns: int) -> None:
        """Give up everything stamped before."""
        self._after_ns = max(self._after_ns, stamp_ns - 1)

    def pop(self, with_place: bool) -> CompleteFrame | None:
        """The newest complete frame, once; older ones are dropped."""
        for stamp in sorted(self._frames, reverse=True):
            frame = self._frames[stamp]
            if frame.joints is None or set(frame.images) != self._cameras or (with_place and frame.place is None):
                continue
            self._frames = {s: f for s, f in self._frames.items() if s > stamp}
            if stamp <= self._after_ns:
                return None
            self._after_ns = stamp
            return CompleteFrame(stamp, frame.images, frame.joints, frame.place)
        return None

    def _frame(self, stamp_ns: int) -> Frame:
        frame = self._frames.setdefault(stamp_ns, Frame(stamp_ns))
        if len(self._frames) > KEPT:
            del self._frames[min(self._frames)]
        return frame
