"""Columns of a dataset: their dtype, shape and names; and the standard set of a rig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hiwm_rig.contract import Rig

IMAGE_PREFIX = "observation.images."
STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
ACTION = "action"
SUCCESS = "next.success"
VIDEO = "video"


class DatasetError(ValueError):
    """A dataset that cannot be read or written as asked; the text names the file or column and what was expected."""


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        dtype: numpy name (``float32``, ``int64``, ``bool``), or ``video`` for camera frames.
        shape: of one frame; ``(1,)`` is a scalar column, ``(height, width, 3)`` a video.
        names: of the elements, where they have any.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    @property
    def is_video(self) -> bool:
        """Whether frames of this column are stored as video."""
        return self.dtype == VIDEO

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """dtype of the column in memory.

        Raises:
            DatasetError: for kinds of columns that are not read here, as ``image`` or ``string``.
        """
        try:
            return np.dtype(np.uint8) if self.is_video else np.dtype(self.dtype)
        except TypeError as error:
            raise DatasetError(f"columns of dtype '{self.dtype}' are not supported") from error

    def check(self, key: str, values: np.ndarray, length: int | None) -> np.ndarray:
        """Return ``values`` as [T, *shape] (scalars [T]) of the right dtype.

        Raises:
            DatasetError: naming the column, if the shape or the kind of number does not fit.
        """
        array = np.asarray(values)
        expected = () if self.shape == (1,) else self.shape
        if not expected and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 0 or array.shape[1:] != expected or (length is not None and array.shape[0] != length):
            want = f"[{'T' if length is None else length}{''.join(f', {n}' for n in expected)}]"
            raise DatasetError(f"column '{key}': expected shape {want}, got {list(array.shape)}")
        if self.is_video and array.dtype != np.uint8:
            raise DatasetError(f"column '{key}': expected uint8 RGB frames, got {array.dtype}")
        if not np.can_cast(array.dtype, self.numpy_dtype, casting="same_kind"):
            raise DatasetError(f"column '{key}': expected {self.dtype}, got {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DatasetError(f"column '{key}': holds NaN or infinity")
        return np.ascontiguousarray(array, dtype=self.numpy_dtype)

    def to_json(self, fps: float, codec: str) -> dict[str, Any]:
        """The entry of ``info.json``."""
        names = None if self.names is None else list(self.names)
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": names}
        if self.is_video:
            entry["names"] = ["height", "width", "channels"]
            entry["info"] = {
                "video.height": self.shape[0],
                "video.width": self.shape[1],
                "video.codec": codec,
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": self.shape[2],
                "has_audio": False,
            }
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Feature:
        """Read an entry of ``info.json``; channel-first video shapes of foreign datasets become (H, W, C)."""
        shape = tuple(int(n) for n in entry["shape"])
        names = entry.get("names")
        if entry["dtype"] == VIDEO:
            if names and str(names[0]).startswith("c"):
                shape = shape[1:] + shape[:1]
            return cls(VIDEO, shape)
        if isinstance(names, Mapping):
            names = [n for group in names.values() for n in group] if len(names) == 1 else None
        return cls(str(entry["dtype"]), shape, None if names is None else tuple(str(n) for n in names))


INDEX_FEATURES: Mapping[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""Columns the writer fills in itself."""


def rig_features(rig: Rig, *, environment_state: Sequence[str] = (), provenance: bool = False) -> dict[str, Feature]:
    """The standard columns of a dataset recorded on ``rig``.

    Args:
        rig: gives cameras, joints and their names.
        environment_state: names of simulator labels, for evaluation only; empty for none.
        provenance: also who drove, what the policy proposed, branch, trust and the true stamp, per frame.
    """
    joints = rig.joint_names
    size = (len(joints),)
    features = {f"{IMAGE_PREFIX}{c.name}": Feature(VIDEO, (c.height, c.width, 3)) for c in rig.cameras}
    features[STATE] = Feature("float32", size, joints)
    if environment_state:
        features[ENVIRONMENT_STATE] = Feature("float32", (len(environment_state),), tuple(environment_state))
    features[ACTION] = Feature("float32", size, joints)
    features[SUCCESS] = Feature("bool", (1,))
    if provenance:
        features |= provenance_features(joints)
    return features


def provenance_features(joints: Sequence[str]) -> dict[str, Feature]:
    """Columns that say where a frame comes from; ``joints`` names the elements of the policy's proposal."""
    return {
        "driver": Feature("int64", (1,)),
        "intervention": Feature("bool", (1,)),
        "policy_action": Feature("float32", (len(joints),), tuple(joints)),
        "policy_proposed": Feature("bool", (1,)),
        "branch_id": Feature("int64", (1,)),
        "parent_id": Feature("int64", (1,)),
        "trust": Feature("float32", (1,)),
        "stamp_ns": Feature("int64", (1,)),
    }
