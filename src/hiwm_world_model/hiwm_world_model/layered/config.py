"""Typed settings of the layered model: what is measured in the data, and what is chosen."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sizes(_Frozen):
    """Measured in the training data by the discovery stage; pixels unless said otherwise."""

    residual_threshold: float = Field(gt=0, description="residual (0..1) above which a pixel is not background or arm")
    radius: float = Field(gt=0, description="from the object's centre to its farthest pixel")
    area: float = Field(gt=0, description="visible pixels of the whole object, median")

    @property
    def crop_half(self) -> int:
        """Half the side of the encoder's crop; a multiple of 4 because the encoder divides the side by 8."""
        return 4 * math.ceil(1.4 * self.radius / 4)

    @property
    def patch_half(self) -> int:
        """Half the side of the rendered patch: the object plus its shadow."""
        return math.ceil(1.25 * self.radius)


class LayeredConfig(_Frozen):
    """Everything but the weights that rebuilds a model."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    joints: int = Field(gt=0)
    camera: str
    sizes: Sizes
    members: int = Field(default=3, ge=1, description="dynamics networks; their spread says how sure they are")
    substeps: int = Field(default=2, ge=1, description="dynamics substeps within a control period")


class TrainSettings(_Frozen):
    """Length of the stages at budget 1 and batch sizes."""

    joint_steps: int = 4000
    arm_steps: int = 800
    encoder_steps: int = 1000
    render_steps: int = 1600
    dynamics_steps: int = 2500
    success_steps: int = 1500
    image_batch: int = 16
    encoder_batch: int = 48
    dynamics_batch: int = 128  # per ensemble member
    discovery_frames: int = 6000
    pose_frames: int = 60000
    unroll: int = 24

    def scaled(self, budget: float) -> TrainSettings:
        """The same stages, ``budget`` times as long (the data a stage looks at shrinks with it, but never grows)."""
        if budget <= 0:
            raise ValueError(f"budget must be positive, got {budget}")
        values = {k: max(4, round(v * budget)) for k, v in self.model_dump().items() if k.endswith("_steps")}
        for key in ("discovery_frames", "pose_frames"):
            values[key] = min(getattr(self, key), max(400, round(getattr(self, key) * budget)))
        return self.model_copy(update=values)
