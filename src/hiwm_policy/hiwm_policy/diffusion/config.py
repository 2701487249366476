"""Configuration of the diffusion policy, validated on construction and saved next to the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hiwm_policy.policy import PolicySpec


class DiffusionConfig(BaseModel):
    """Sizes of the networks and of the diffusion process."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    spec: PolicySpec
    image_steps: int = Field(default=1, ge=1, description="newest frames the encoder sees, stacked as channels")
    crop: float = Field(default=0.82, gt=0.5, le=1.0, description="side of the random crop as a fraction of the image")
    channels: tuple[int, int] = (32, 64)
    keypoints: int = Field(
        default=32, ge=1, description="attention maps per camera; each gives a position and features"
    )
    condition: int = Field(default=256, ge=8)
    width: int = Field(default=384, ge=8)
    blocks: int = Field(default=3, ge=1)
    train_timesteps: int = Field(default=100, ge=2)
    inference_steps: int = Field(default=8, ge=1)
    prediction: Literal["sample", "epsilon", "v_prediction"] = "sample"

    @model_validator(mode="after")
    def _consistent(self) -> DiffusionConfig:
        if self.image_steps > self.spec.history:
            raise ValueError(f"image_steps ({self.image_steps}) must not exceed history ({self.spec.history})")
        if self.inference_steps > self.train_timesteps:
            raise ValueError(
                f"inference_steps ({self.inference_steps}) must not exceed train_timesteps ({self.train_timesteps})"
            )
        return self

    @property
    def action_dim(self) -> int:
        """Joints in an action."""
        return len(self.spec.joint_names)

    def crop_size(self, side: int) -> int:
        """Pixels of a cropped side, a multiple of the encoder's stride (8)."""
        return max(8, int(side * self.crop) // 8 * 8)
