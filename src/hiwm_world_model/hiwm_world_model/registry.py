"""World models by name. A model is a subpackage with that name which registers its class on import."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import hiwm_world_model
from hiwm_world_model.interface import ModelError, WorldModel, read_config

M = TypeVar("M", bound=type[WorldModel])

_MODELS: dict[str, type[WorldModel]] = {}


def register_world_model(name: str) -> Callable[[M], M]:
    """Class decorator: make a world model known under ``name``.

    Raises:
        ValueError: if another class has the name.
    """

    def register(cls: M) -> M:
        known = _MODELS.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"world model '{name}' is already registered by {known.__module__}")
        cls.name = name
        _MODELS[name] = cls
        return cls

    return register


def world_model_names() -> list[str]:
    """Registered names and those of subpackages that may register one (their name is the model's name)."""
    packages = (m.name for m in pkgutil.iter_modules(hiwm_world_model.__path__) if m.ispkg)
    return sorted({*_MODELS, *(p for p in packages if p != "nets")})


def world_model_class(name: str) -> type[WorldModel]:
    """The class registered under ``name``; its subpackage is imported on first use.

    Raises:
        ModelError: naming the models there are.
    """
    if name not in _MODELS and any(m.ispkg and m.name == name for m in pkgutil.iter_modules(hiwm_world_model.__path__)):
        importlib.import_module(f"hiwm_world_model.{name}")
    if name not in _MODELS:
        raise ModelError(f"no world model named '{name}'; expected one of {', '.join(world_model_names())}")
    return _MODELS[name]


def load_world_model(directory: str | Path, device: str = "cpu") -> WorldModel:
    """Load any model directory; which class it needs stands in its ``config.json``.

    Raises:
        ModelError: naming the file and what was expected.
    """
    return world_model_class(str(read_config(directory)["model"])).load(directory).to(device)
