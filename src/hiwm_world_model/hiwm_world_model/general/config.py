"""Sizes of the general model and the choices of its training, as validated values."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

LATENT_STRIDE = 8  # pixels of the working image per latent cell


def whole_cells(value: int) -> int:
    """``value`` if it is a whole number of latent cells.

    Raises:
        ValueError: if it is not.
    """
    if value % LATENT_STRIDE:
        raise ValueError(f"must be a multiple of {LATENT_STRIDE}, got {value}")
    return value


class GeneralConfig(BaseModel):
    """What the networks look like; saved beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(default=128, gt=0, description="working resolution, pixels; a multiple of 8")
    width: int = Field(default=128, gt=0)
    latent: int = Field(default=8, ge=1, description="channels of the recurrent latent")
    channels: int = Field(default=64, ge=8, description="width of the predictor")
    blocks: int = Field(default=2, ge=1)
    embedding: int = Field(default=64, ge=4)
    arm_layer: bool = Field(default=True, description="draw the arm from the joints: fixed cameras in one scene only")
    arm_channels: int = Field(default=32, ge=8, description="width of the arm renderer")

    @field_validator("height", "width")
    @classmethod
    def _cells(cls, value: int) -> int:
        return whole_cells(value)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the latent."""
        return self.height // LATENT_STRIDE, self.width // LATENT_STRIDE


class TrainingConfig(BaseModel):
    """How the networks are trained; every key can be overridden from the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    start_from: str = Field(
        default="",
        description="model or run of this rig whose joints and arm are taken over; a general one is trained on",
    )
    minutes: float = Field(default=18.0, gt=0, description="wall time of all stages together, found by timing steps")
    joint_share: float = Field(default=0.03, ge=0, lt=1, description="share of the time for the joint predictor")
    arm_share: float = Field(default=0.2, ge=0, lt=1, description="share for the arm renderer, where there is one")
    success_share: float = Field(default=0.05, ge=0, lt=1, description="share for the success head, where labels exist")
    crop: int = Field(default=64, ge=0, description="pixels of the square training windows; 0: whole frames")
    batch: int = Field(default=12, ge=1, description="clips per step; one clip has every camera")
    unroll: int = Field(default=8, ge=1, description="longest rollout with gradients, periods")
    burn_in: int = Field(default=8, ge=0, description="longest rollout before it, without gradients")
    windows_per_minute: float = Field(default=60.0, gt=0, description="places in the data that clips are drawn from")
    contact_share: float = Field(default=0.7, ge=0, le=1, description="share of clips that start where something moves")
    motion_weight: float = Field(default=8.0, ge=0, description="extra weight where the picture changes")
    learning_rate: float = Field(default=1.5e-3, gt=0)
    steps: int = Field(default=0, ge=0, description="steps of the dynamics stage; 0: as many as fit into the minutes")

    @field_validator("crop")
    @classmethod
    def _cells(cls, value: int) -> int:
        return whole_cells(value)


#: named starting points: (network, training)
PRESETS: Mapping[str, tuple[GeneralConfig, TrainingConfig]] = {
    "push_t": (GeneralConfig(), TrainingConfig()),
    # Three cameras in changing scenes: no arm layer, and 3 x 88x144 fits 64 KiB a state.
    "droid": (
        GeneralConfig(height=88, width=144, arm_layer=False),
        TrainingConfig(minutes=3.5, batch=6, unroll=5, burn_in=5, contact_share=0.5, motion_weight=4.0),
    ),
}
