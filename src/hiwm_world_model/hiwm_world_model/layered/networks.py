"""The parts of a layered model together, and how they make a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiwm_world_model.layered.config import LayeredConfig
from hiwm_world_model.layered.discovery import encoder_input
from hiwm_world_model.layered.dynamics import PoseDynamics
from hiwm_world_model.layered.encoder import PoseEncoder
from hiwm_world_model.layered.plane import PlaneView
from hiwm_world_model.layered.renderer import ObjectRenderer, Patch
from hiwm_world_model.layered.rotation import plane_unit
from hiwm_world_model.layered.success import SuccessHead
from hiwm_world_model.nets import ArmRenderer, JointPredictor
from hiwm_world_model.nets.arm import over


class LayeredNetworks(nn.Module):
    """Joint predictor, arm renderer, pose encoder, object renderer, pose dynamics and success head."""

    def __init__(self, config: LayeredConfig) -> None:
        super().__init__()
        size = (config.height, config.width)
        unit = plane_unit(config.sizes.radius, config.width)
        self.joints = JointPredictor(config.joints)
        self.arm = ArmRenderer(config.joints, size)
        self.encoder = PoseEncoder(config.sizes, size, unit)
        self.renderer = ObjectRenderer(config.joints, config.sizes.patch_half, PlaneView(unit=unit), size)
        self.dynamics = PoseDynamics(config.joints, PlaneView(unit=unit), config.members, config.substeps)
        self.success = SuccessHead(config.joints)

    def arm_layer(self, joints: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, D] rad -> arm over the background, what the arm adds to the arm's own background, coverage."""
        colour, coverage = self.arm(joints)
        colour, coverage = colour.float(), coverage.float()
        added = coverage * (colour - self.arm.background)
        return over(colour, coverage, background), added, coverage

    def encode(self, image: Tensor, joints: Tensor) -> Tensor:
        """Image [B, 3, H, W] in 0..1 and joints [B, D] -> (x, y, cos, sin) [B, 4]."""
        below, _, coverage = self.arm_layer(joints, self.arm.background)
        out: Tensor = self.encoder(encoder_input(image, below.clamp(0, 1), coverage))
        return out.float()

    def draw(
        self, pose: Tensor, joints: Tensor, background: Tensor, detail: float = 1.0
    ) -> tuple[Tensor, Patch, Tensor]:
        """Encoded pose [B, 4] and joints [B, D] over a background -> image [B, 3, H, W], patch, arm coverage."""
        below, added, coverage = self.arm_layer(joints, background)
        patch: Patch = self.renderer(pose, self.joints.normalise(joints), below, added, coverage, detail)
        return patch.paste(below), patch, coverage


def encoded(pose: Tensor) -> Tensor:
    """Pose (x, y, angle) [..., 3] -> (x, y, cos, sin) [..., 4]."""
    return torch.cat([pose[..., :2], pose[..., 2:].cos(), pose[..., 2:].sin()], -1)
