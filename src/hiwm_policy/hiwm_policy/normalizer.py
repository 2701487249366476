"""Normalisation of joints and action chunks; a module, saved with the weights, so that it cannot drift."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

JOINT_STD_FLOOR = 0.02
ACTION_STD_FLOOR = 0.004


class Normalizer(nn.Module):
    """Joints become standard scores; action chunks become standard scores of the motion away from the newest joints.

    The motion's scale is kept per step of the chunk and per joint: the first steps of a chunk move little, and would
    otherwise drown in the noise level that suits the last ones. A joint that never moves (a closed gripper) gets the
    floor, in rad or m, instead of a division by nothing.
    """

    joint_mean: Tensor
    joint_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    action_limit: Tensor

    def __init__(self, horizon: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("joint_mean", torch.zeros(dim))
        self.register_buffer("joint_std", torch.ones(dim))
        self.register_buffer("action_mean", torch.zeros(horizon, dim))
        self.register_buffer("action_std", torch.ones(horizon, dim))
        self.register_buffer("action_limit", torch.tensor(4.0))

    def fit(self, joints: npt.NDArray[np.float32], chunks: npt.NDArray[np.float32]) -> None:
        """Take the statistics of the training data.

        Args:
            joints: (N, D) newest joints.
            chunks: (N, H, D) absolute targets that follow.
        """
        motion = chunks.astype(np.float64) - joints[:, None].astype(np.float64)
        mean, std = motion.mean(0), np.maximum(motion.std(0), ACTION_STD_FLOOR)
        scores = np.abs((motion - mean) / std)
        self.joint_mean.copy_(torch.from_numpy(joints.mean(0, dtype=np.float64)))
        self.joint_std.copy_(torch.from_numpy(np.maximum(joints.std(0, dtype=np.float64), JOINT_STD_FLOOR)))
        self.action_mean.copy_(torch.from_numpy(mean))
        self.action_std.copy_(torch.from_numpy(std))
        self.action_limit.fill_(float(np.clip(np.quantile(scores, 0.9995), 2.0, 6.0)))

    def joints(self, joints: Tensor) -> Tensor:
        """(..., D) joints -> standard scores."""
        return (joints - self.joint_mean) / self.joint_std

    def encode(self, chunk: Tensor, newest: Tensor) -> Tensor:
        """(B, H, D) absolute targets and (B, D) newest joints -> (B, H, D) scores."""
        return (chunk - newest[:, None] - self.action_mean) / self.action_std

    def decode(self, scores: Tensor, newest: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return scores * self.action_std + self.action_mean + newest[:, None]
