"""What the training loop needs from a backbone; a new backbone implements this and the loop stays as it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from hiwm_policy.data import Batch, WindowSource
from hiwm_policy.policy import Policy


class Augmentation(BaseModel):
    """How training samples are varied."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    color: float = Field(default=0.08, ge=0, description="gain and offset of brightness and colour, image range -1..1")
    joint_noise: float = Field(
        default=0.01, ge=0, description="noise on observed joints, in standard deviations of the data"
    )
    copies: int = Field(default=4, ge=1, description="noise levels trained per encoded observation")


class TrainablePolicy(Policy):
    """A policy with a network whose forward pass returns the training loss."""

    network: nn.Module

    @abstractmethod
    def fit_normalizer(self, sources: Sequence[WindowSource]) -> None:
        """Take the normalisation from the training windows."""

    @abstractmethod
    def training_inputs(self, batch: Batch, augmentation: Augmentation, generator: torch.Generator) -> dict[str, Any]:
        """Keyword arguments of ``network.forward`` for a batch, with all randomness drawn from ``generator``."""
