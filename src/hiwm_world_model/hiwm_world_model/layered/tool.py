"""A first guess of the tool point: the end of the arm that is next to the object when the object moves."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiwm_world_model.layered.data import Index, Recording
from hiwm_world_model.layered.discovery import arm_layers
from hiwm_world_model.layered.dynamics import PoseDynamics
from hiwm_world_model.layered.plane import pixels_to_image
from hiwm_world_model.nets import ArmRenderer, JointPredictor

DIRECTIONS = 8
STEPS, BATCH = 800, 256


def extremes(coverage: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the arm in eight image directions.

    Args:
        coverage: [B, 1, H, W].

    Returns:
        points [B, 8, 2] in pixels, and whether each lies inside the image (an arm cut by the border has no end) [B, 8].
    """
    height, width = coverage.shape[2:]
    mask = coverage[:, 0] > 0.5
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    points, inside = [], []
    for k in range(DIRECTIONS):
        angle = 2 * np.pi * k / DIRECTIONS
        along = x[None, None, :] * np.cos(angle) + y[None, :, None] * np.sin(angle)
        reach = torch.where(mask, along, torch.tensor(-1e9))
        top = reach.flatten(1).amax(1)
        end = (reach > top[:, None, None] - 1.0).float()
        count = end.sum((1, 2)).clamp(min=1)
        px, py = (end * x[None, None, :]).sum((1, 2)) / count, (end * y[None, :, None]).sum((1, 2)) / count
        points.append(torch.stack([px, py], -1))
        border = (px < 1.5) | (py < 1.5) | (px > width - 1.5) | (py > height - 1.5)
        inside.append(mask.flatten(1).any(1) & ~border)
    return torch.stack(points, 1), torch.stack(inside, 1)


def fit_tool(
    dynamics: PoseDynamics, arm: ArmRenderer, predictor: JointPredictor, recording: Recording,
    frames: tuple[Index, Index], poses: Tensor, rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """Train the tool network on the end of the arm that best marks contact.

    Args:
        dynamics: its ``tool`` is trained.
        arm: trained arm renderer.
        predictor: for the normalisation of joints.
        recording: joints.
        frames: frames in which the object moves, and frames of any kind.
        poses: [N, 3] poses of all frames.
        rng: random numbers.
    """
    moving, anything = frames
    near, known = _ends(arm, recording, moving)
    where = pixels_to_image(near, recording.size)
    distance = (where - poses[moving][:, None, :2]).norm(dim=-1)
    score = [float(distance[known[:, k], k].median()) if known[:, k].float().mean() > 0.5 else 1e9
             for k in range(DIRECTIONS)]  # fmt: skip
    best = int(np.argmin(score))
    points, usable = _ends(arm, recording, np.concatenate([moving, anything]))
    numbers = np.concatenate([moving, anything])[usable[:, best].numpy()]
    target = pixels_to_image(points[usable[:, best], best], recording.size)
    joints = predictor.normalise(recording.joints[numbers])
    optimiser = torch.optim.Adam(dynamics.tool.parameters(), lr=3e-3)
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.integers(0, len(target), BATCH))
        loss = F.smooth_l1_loss(dynamics.tool(joints[rows]) * 64, target[rows] * 64, beta=0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {"direction": float(best), "tool_loss": float(loss), "contact_distance": score[best]}


def _ends(arm: ArmRenderer, recording: Recording, frames: Index) -> tuple[Tensor, Tensor]:
    points, inside = zip(*(extremes(coverage) for _, _, _, coverage in arm_layers(arm, recording, frames)))
    return torch.cat(points), torch.cat(inside)
