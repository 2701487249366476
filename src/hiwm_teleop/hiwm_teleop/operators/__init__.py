"""Per-task skills of the scripted operator. A new task is a new module here, imported below."""

from hiwm_teleop.operators import push_t

__all__ = ["push_t"]
