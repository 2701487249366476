"""Small networks that several world models share: no model, no session and no ROS lives here."""

from hiwm_world_model.nets.arm import ArmRenderer
from hiwm_world_model.nets.blocks import ResBlock, conv, count_parameters, initialise
from hiwm_world_model.nets.fit import FitOptions, Objective, fit, make_accelerator
from hiwm_world_model.nets.joints import JointPredictor

__all__ = [
    "ArmRenderer",
    "FitOptions",
    "JointPredictor",
    "Objective",
    "ResBlock",
    "conv",
    "count_parameters",
    "fit",
    "initialise",
    "make_accelerator",
]
