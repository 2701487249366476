"""The networks of the general model as one module: what training optimises and what the world model runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiwm_world_model.general.colour import to_planes
from hiwm_world_model.general.config import GeneralConfig
from hiwm_world_model.general.network import Change, Picture, PictureDynamics, Scene, SuccessHead, joint_moves, window
from hiwm_world_model.nets import ArmRenderer, JointPredictor

COVER_MARGIN = 2  # pixels around the drawn arm that are no evidence of what is behind it


class GeneralNets(nn.Module):
    """Joint predictor, one arm renderer per camera (optional), picture dynamics, success head."""

    def __init__(self, config: GeneralConfig, joints: int, cameras: int) -> None:
        super().__init__()
        self.config, self.cameras = config, cameras
        self.joints = JointPredictor(joints)
        count = cameras if config.arm_layer else 0
        size = (config.height, config.width)
        self.arms = nn.ModuleList([ArmRenderer(joints, size, config.arm_channels) for _ in range(count)])
        self.dynamics = PictureDynamics(config, joints, cameras)
        self.success = SuccessHead(config, joints, cameras)

    def camera_index(self, worlds: int, device: torch.device) -> Tensor:
        """Camera of each of the worlds x cameras pictures."""
        return torch.arange(self.cameras, device=device).repeat(worlds)

    def draw_arms(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] -> colour [B x cameras, 3, H, W] and coverage [B x cameras, 1, H, W] of the arm layer."""
        drawn = [arm(joints) for arm in self.arms]
        colour = torch.stack([d[0] for d in drawn], 1).flatten(0, 1)
        return colour, torch.stack([d[1] for d in drawn], 1).flatten(0, 1)

    def uncover(self, rgb: Tensor, coverage: Tensor, corners: Tensor | None = None) -> Picture:
        """The canvas of real frames [B x cameras, 3, H, W]: what the arm hides is filled with the background.

        With ``corners`` frames and coverage are windows of the whole frame.
        """
        backgrounds = torch.cat([arm.get_buffer("background") for arm in self.arms])
        backgrounds = backgrounds.repeat(rgb.shape[0] // self.cameras, 1, 1, 1)
        backgrounds = window(backgrounds, corners, (int(rgb.shape[2]), int(rgb.shape[3])))
        hidden = grow(coverage)
        return Picture(*to_planes(rgb * (1 - hidden) + backgrounds * hidden))

    def moves(self, previous: Tensor, now: Tensor, following: Tensor, action: Tensor) -> Tensor:
        """Condition of each picture [B x cameras, 4 D] from [B, D] joints and targets in rad or m."""
        n = self.joints.normalise
        rows = joint_moves(n(previous), n(now), n(following), n(action))
        return rows.repeat_interleave(self.cameras, 0)

    def change(self, scene: Scene, moves: Tensor, coverage: Tensor | None) -> Change:
        """One period of worlds x cameras pictures; ``coverage`` [B x cameras, 2, H, W] is the arm now and next."""
        worlds = scene.latent.shape[0] // self.cameras
        return self.dynamics(scene, moves, self.camera_index(worlds, moves.device), coverage)

    def success_logit(self, scene: Scene, joints: Tensor) -> Tensor:
        """[B] logit that the task is done."""
        return self.success(self.dynamics.look(scene.canvas, scene.memory), self.joints.normalise(joints))


def grow(coverage: Tensor) -> Tensor:
    """Coverage [N, 1, H, W] with a margin, in 0..1; soft edges count in full."""
    hard = (coverage > 0.02).to(coverage.dtype)
    return F.max_pool2d(hard, 2 * COVER_MARGIN + 1, 1, COVER_MARGIN)
