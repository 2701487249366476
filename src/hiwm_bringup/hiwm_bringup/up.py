"""``hiwm up``: the graph of :mod:`hiwm_bringup.graph` as real processes, where launch_ros is not installed (or is)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from hiwm_bringup.graph import OPTIONS, GraphError, build_graph, parse_assignments
from hiwm_bringup.paths import parameter_file, project_root
from hiwm_bringup.processes import NodeDiedError, Supervisor, node_environment

EXIT_OK, EXIT_DIED, EXIT_USAGE = 0, 1, 2


def _options_help() -> str:
    lines = ["options (the launch file's arguments, with the same names):"]
    for option in OPTIONS:
        choices = f" ({'|'.join(option.choices)})" if option.choices else ""
        default = f" [{option.default}]" if option.default else ""
        lines.append(f"  {option.name + ':=':<12} {option.help}{choices}{default}")
    lines += [
        "",
        "examples:",
        "  hiwm up                                           # world rig, policy and arbiter, until Ctrl-C",
        "  hiwm up rig:=sim                                  # the same graph on the physics rig",
        "  hiwm up operator:=scripted record:=/tmp/bag episodes:=3",
        "",
        "On a machine with launch_ros: ros2 launch hiwm_bringup hiwm.launch.py rig:=world",
    ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm up``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _options_help()
    parser.add_argument("assignments", nargs="*", metavar="name:=value", help="options of the graph, see below")
    parser.add_argument("--duration", type=float, metavar="S", help="stop well after this many seconds")
    parser.add_argument("--domain", type=int, help="ROS_DOMAIN_ID of the graph (default: the environment's)")
    parser.add_argument("--log-dir", type=Path, help="also write each node's log to DIR/<node>.log")


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(args: argparse.Namespace) -> int:
    """Bring the graph up until Ctrl-C, ``--duration``, or the end of a node.

    Returns:
        0 after a wanted end, 1 where a node died, 2 for options that describe no graph.
    """
    root = project_root()
    try:
        options = parse_assignments(args.assignments)
        specs = build_graph(options, root)
        supervisor = Supervisor(
            specs, node_environment(os.environ, args.domain), [parameter_file()], echo=sys.stdout, log_dir=args.log_dir
        )
    except (GraphError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    signal.signal(signal.SIGTERM, _raise_interrupt)
    names = ", ".join(spec.name for spec in specs)
    print(f"bringing up {names}; Ctrl-C stops all of them", file=sys.stderr)
    try:
        with supervisor:
            supervisor.wait(args.duration)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except NodeDiedError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_DIED
    return EXIT_OK
