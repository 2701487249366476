"""All weights of the diffusion policy in one module: encoders, denoiser, normaliser, and the training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from hiwm_policy.diffusion.config import DiffusionConfig
from hiwm_policy.diffusion.denoiser import Denoiser
from hiwm_policy.diffusion.encoder import ImageEncoder
from hiwm_policy.normalizer import Normalizer


class DiffusionNetwork(nn.Module):
    """Observation features and the denoiser they condition."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        spec = config.spec
        dim = config.action_dim
        encoders = {c.name: ImageEncoder(config.image_steps, config.channels, config.keypoints) for c in spec.cameras}
        features = sum(encoder.features for encoder in encoders.values())
        self.encoders = nn.ModuleDict(encoders)
        self.fuse = nn.Sequential(
            nn.Linear(features + spec.history * dim, config.condition),
            nn.SiLU(),
            nn.Linear(config.condition, config.condition),
        )
        self.denoiser = Denoiser(spec.horizon, dim, config.condition, config.width, config.blocks)
        self.normalizer = Normalizer(spec.horizon, dim)
        self.noise: Any = DDPMScheduler(
            num_train_timesteps=config.train_timesteps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=config.prediction,
        )

    def features(self, images: Mapping[str, Tensor], windows: Mapping[str, Tensor], joints: Tensor) -> Tensor:
        """Observation features.

        Args:
            images: camera -> (B, 3 * image_steps, h, w) in -1..1, cropped.
            windows: camera -> (B, 4) edges of the crop, see :class:`ImageEncoder`.
            joints: (B, history, D) rad or m.

        Returns:
            (B, condition).
        """
        parts = [encoder(images[name], windows[name]) for name, encoder in self.encoders.items()]
        scores = self.normalizer.joints(joints)
        # Older joints enter as differences: the motion is small next to the range of a joint, and would be lost in it.
        motion = (joints[:, :-1] - joints[:, -1:]) / self.normalizer.joint_std * 10.0
        out: Tensor = self.fuse(torch.cat([*parts, scores[:, -1], motion.flatten(1)], dim=1))
        return out

    def forward(
        self,
        images: Mapping[str, Tensor],
        windows: Mapping[str, Tensor],
        joints: Tensor,
        chunk: Tensor,
        mask: Tensor,
        noise: Tensor,
        steps: Tensor,
    ) -> Tensor:
        """Denoising loss; one encoded observation serves several noise levels, since the images are what costs.

        Args:
            images: see :meth:`features`.
            windows: see :meth:`features`.
            joints: see :meth:`features`.
            chunk: (B, H, D) absolute targets, rad or m.
            mask: (B, H) weight of each step.
            noise: (K * B, H, D) standard normal.
            steps: (K * B,) diffusion steps.

        Returns:
            Scalar loss.
        """
        copies = noise.shape[0] // chunk.shape[0]
        clean = self.normalizer.encode(chunk, joints[:, -1]).repeat(copies, 1, 1)
        features = self.features(images, windows, joints).repeat(copies, 1)
        noisy = self.noise.add_noise(clean, noise, steps)
        output = self.denoiser(noisy, steps, features).float()
        error = (output - self._target(clean, noise, steps)).square().mean(-1)
        weight = mask.repeat(copies, 1)
        return (error * weight).sum() / weight.sum().clamp(min=1.0)

    def _target(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        if self.config.prediction == "sample":
            return clean
        if self.config.prediction == "epsilon":
            return noise
        velocity: Tensor = self.noise.get_velocity(clean, noise, steps)
        return velocity

    @torch.no_grad()
    def sample(self, features: Tensor, newest: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw one chunk per row with DDIM.

        Args:
            features: (B, condition).
            newest: (B, D) newest joints.
            generators: one per row (its noise does not depend on what else is in the batch), or one for all.

        Returns:
            (B, H, D) absolute targets.
        """
        shape = (self.config.spec.horizon, self.config.action_dim)
        per_row = generators if len(generators) == len(newest) else [generators[0]] * len(newest)
        x = torch.stack([torch.randn(shape, generator=g) for g in per_row]).to(features.device)
        scheduler: Any = DDIMScheduler(
            num_train_timesteps=self.config.train_timesteps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=self.config.prediction,
            clip_sample=True,
            clip_sample_range=float(self.normalizer.action_limit),
        )
        scheduler.set_timesteps(self.config.inference_steps)
        for step in scheduler.timesteps:
            steps = torch.full((len(x),), int(step), device=x.device)
            x = scheduler.step(self.denoiser(x, steps, features).float(), int(step), x).prev_sample
        return self.normalizer.decode(x, newest)
