"""Poses of recorded frames, as the trained encoder sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hiwm_world_model.layered.data import Index, Recording
from hiwm_world_model.layered.discovery import CHUNK, RESIDUAL_GAIN, encoder_input
from hiwm_world_model.layered.encoder import pose_of
from hiwm_world_model.layered.networks import LayeredNetworks
from hiwm_world_model.layered.plane import image_to_pixels

VISIBLE_ENOUGH = 0.45  # share of the object's usual area below which a pose is not used as a target


@dataclass(frozen=True)
class InferredPoses:
    """Poses of all frames of a recording.

    Attributes:
        pose: [N, 3]; NaN where a frame was not looked at.
        visible: [N] share of the object's usual area that was seen, 0 where not looked at.
    """

    pose: Tensor
    visible: Tensor

    def usable(self) -> Tensor:
        """[N] bool: seen well enough to be a target."""
        return self.visible > VISIBLE_ENOUGH


@torch.no_grad()
def infer_poses(
    networks: LayeredNetworks, recording: Recording, limit: int
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Encode whole episodes, held-out ones first, until about ``limit`` frames are done."""
    frames = _whole_episodes(recording, limit)
    pose = torch.full((len(recording), 3), float("nan"))
    visible = torch.zeros(len(recording))
    background = networks.arm.background
    for first in tqdm(range(0, len(frames), CHUNK), desc="poses", mininterval=2.0):
        chosen = frames[first : first + CHUNK]
        with torch.autocast("cpu", torch.bfloat16):
            below, _, coverage = networks.arm_layer(recording.joints[chosen], background)
            inputs = encoder_input(recording.images(chosen), below.clamp(0, 1), coverage)
            out = networks.encoder(inputs).float()
        rows = torch.from_numpy(chosen)
        pose[rows] = pose_of(out)
        visible[rows] = _visible(inputs, out, networks)
    return {"pose": pose, "visible": visible}, {"frames": str(len(frames))}


def _visible(inputs: Tensor, out: Tensor, networks: LayeredNetworks) -> Tensor:
    """Unexplained pixels near the pose as a share of the object's area, [B]."""
    sizes = networks.encoder.sizes
    height, width = inputs.shape[2:]
    centre = image_to_pixels(out[:, :2], (height, width))
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    near = (x[None, None] - centre[:, 0, None, None]) ** 2 + (y[None, :, None] - centre[:, 1, None, None]) ** 2
    mask = inputs[:, :3].abs().amax(1) > sizes.residual_threshold * RESIDUAL_GAIN
    return (mask & (near < (1.1 * sizes.radius) ** 2)).float().sum((1, 2)) / sizes.area


def _whole_episodes(recording: Recording, limit: int) -> Index:
    chosen: list[Index] = []
    count = 0
    training = recording.spans(validation=False)
    order = np.random.default_rng(0).permutation(len(training))  # a fair share of every dataset
    for episode in [*recording.spans(validation=True), *(training[i] for i in order)]:
        if count and count + episode.length > limit:
            break
        chosen.append(np.arange(episode.start, episode.start + episode.length))
        count += episode.length
    return np.concatenate(chosen)
