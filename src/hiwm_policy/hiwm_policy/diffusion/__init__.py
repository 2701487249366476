"""The diffusion backbone (Chi et al., 2023): images and joints condition a denoiser of action chunks."""

from hiwm_policy.diffusion.config import DiffusionConfig
from hiwm_policy.diffusion.policy import DiffusionPolicy

__all__ = ["DiffusionConfig", "DiffusionPolicy"]
