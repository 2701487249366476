"""Makes the small world model of these tests importable, also in the processes they start."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_world_model import TinyWorldModel, tiny_frames

collect_ignore = [] if find_spec("rclpy") else ["test_node.py"]


@pytest.fixture
def tiny() -> TinyWorldModel:
    return TinyWorldModel.make(seed=3)


@pytest.fixture
def start():
    """Images and joints of one real-looking start."""
    return tiny_frames(seed=5)
