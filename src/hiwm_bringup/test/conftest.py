"""Fixtures of the integration tests: a DDS domain of their own, the models that the project ships."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hiwm_bringup.paths import project_root

collect_ignore_glob = [] if find_spec("rclpy") else ["test_integration*.py", "test_bench.py"]


@pytest.fixture
def domain() -> Iterator[int]:
    from hiwm_bringup.testing import unique_domain

    with unique_domain() as number:
        yield number


@pytest.fixture(scope="session")
def models() -> Path:
    folder = project_root() / "models"
    for name in ("push_t_world", "push_t_base"):
        assert (folder / name / "config.json").is_file(), f"{folder / name}: the shipped model is missing"
    return folder
