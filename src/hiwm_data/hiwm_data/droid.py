"""Import of DROID episodes in the ``annotation`` + ``videos`` folder layout (5 Hz views, 15 Hz robot data).

Row ``3 i`` of the raw robot data belongs to frame ``i``. ``action[i]`` is the last joint target commanded before frame
``i + 1``, the meaning it has on every rig. Real data is untidy: an episode that cannot be used is left out with a
reason; a missing instruction stays an empty string.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_rig.contract import Rig, load_rig
from tqdm import tqdm

from hiwm_data.features import ACTION, IMAGE_PREFIX, STATE, SUCCESS, DatasetError, rig_features
from hiwm_data.video import decode_file
from hiwm_data.writer import DatasetWriter

SPLITS = ("train", "val")
RAW_PER_FRAME = 3
_MAX_LENGTH_DIFFERENCE = 2
_STATE_KEYS = ("observation.state.joint_position", "observation.state.gripper_position")
_ACTION_KEYS = ("action.joint_position", "action.gripper_position")


@dataclass
class DroidReport:
    """What an import did.

    Attributes:
        episodes: imported, by split.
        frames: imported, by split.
        skipped: reason by annotation file.
        trimmed: frames left out by annotation file, where views and annotation differ in length.
    """

    episodes: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    trimmed: dict[str, int] = field(default_factory=dict)


def import_droid(
    source: str | Path, out: str | Path, *, rig: Rig | None = None, overwrite: bool = False
) -> DroidReport:
    """Import a folder of DROID episodes as one dataset; episode meta ``split`` says train or val.

    Args:
        source: folder with ``annotation/<split>/<id>.json`` and the view files they name.
        out: dataset to write.
        rig: gives joints, cameras (in the order of the views) and rate; default the shipped ``droid``.
        overwrite: replace ``out``.

    Raises:
        DatasetError: if the folder has no annotations, or none of its episodes can be used (with the reasons).
    """
    rig = rig or load_rig("droid")
    folder = Path(source)
    annotations = find_annotations(folder)
    report = DroidReport()
    with DatasetWriter(
        out, fps=rig.control_rate_hz, features=rig_features(rig), robot_type=rig.name, overwrite=overwrite
    ) as writer:
        for split, path in tqdm(annotations, desc="importing DROID", unit="episode"):
            try:
                episode = read_episode(path, folder, rig)
            except DatasetError as error:
                report.skipped[str(path.relative_to(folder))] = str(error)
                continue
            writer.add_episode(episode.columns(), task=episode.task, meta=episode.meta(split))
            report.episodes[split] = report.episodes.get(split, 0) + 1
            report.frames[split] = report.frames.get(split, 0) + episode.length
            if episode.trimmed:
                report.trimmed[str(path.relative_to(folder))] = episode.trimmed
        if not report.episodes:
            reasons = "\n".join(report.skipped.values())
            raise DatasetError(f"{folder}: no episode could be imported:\n{reasons}")
    return report


def find_annotations(folder: Path) -> list[tuple[str, Path]]:
    """(split, annotation file) of all episodes, by number.

    Raises:
        DatasetError: if there is none.
    """
    annotations = [(s, p) for s in SPLITS for p in sorted((folder / "annotation" / s).glob("*.json"), key=_numeric)]
    if not annotations:
        raise DatasetError(f"{folder}: expected annotation/train/*.json or annotation/val/*.json, found none")
    return annotations


@dataclass(frozen=True)
class DroidEpisode:
    """One episode as it was recorded.

    Attributes:
        state: [m, D] joints and gripper at 15 Hz, rad; the gripper 0..1.
        action: [m', D] targets at 15 Hz.
        views: camera -> [T, H, W, 3] uint8 RGB at 5 Hz.
        length: frames that all of them have.
        trimmed: frames left out, where they differ in length.
        annotation: as in the file.
    """

    state: np.ndarray
    action: np.ndarray
    views: dict[str, np.ndarray]
    length: int
    trimmed: int
    annotation: dict[str, Any]

    @property
    def task(self) -> str:
        """The instruction; may be empty."""
        return _instruction(self.annotation)

    @property
    def succeeded(self) -> bool:
        """Whether the annotation calls it a success."""
        return bool(self.annotation["success"])

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of a dataset, at 5 Hz."""
        at_frame = np.arange(self.length) * RAW_PER_FRAME
        before_next = np.minimum(at_frame + RAW_PER_FRAME - 1, len(self.action) - 1)
        success = np.zeros(self.length, dtype=bool)
        # The label belongs to the episode, so only its last frame is known to show a finished task.
        success[-1] = self.succeeded
        frames = {STATE: self.state[at_frame], ACTION: self.action[before_next], SUCCESS: success}
        return frames | {IMAGE_PREFIX + name: view[: self.length] for name, view in self.views.items()}

    def meta(self, split: str) -> dict[str, int | str]:
        """Columns of the episodes table."""
        return {
            "outcome": "success" if self.succeeded else "failure",
            "source": "demonstration",
            "split": split,
            "source_id": int(self.annotation.get("episode_id", -1)),
            "seed": -1,
        }


def read_episode(path: Path, folder: Path, rig: Rig) -> DroidEpisode:
    """Read the episode of one annotation file.

    Raises:
        DatasetError: naming the file and what is wrong.
    """
    annotation = _read_annotation(path)
    state = _raw(annotation, _STATE_KEYS, path)
    action = _raw(annotation, _ACTION_KEYS, path)
    if state.shape[1] != len(rig.joints):
        raise DatasetError(
            f"{path}: {state.shape[1]} joints and gripper, rig '{rig.name}' has {len(rig.joints)} joints"
        )
    if len(annotation["videos"]) != len(rig.cameras):
        raise DatasetError(
            f"{path}: {len(annotation['videos'])} views, rig '{rig.name}' has {len(rig.cameras)} cameras"
        )
    views = {}
    for camera, entry in zip(rig.cameras, annotation["videos"], strict=True):
        file = folder / entry["video_path"]
        pixels = [image for _, image in decode_file(file, rig.control_rate_hz)]
        sizes = {image.shape[:2] for image in pixels}
        if sizes != {(camera.height, camera.width)}:
            got = ", ".join(f"{w}x{h}" for h, w in sorted(sizes)) or "no frames"
            raise DatasetError(f"{file}: expected {camera.width}x{camera.height}, got {got}")
        views[camera.name] = np.stack(pixels)
    raw_frames = -(-min(len(state), len(action)) // RAW_PER_FRAME)
    lengths = [raw_frames, *(len(v) for v in views.values())]
    length, trimmed = min(lengths), max(lengths) - min(lengths)
    if trimmed > _MAX_LENGTH_DIFFERENCE:
        raise DatasetError(f"{path}: robot data and views have {lengths} frames, they do not belong together")
    return DroidEpisode(state, action, views, length, trimmed, annotation)


def _read_annotation(path: Path) -> dict[str, Any]:
    try:
        annotation = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: cannot read: {error}") from error
    missing = [k for k in (*_STATE_KEYS, *_ACTION_KEYS, "videos", "success") if k not in annotation]
    if missing:
        raise DatasetError(f"{path}: keys {missing} are missing")
    return dict(annotation)


def _raw(annotation: dict[str, Any], keys: tuple[str, str], path: Path) -> np.ndarray:
    """Joints and gripper at the raw rate, float32 [m, joints + 1]."""
    joints, gripper = (np.asarray(annotation[k], dtype=np.float32) for k in keys)
    if joints.ndim != 2 or gripper.shape != joints.shape[:1] or not len(joints):
        raise DatasetError(
            f"{path}: {keys[0]} is {joints.shape}, {keys[1]} is {gripper.shape}; expected [m, n] and [m]"
        )
    values = np.column_stack([joints, gripper])
    if not np.isfinite(values).all():
        raise DatasetError(f"{path}: {keys[0]} or {keys[1]} holds NaN or infinity")
    return values


def _instruction(annotation: dict[str, Any]) -> str:
    texts = [str(t).strip() for t in annotation.get("texts", [])]
    return next((t for t in texts if t), "")


def _numeric(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdigit() else 1 << 62, path.stem)
