"""What each gradient stage minimises. No loss sees anything but recorded images, joints, actions and success labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hiwm_world_model.layered.discovery import encoder_input
from hiwm_world_model.layered.dynamics import PoseDynamics
from hiwm_world_model.layered.encoder import PoseEncoder
from hiwm_world_model.layered.networks import LayeredNetworks
from hiwm_world_model.layered.plane import wrap
from hiwm_world_model.layered.success import SuccessHead
from hiwm_world_model.nets import ArmRenderer, JointPredictor, Objective
from hiwm_world_model.nets.fit import Batch

# Position errors are weighed in tenths of a plane unit (about a pixel), angles alike.
POSITION_WEIGHT, ANGLE_WEIGHT = 10.0, 9.0


class JointObjective(Objective):
    """Next joints, unrolled; batch: ``joints`` [B, K + 2, D] from a period before the start, ``actions`` [B, K, D]."""

    autocast = False

    def __init__(self, model: JointPredictor) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Mean absolute error in deviations of each joint."""
        joints, actions = batch["joints"], batch["actions"]
        before, now = joints[:, 0], joints[:, 1]
        loss = torch.zeros((), device=joints.device)
        for k in range(actions.shape[1]):
            before, now = now, self.model(now, before, actions[:, k])
            loss = loss + ((now - joints[:, k + 2]) / self.model.std).abs().mean() / actions.shape[1]
        return {"loss": loss}


