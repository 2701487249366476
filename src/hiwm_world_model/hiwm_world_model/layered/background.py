"""What does not move: the median image of many episodes, and the background of one episode from its first frame."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiwm_world_model.layered.data import Recording

ROWS_AT_ONCE = 16  # image rows per median, so that the stack of frames stays small


def median_background(recording: Recording, rng: np.random.Generator, frames: int = 600) -> Tensor:
    """Per-pixel median over random training frames -> [3, H, W] in 0..1."""
    numbers = recording.frame_numbers(validation=False)
    chosen = np.sort(rng.choice(numbers, min(frames, len(numbers)), replace=False))
    stack = recording.raw(chosen)
    parts = [np.median(stack[:, r : r + ROWS_AT_ONCE], axis=0) for r in range(0, stack.shape[1], ROWS_AT_ONCE)]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Maximum over a square neighbourhood, [B, 1, H, W] -> [B, 1, H, W]."""
    return F.max_pool2d(mask, 2 * radius + 1, 1, radius)


def episode_background(frame: Tensor, hidden: Tensor, median: Tensor, threshold: float, near: Tensor) -> Tensor:
    """The first frame wherever it shows the background, else the median.

    Args:
        frame: [B, 3, H, W] first real frame.
        hidden: [B, 1, H, W] coverage of the arm and the object, 0..1.
        median: [1, 3, H, W].
        threshold: residual that is not noise.
        near: [B, 1, H, W] 1 around the object, where a residual is more likely a misplaced object than a change of
            the background: baking a second object into the background is worse than losing the change.

    Returns:
        [B, 3, H, W].
    """
    covered = dilate((hidden > 0.02).float(), 3)
    differs = ((frame - median).abs().amax(1, keepdim=True) > 0.5 * threshold).float()
    covered = torch.maximum(covered, dilate(differs * near, 2))
    return torch.where(covered > 0, median, frame)
