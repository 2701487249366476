"""The Hi-WM graph with launch_ros: ``ros2 launch hiwm_bringup hiwm.launch.py rig:=world operator:=scripted``.

The nodes come from hiwm_bringup.graph, which ``hiwm up`` uses as well; ``--show-args`` lists the arguments.
"""

import os
from collections.abc import Callable

from hiwm_bringup.graph import OPTIONS, NodeSpec, build_graph
from hiwm_bringup.paths import dds_profile, parameter_file, project_root
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def _end_of(spec: NodeSpec) -> Callable[[ProcessExited, LaunchContext], list[Shutdown]]:
    """What the end of a node means: a wanted end of the graph, or an error that ``ros2 launch`` exits with."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Shutdown]:
        if context.is_shutdown:
            return []
        if event.returncode == 0 and spec.on_exit == "finish":
            return [Shutdown(reason=f"{spec.name} has finished")]
        raise RuntimeError(f"node '{spec.name}' ended with exit code {event.returncode}; its last lines are above")

    return on_exit


def _nodes(context: LaunchContext) -> list[Node]:
    """The graph for the arguments' values, which are known only now."""
    options = {option.name: LaunchConfiguration(option.name).perform(context) for option in OPTIONS}
    return [
        Node(
            package=spec.package,
            executable=spec.executable,
            name=spec.name,
            parameters=[str(parameter_file()), dict(spec.parameters)],
            remappings=list(spec.remappings),
            output="screen",
            emulate_tty=True,
            on_exit=_end_of(spec),
        )
        for spec in build_graph(options, project_root())
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments with their descriptions, the environment of the nodes, the nodes."""
    arguments = [
        DeclareLaunchArgument(o.name, default_value=o.default, description=o.help, choices=list(o.choices) or None)
        for o in OPTIONS
    ]
    environment = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    if not os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE"):
        environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(dds_profile())
    missing = [SetEnvironmentVariable(k, v) for k, v in environment.items() if not os.environ.get(k)]
    return LaunchDescription([*arguments, *missing, OpaqueFunction(function=_nodes)])