class ArmObjective(Objective):
    """Whole frames from joints; batch: ``image`` [B, 3, H, W], ``joints`` [B, D].

    L1: the median over everything else in the scene. A squared term speeds up the start.
    """

    def __init__(self, model: ArmRenderer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Ten times the mean absolute error, plus the squared one in the first quarter."""
        colour, coverage = self.model(batch["joints"])
        error = colour - batch["image"]
        l1 = error.abs().mean()
        loss = 10 * l1 + max(0.0, 1 - 4 * progress) * 20 * error.square().mean()
        return {"loss": loss, "l1": l1, "coverage": coverage.mean()}


class EncoderObjective(Objective):
    """Pose of synthetic crops; batch: ``window`` [B, 4, 2h, 2h], ``centre`` [B, 2], ``pose`` [B, 4], ``weight`` [B]."""

    def __init__(self, model: PoseEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Smooth L1 of position and direction."""
        out = self.model.local(batch["window"], batch["centre"])
        weight, target = batch["weight"], batch["pose"]
        scale = 3.0 / self.model.unit
        place = F.smooth_l1_loss(out[:, :2] * scale, target[:, :2] * scale, beta=0.05, reduction="none")
        turn = F.smooth_l1_loss(out[:, 2:], target[:, 2:], beta=0.05, reduction="none")
        return {"loss": (weight * place).mean() + (weight * turn).mean(), "turn": (weight * turn).mean()}


class RenderObjective(Objective):
    """Arm, encoder and object renderer together on the image; batch: ``image`` [B, 3, H, W], ``joints`` [B, D].

    The encoder is held fixed for the first quarter: gradients of a blurred object would only spoil it.
    """

    WARM = 0.25
    EVERY = 2  # a quarter of the object's pixels per frame

    def __init__(self, networks: LayeredNetworks, threshold: float) -> None:
        super().__init__()
        self.networks = networks
        self.threshold = threshold

    def groups(self) -> list[dict[str, Any]]:
        """The renderer learns fast, the plane and the encoder carefully."""
        renderer = self.networks.renderer
        view = list(renderer.view.parameters())
        known = {id(p) for p in view}
        return [
            {"params": [p for p in renderer.parameters() if id(p) not in known], "lr": 4e-3},
            {"params": view, "lr": 5e-4},
            {"params": list(self.networks.encoder.parameters()), "lr": 3e-4},
            {"params": list(self.networks.arm.parameters()), "lr": 1.2e-3},
        ]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Image error, heavier where the frame differs from the background."""
        networks, image, joints = self.networks, batch["image"], batch["joints"]
        background = networks.arm.background
        below, added, coverage = networks.arm_layer(joints, background)
        pose = networks.encoder(encoder_input(image, below.detach().clamp(0, 1), coverage.detach())).float()
        if progress < self.WARM:
            pose = pose.detach()
        phase = tuple(int(k) for k in torch.randint(self.EVERY, (2,)))
        patch = networks.renderer(
            pose, networks.joints.normalise(joints), below, added, coverage,
            detail=min(1.0, 0.5 + progress), every=self.EVERY, phase=phase,
        )  # fmt: skip
        weight = 1 + 3 * ((image - background).abs().amax(1, keepdim=True) > 0.7 * self.threshold).float()
        weight = weight.expand_as(image)
        inside = patch.paste_coverage(image, torch.ones_like(patch.coverage))
        # Pixels of the patch stand for their neighbours; what the arm draws there has no loss of its own.
        whole = F.max_pool2d(inside, 2 * self.EVERY - 1, 1, self.EVERY - 1)
        around = _robust(below - image) * weight * (1 - whole)
        within = _robust(patch.colour - patch.take(image)) * patch.take(weight)
        loss = (around.sum() + self.EVERY**2 * within.sum()) / image.numel() * 8
        l1 = (patch.colour - patch.take(image)).abs().mean()
        return {"loss": loss, "l1": l1, "squash": networks.renderer.view.squash.detach()}


class DynamicsObjective(Objective):
    """Poses unrolled from inferred poses; batch: ``pose`` [M, B, K + 1, 3], ``weight`` [M, B, K + 1], ``joints``
    [M, B, K + 1, D] normalised."""

    autocast = False
    NOISE = (0.02, 0.02, 0.015)  # plane units and rad on the start, about the encoder's own error

    def __init__(self, model: PoseDynamics) -> None:
        super().__init__()
        self.model = model

    def groups(self) -> list[dict[str, Any]]:
        """Tool and plane are nearly right from the start."""
        careful = [*self.model.tool.parameters(), *self.model.view.parameters()]
        return [{"params": list(self.model.layers.parameters()), "lr": 2e-3}, {"params": careful, "lr": 3e-4}]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Mean over the unrolled steps of a clipped error."""
        poses, weight, joints = batch["pose"], batch["weight"], batch["joints"]
        pose = self.model.to_plane(poses[:, :, 0])
        pose = pose + torch.randn_like(pose) * torch.tensor(self.NOISE, device=pose.device)
        steps = poses.shape[2] - 1
        loss = torch.zeros((), device=pose.device)
        for k in range(steps):
            pose = self.model(pose, joints[:, :, k], joints[:, :, k + 1])
            error = pose_error(self.model, pose, poses[:, :, k + 1]).clamp(max=12)
            loss = loss + (weight[:, :, k + 1] * error).mean() / steps
        return {"loss": loss, "unroll": torch.tensor(float(steps))}


def _robust(error: Tensor) -> Tensor:
    return error.abs() + 2 * error.square()


def pose_error(model: PoseDynamics, plane_pose: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 of plane pose [..., 3] against pose [..., 3], summed over the components."""
    place = (model.view.to_image(plane_pose[..., :2]) - target[..., :2]) / model.view.unit * POSITION_WEIGHT
    turn = wrap(plane_pose[..., 2:] - target[..., 2:]) * ANGLE_WEIGHT
    both = torch.cat([place, turn], -1)
    return F.smooth_l1_loss(both, torch.zeros_like(both), beta=0.3, reduction="none").sum(-1)


class SuccessObjective(Objective):
    """Balanced labels; batch: ``pose`` [B, 3], ``joints`` [B, D] normalised, ``label`` [B]."""

    autocast = False

    def __init__(self, model: SuccessHead) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Binary cross entropy of the uncalibrated log-odds."""
        out = self.model.raw(batch["pose"], batch["joints"])
        return {"loss": F.binary_cross_entropy_with_logits(out, batch["label"])}
