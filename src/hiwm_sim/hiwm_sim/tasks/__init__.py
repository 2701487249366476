"""Tasks of the simulated rig. A new task is a new module or package in this folder that uses ``@register_task``."""

from __future__ import annotations

import importlib
import pkgutil

from hiwm_sim.tasks.base import TASKS, Action, Script, Task, register_task

__all__ = ["TASKS", "Action", "Script", "Task", "make_task", "register_task", "task_names"]


def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def task_names() -> list[str]:
    """Names of all tasks there are."""
    _import_all()
    return sorted(TASKS)


def make_task(name: str) -> Task:
    """A task by name, with its default configuration.

    Raises:
        KeyError: naming the tasks there are.
    """
    if name not in task_names():
        raise KeyError(f"no task '{name}'; there are {', '.join(task_names())}")
    return TASKS[name]()
