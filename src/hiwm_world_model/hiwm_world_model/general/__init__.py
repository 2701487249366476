"""The general world model: any cameras, any joints, no assumption about objects. Registers itself as ``general``."""

from hiwm_world_model.general.config import GeneralConfig
from hiwm_world_model.general.model import GeneralWorldModel

__all__ = ["GeneralConfig", "GeneralWorldModel"]
