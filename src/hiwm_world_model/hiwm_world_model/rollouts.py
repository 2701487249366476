"""Open-loop rollouts of a model beside recorded episodes: what evaluation and the trust head learn from. No ROS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hiwm_data.dataset import CameraFrames, Dataset, DatasetError, Episode

from hiwm_world_model.interface import Images, ModelError, StepResult, WorldModel

IMAGE_COLUMN = "observation.images."
STATE_COLUMN = "observation.state"
ACTION_COLUMN = "action"
BATCH = 16


@dataclass(frozen=True)
class Window:
    """A stretch of an episode that is predicted open loop.

    Attributes:
        episode: index in the dataset.
        row: dataset row of the last real frame the model sees.
        first: dataset row at which the episode starts.
        length: steps that can be compared, at most the horizon.
    """

    episode: int
    row: int
    first: int
    length: int


@dataclass(frozen=True)
class Prediction:
    """One step of a batch of windows.

    Attributes:
        step: steps since the last real frame.
        windows: [W] indices of the windows that still have a real frame to compare with.
        rows: [W] dataset rows of those real frames.
        result: the model's prediction, B windows.
        picks: [W] rows of ``result`` that belong to ``windows``.
    """

    step: int
    windows: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    result: StepResult
    picks: npt.NDArray[np.int64]


def held_out(dataset: Dataset, split: str = "val") -> list[Episode]:
    """Episodes of a split; all where the dataset names no splits.

    Raises:
        ModelError: if the dataset has splits, but not this one.
    """
    named = [e for e in dataset.episodes if e.meta.get("split")]
    if not named:
        return list(dataset.episodes)
    chosen = [e for e in named if e.meta["split"] == split]
    if not chosen:
        names = sorted({str(e.meta["split"]) for e in named})
        raise ModelError(f"{dataset.root}: no episode of split '{split}'; it has {names}")
    return chosen


def windows_of(episodes: Sequence[Episode], horizon: int, stride: int, first: int = 3, least: int = 10) -> list[Window]:
    """Windows every ``stride`` steps from step ``first`` on that can be compared for at least ``least`` steps."""
    found = []
    for episode in episodes:
        for start in range(min(first, max(episode.length - 2, 0)), episode.length - 1, stride):
            length = min(horizon, episode.length - 1 - start)
            if length >= min(least, horizon):
                found.append(Window(episode.index, episode.start + start, episode.start, length))
    return found


def check_dataset(model: WorldModel, dataset: Dataset) -> None:
    """Refuse a dataset of another rig.

    Raises:
        ModelError: naming what the model expects and what the dataset has.
    """
    for camera in model.spec.cameras:
        feature = dataset.features.get(IMAGE_COLUMN + camera.name)
        if feature is None or tuple(feature.shape) != (camera.height, camera.width, 3):
            have = {k.removeprefix(IMAGE_COLUMN): tuple(f.shape) for k, f in dataset.features.items() if f.is_video}
            wanted = (camera.height, camera.width, 3)
            raise ModelError(f"{dataset.root}: the model needs camera '{camera.name}' {wanted}; the data has {have}")
    try:
        dataset.check_joints(model.spec.joint_names)
    except DatasetError as error:
        raise ModelError(str(error)) from error


def real_images(dataset: Dataset, cameras: Sequence[str]) -> dict[str, CameraFrames]:
    """Camera -> [N, H, W, 3] uint8 frames of the dataset."""
    return {c: dataset.images(c) for c in cameras}


def open_loop(
    model: WorldModel,
    dataset: Dataset,
    windows: Sequence[Window],
    horizon: int,
    batch: int = BATCH,
    start: bool = False,
) -> Iterator[Prediction]:
    """Predict all windows from their last real frame with the recorded actions, a batch at a time.

    With ``start`` what the model shows at the last real frame itself comes first, as step 0.
    """
    frames = real_images(dataset, [c.name for c in model.spec.cameras])
    joints = np.asarray(dataset.column(STATE_COLUMN), np.float32)
    actions = np.asarray(dataset.column(ACTION_COLUMN), np.float32)
    context = np.arange(1 - model.spec.context_frames, 1)
    for begin in range(0, len(windows), batch):
        part = windows[begin : begin + batch]
        index = np.arange(begin, begin + len(part))
        origin = np.array([w.row for w in part])
        length = np.array([w.length for w in part])
        rows = np.maximum(origin[:, None] + context, np.array([w.first for w in part])[:, None])
        state = model.encode({k: _take(v, rows) for k, v in frames.items()}, joints[rows])
        if start:
            yield Prediction(0, index, origin, model.observe(state), np.arange(len(part)))
        for step in range(1, min(horizon, int(length.max())) + 1):
            at = origin + np.minimum(step, length)
            result = model.step(state, actions[at - 1])
            state = result.state
            live = np.flatnonzero(length >= step)
            yield Prediction(step, index[live], at[live], result, live)


def _take(frames: Images | CameraFrames, rows: npt.NDArray[np.int64]) -> Images:
    return np.asarray(frames[rows.ravel()]).reshape(*rows.shape, *frames.shape[1:])
