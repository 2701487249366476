"""The diffusion policy as a :class:`hiwm_policy.policy.Policy`: prepares observations, samples chunks, loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from hiwm_rig.files import write_json
from pydantic import ValidationError
from torch import Tensor

from hiwm_policy.checkpoints import read_weights, write_weights
from hiwm_policy.data import Batch, WindowSource
from hiwm_policy.diffusion.config import DiffusionConfig
from hiwm_policy.diffusion.network import DiffusionNetwork
from hiwm_policy.images import center_windows, crop_images, jitter_colors, random_windows
from hiwm_policy.policy import CONFIG_FILE, WEIGHTS_FILE, PolicyError, PolicyObservation, read_config, register_policy
from hiwm_policy.trainable import Augmentation, TrainablePolicy


@register_policy("diffusion")
class DiffusionPolicy(TrainablePolicy):
    """Weights, configuration and the random state of one diffusion policy."""

    network: DiffusionNetwork

    def __init__(self, config: DiffusionConfig, network: DiffusionNetwork | None = None, device: str = "cpu") -> None:
        self.config = config
        self.spec = config.spec
        self.device = torch.device(device)
        self.network = (network or DiffusionNetwork(config)).to(self.device).eval()
        self._generator = torch.Generator()
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Seed the noise; without a seed it differs from episode to episode."""
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    @torch.inference_mode()
    def predict_action(self, observation: PolicyObservation) -> npt.NDArray[np.float32]:
        """See :meth:`Policy.predict_action`; DDIM with the configured number of steps."""
        self.check(observation)
        images, windows = self._prepare(observation)
        joints = torch.from_numpy(np.asarray(observation.joints, np.float32)).to(self.device)
        features = self.network.features(images, windows, joints)
        chunk = self.network.sample(features, joints[:, -1], [self._generator])
        out: npt.NDArray[np.float32] = chunk.cpu().numpy()
        return out

    def _prepare(self, observation: PolicyObservation) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        images, windows = {}, {}
        for camera in self.spec.cameras:
            frames = torch.as_tensor(np.array(observation.images[camera.name][:, -self.config.image_steps :]))
            size = (self.config.crop_size(camera.height), self.config.crop_size(camera.width))
            offsets = center_windows(len(frames), (camera.height, camera.width), size)
            cropped, window = crop_images(frames, offsets, size)
            images[camera.name] = cropped.to(self.device)
            windows[camera.name] = window.to(self.device)
        return images, windows

    def fit_normalizer(self, sources: Sequence[WindowSource]) -> None:
        """See :meth:`TrainablePolicy.fit_normalizer`."""
        parts = [source.newest_and_chunks() for source in sources]
        self.network.normalizer.fit(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))

    def training_inputs(self, batch: Batch, augmentation: Augmentation, generator: torch.Generator) -> dict[str, Any]:
        """Random crops, colours, joint noise, diffusion noise and steps; see :meth:`DiffusionNetwork.forward`."""
        images, windows = {}, {}
        for camera in self.spec.cameras:
            full = (camera.height, camera.width)
            size = (self.config.crop_size(camera.height), self.config.crop_size(camera.width))
            frames = batch.images[camera.name]
            cropped, windows[camera.name] = crop_images(
                frames, random_windows(len(frames), full, size, generator), size
            )
            images[camera.name] = jitter_colors(cropped, augmentation.color, generator)
        spread = self.network.normalizer.joint_std.cpu() * augmentation.joint_noise
        joints = batch.joints + torch.randn(batch.joints.shape, generator=generator) * spread
        copies = augmentation.copies * len(joints)
        noise = torch.randn((copies, self.spec.horizon, self.config.action_dim), generator=generator)
        steps = torch.randint(0, self.config.train_timesteps, (copies,), generator=generator)
        return {
            "images": images,
            "windows": windows,
            "joints": joints,
            "chunk": batch.chunk,
            "mask": batch.mask,
            "noise": noise,
            "steps": steps,
        }

    def save(self, directory: Path) -> None:
        """Write config.json and policy.safetensors (half precision, but for the normaliser)."""
        directory.mkdir(parents=True, exist_ok=True)
        state = {
            name: value.detach().cpu().contiguous().to(value.dtype if name.startswith("normalizer.") else torch.float16)
            for name, value in self.network.state_dict().items()
        }
        write_weights(directory / WEIGHTS_FILE, state)
        write_json(directory / CONFIG_FILE, {"policy": self.name, "config": self.config.model_dump(mode="json")})

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        """See :meth:`Policy.load`."""
        raw = read_config(directory)
        try:
            config = DiffusionConfig.model_validate(raw.get("config"))
        except ValidationError as error:
            raise PolicyError(f"{directory / CONFIG_FILE}: {error}") from error
        network = DiffusionNetwork(config)
        weights = read_weights(directory / WEIGHTS_FILE)
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in weights.items()}
        if expected != found:
            wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
            raise PolicyError(
                f"{directory / WEIGHTS_FILE} does not fit its {CONFIG_FILE}; first differences: {wrong[:4]}"
            )
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return cls(config, network, device)
