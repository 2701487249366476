"""Push-T: push a T-shaped block onto its goal with a rod."""

from hiwm_sim.tasks.push_t.config import PushTConfig
from hiwm_sim.tasks.push_t.task import PushT

__all__ = ["PushT", "PushTConfig"]
