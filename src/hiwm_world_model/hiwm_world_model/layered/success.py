"""Learned success: whether a recorded episode with this pose and these joints was called done."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiwm_world_model.nets.blocks import mlp


class SuccessHead(nn.Module):
    """Pose (x, y, angle) [B, 3] and normalised joints [B, D] -> log-odds [B].

    Trained on as many successes as failures; ``calibration`` (scale, shift) restores the true odds on held-out data.
    """

    calibration: Tensor

    def __init__(self, joints: int, width: int = 64) -> None:
        super().__init__()
        self.net = mlp(4 + 8 + joints, width, 1)
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def raw(self, pose: Tensor, joints: Tensor) -> Tensor:
        """Log-odds before calibration, [B]."""
        place, angle = pose[..., :2], pose[..., 2:]
        # A success is a small region of poses: finer features of the place than the plain coordinates.
        waves = [f(k * place) for f in (torch.sin, torch.cos) for k in (4.0, 10.0)]
        features = [place, angle.cos(), angle.sin(), *waves]
        return self.net(torch.cat([*features, joints], -1))[..., 0]

    def forward(self, pose: Tensor, joints: Tensor) -> Tensor:
        """Calibrated probability [B]."""
        return torch.sigmoid(self.raw(pose, joints) * self.calibration[0] + self.calibration[1])

    def calibrate(self, logits: Tensor, labels: Tensor) -> None:
        """Platt scaling on held-out frames: log-odds [N] from :meth:`raw` and labels [N] in 0/1."""
        scale, shift = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
        optimiser = torch.optim.LBFGS([scale, shift], max_iter=60, line_search_fn="strong_wolfe")
        # Platt's smoothed targets: finite odds even where held-out data holds one class only.
        positive = float(labels.sum())
        negative = len(labels) - positive
        targets = torch.where(labels > 0.5, (positive + 1) / (positive + 2), 1 / (negative + 2))

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(logits * scale + shift, targets)
            loss = loss + 1e-4 * (scale - 1) ** 2
            loss.backward()
            return loss

        optimiser.step(closure)
        with torch.no_grad():
            self.calibration.copy_(torch.stack([scale.detach().clamp(min=1e-2), shift.detach()]))
