"""The recorded columns a world model may see: images, joints, actions and success labels. Nothing else is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from hiwm_data.dataset import CameraFrames, Dataset
from torch import Tensor

Index = npt.NDArray[np.int64]
VALIDATION_SHARE = 0.05  # of the episodes, where the recording itself does not say which are held out


@dataclass(frozen=True)
class EpisodeSpan:
    """One episode as a range of global frame numbers."""

    start: int
    length: int
    validation: bool


class Recording:
    """Several datasets of one rig as one sequence of frames.

    Attributes:
        joints: [N, D] float32, rad or m.
        actions: [N, D] float32, target in effect after the frame.
        success: [N] bool, or None where no dataset has labels.
        episodes: spans of global frame numbers.
        size: (height, width) of the images.
    """

    def __init__(
        self,
        images: Sequence[npt.NDArray[np.uint8] | CameraFrames],
        joints: npt.NDArray[np.float32],
        actions: npt.NDArray[np.float32],
        episodes: Sequence[EpisodeSpan],
        success: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._images = list(images)
        self._offsets = np.cumsum([0] + [len(i) for i in self._images])
        total = int(self._offsets[-1])
        if not total == len(joints) == len(actions):
            raise ValueError(f"{total} images, {len(joints)} joint rows and {len(actions)} actions do not match")
        self.joints = torch.from_numpy(np.ascontiguousarray(joints, np.float32))
        self.actions = torch.from_numpy(np.ascontiguousarray(actions, np.float32))
        self.success = success
        self.episodes = list(episodes)
        self.size = (int(self._images[0].shape[1]), int(self._images[0].shape[2]))

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @classmethod
    def open(cls, roots: Sequence[str | Path], camera: str) -> Recording:
        """Read datasets from disk; episodes keep their recorded split."""
        images, joints, actions, success, episodes = [], [], [], [], []
        offset = 0
        for root in roots:
            dataset = Dataset(root)
            images.append(dataset.images(camera))
            joints.append(dataset.column("observation.state"))
            actions.append(dataset.column("action"))
            has_labels = "next.success" in dataset.features
            labels = dataset.column("next.success") if has_labels else np.zeros(dataset.num_frames)
            success.append(np.asarray(labels, bool).reshape(-1))
            for i, episode in enumerate(dataset.episodes):
                split = str(episode.meta.get("split", ""))
                held_out = split == "val" if split else i >= (1 - VALIDATION_SHARE) * len(dataset.episodes)
                span = dataset.episode_slice(i)
                episodes.append(EpisodeSpan(offset + span.start, span.stop - span.start, held_out))
            offset += dataset.num_frames
        return cls(images, np.concatenate(joints), np.concatenate(actions), episodes, np.concatenate(success))

    def spans(self, validation: bool) -> list[EpisodeSpan]:
        """Training or held-out episodes."""
        return [e for e in self.episodes if e.validation == validation]

    def frame_numbers(self, validation: bool) -> Index:
        """Global numbers of all training or all held-out frames."""
        spans = self.spans(validation)
        if not spans:
            return np.zeros(0, np.int64)
        return np.concatenate([np.arange(e.start, e.start + e.length) for e in spans])

    def images(self, index: npt.ArrayLike) -> Tensor:
        """Frames [B] -> float [B, 3, H, W] in 0..1."""
        return torch.from_numpy(self.raw(index)).permute(0, 3, 1, 2).float() / 255

    def raw(self, index: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Frames [B] -> uint8 [B, H, W, 3]."""
        numbers = np.asarray(index, np.int64).reshape(-1)
        out = np.empty((len(numbers), *self.size, 3), np.uint8)
        which = np.searchsorted(self._offsets, numbers, side="right") - 1
        for k in np.unique(which):
            rows = which == k
            out[rows] = self._images[k][numbers[rows] - self._offsets[k]]
        return out


def starts(spans: Sequence[EpisodeSpan], horizon: int) -> Index:
    """Global frame numbers that have a predecessor and ``horizon`` successors in their episode."""
    ranges = [np.arange(e.start + 1, e.start + e.length - horizon) for e in spans if e.length > horizon + 1]
    return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)
