"""The layered world model: arm from joints, one rigid object with a pose, a still background, one fixed camera."""

from hiwm_world_model.layered.config import LayeredConfig, Sizes, TrainSettings
from hiwm_world_model.layered.model import LayeredWorldModel

__all__ = ["LayeredConfig", "LayeredWorldModel", "Sizes", "TrainSettings"]
