"""The same scene with the arm elsewhere: training samples from which a policy learns to come back.

A policy that has drifted to where no demonstration went has no reason to return: chunks are relative to the joints, and
nothing out there says where the path is. So a world model draws recorded frames again with displaced joints, and the
absolute targets stay what they were. Noise injected into demonstrations does the same on a robot (DART, Laskey et al.
2017, arXiv 1703.09327); inside a model it costs no robot and no operator time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from hiwm_data.dataset import Dataset
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from hiwm_policy.data import Batch, DataError, Frames, WindowSource
from hiwm_policy.normalizer import JOINT_STD_FLOOR
from hiwm_policy.policy import PolicySpec

Pictures = Mapping[str, npt.NDArray[np.uint8]]
Joints = npt.NDArray[np.float32]

_BATCH = 16
_CANDIDATES = 64


class Redrawer(Protocol):
    """Draws a scene with the arm elsewhere; a world model behind it."""

    def redraw(self, images: Pictures, joints: Joints, displaced: Joints) -> Pictures:
        """Camera -> (B, H, W, 3) uint8 of the same scenes with the joints (B, D) at ``displaced`` (B, D)."""
        ...


class Displacement(BaseModel):
    """How far, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    share: float = Field(default=0.4, ge=0, le=1, description="of the samples of each batch that are displaced")
    copies: int = Field(default=2, ge=1, description="displaced pictures drawn of each frame, once, before training")
    reach: float = Field(default=3.0, gt=0, description="largest displacement, in standard deviations of the joints")
    beyond: float = Field(default=0.5, ge=0, description="noise on top of it, deviations of each joint")
    touching: float = Field(default=0.1, ge=0, description="the same where the scene moves, deviations of each joint")
    moved: float = Field(default=1.0, gt=0, description="mean change of a picture that counts as moving, grey levels")
    window: int = Field(default=4, ge=1, description="frames before and after one in which the scene may move")


class DisplacedSource(WindowSource):
    """A :class:`WindowSource` some of whose samples show the arm elsewhere.

    Where the scene rests, the arm is put near recorded joints of another frame, which keeps it about where arms can be.
    Where the scene moves, the tool is at the object: only a little noise leaves the recorded targets right.
    """

    def __init__(
        self,
        dataset: Dataset,
        frames: Frames,
        spec: PolicySpec,
        image_steps: int,
        redrawer: Redrawer,
        settings: Displacement,
        seed: int = 0,
    ) -> None:
        """Draw the pictures; takes about 20 ms a frame and copy on one core.

        Args:
            dataset: what was recorded; every frame of it lends its joints.
            frames: which frames may start a chunk.
            spec: what the policy reads and writes.
            image_steps: newest frames that are loaded; only the newest can be redrawn.
            redrawer: draws.
            settings: how far and how often.
            seed: of the displacements.

        Raises:
            DataError: if there are no frames, the dataset lacks what the policy reads, or it reads several frames.
        """
        super().__init__(dataset, frames, spec, image_steps)
        if image_steps != 1:
            raise DataError(f"displaced samples need a policy that sees one frame, this one sees {image_steps}")
        self._settings = settings
        self._redrawer = redrawer
        rng = np.random.default_rng([seed, len(frames)])
        spread = self._joints.std(0)
        still = ~self._moving()
        self._offsets = np.stack([self._displace(rng, spread, still) for _ in range(settings.copies)])
        self._redrawn = [self._draw(offset) for offset in self._offsets]

    def batch(self, picks: npt.NDArray[np.int64]) -> Batch:
        """The windows number ``picks``; which of them are displaced depends on the picks alone."""
        batch = super().batch(picks)
        rng = np.random.default_rng(picks)
        rows = np.flatnonzero(rng.random(len(picks)) < self._settings.share)
        copy = rng.integers(0, self._settings.copies, len(rows))
        images = {name: value.clone() for name, value in batch.images.items()}
        for name, value in images.items():
            new = [self._redrawn[c][name][p] for c, p in zip(copy, picks[rows], strict=True)]
            if new:
                value[rows, -1] = torch.from_numpy(np.stack(new))
        offset = torch.from_numpy(self._offsets[copy, picks[rows]])[:, None]
        # The frames before were displaced a little more or less: the arm arrives there at some speed.
        arriving = torch.from_numpy(rng.uniform(0.8, 1.15, (len(rows), 1, 1)).astype(np.float32))
        joints = batch.joints.clone()
        joints[rows, :-1] += offset * arriving
        joints[rows, -1:] += offset
        return replace(batch, images=images, joints=joints)

    def _moving(self) -> npt.NDArray[np.bool_]:
        """(W,) whether the scene moves around each frame: both ends of the window drawn with the same joints."""
        index = self.frames.index
        before = np.maximum(index - self._settings.window, self.frames.first)
        after = np.minimum(index + self._settings.window, self.frames.last)
        pose = np.broadcast_to(self._joints.mean(0), (_BATCH, self._joints.shape[1]))
        change = np.zeros(len(index), np.float32)
        for rows in self._parts("looking where the scene moves"):
            ends = [self._at(r[rows], pose[: len(r[rows])]) for r in (before, after)]
            difference = [np.abs(ends[0][n].astype(np.int16) - ends[1][n]).mean((1, 2, 3)) for n in ends[0]]
            change[rows] = np.max(difference, axis=0)
        return change > self._settings.moved

    def _displace(
        self, rng: np.random.Generator, spread: npt.NDArray[np.float32], still: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """(W, D) displacements, rad or m."""
        joints = self._joints[self.frames.index]
        offsets = np.zeros_like(joints)
        for i, now in enumerate(joints):
            if still[i]:
                others = self._joints[rng.integers(0, len(self._joints), _CANDIDATES)]
                distance = np.linalg.norm((others - now) / np.maximum(spread, JOINT_STD_FLOOR), axis=1)
                wanted = rng.uniform(0, self._settings.reach)
                offsets[i] = others[np.abs(distance - wanted).argmin()] - now
                noise = self._settings.beyond  # a lost arm is where no recording went
            else:
                noise = rng.uniform(0, self._settings.touching)
            offsets[i] += rng.normal(size=now.shape) * spread * noise
        return offsets

    def _draw(self, offsets: npt.NDArray[np.float32]) -> Pictures:
        shown: dict[str, list[npt.NDArray[np.uint8]]] = {name: [] for name in self._images}
        for rows in self._parts("drawing the arm elsewhere"):
            index = self.frames.index[rows]
            drawn = self._at(index, self._joints[index] + offsets[rows])
            for name, value in drawn.items():
                shown[name].append(value)
        return {name: np.concatenate(values) for name, values in shown.items()}

    def _at(self, index: npt.NDArray[np.int64], displaced: npt.NDArray[np.float32]) -> Pictures:
        images = {name: np.asarray(value[index]) for name, value in self._images.items()}
        return self._redrawer.redraw(images, self._joints[index], np.ascontiguousarray(displaced, np.float32))

    def _parts(self, what: str) -> tqdm[slice]:
        starts = range(0, len(self), _BATCH)
        return tqdm([slice(s, min(s + _BATCH, len(self))) for s in starts], desc=what, unit="batch", mininterval=1.0)
