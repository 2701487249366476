"""The launch file starts the same nodes as ``hiwm up`` (where launch_ros is installed)."""

import importlib.util
from pathlib import Path

import pytest
from hiwm_bringup.graph import OPTIONS, build_graph, default_options
from hiwm_bringup.paths import project_root, share_dir

pytest.importorskip("launch_ros", reason="launch_ros is not installed (it is not on PyPI); hiwm up serves here")


def load():
    path = share_dir() / "launch" / "hiwm.launch.py"
    spec = importlib.util.spec_from_file_location("hiwm_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_option_is_a_described_launch_argument():
    from launch.actions import DeclareLaunchArgument

    description = load().generate_launch_description()
    arguments = {a.name: a for a in description.entities if isinstance(a, DeclareLaunchArgument)}
    assert set(arguments) == {option.name for option in OPTIONS}
    assert all(a.description for a in arguments.values())


def test_the_launch_file_starts_the_nodes_of_the_graph(models: Path):
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(default_options())
    nodes = load()._nodes(context)
    expected = build_graph(default_options(), project_root())
    assert [(n.node_package, n.node_executable) for n in nodes] == [(s.package, s.executable) for s in expected]
