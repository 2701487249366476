"""``hiwm check``: the conformance suite against the rig that is up, or against one that is brought up for it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hiwm_rig.conformance.main import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    NoRigError,
    list_checks,
    restart_command,
    run_checks,
)
from hiwm_rig.conformance.main import add_arguments as add_suite_arguments
from hiwm_rig.conformance.report import ReportFileError, require_writable
from hiwm_rig.contract import RigFileError, load_rig

from hiwm_bringup.graph import GraphError, NodeSpec, build_rig, parse_assignments
from hiwm_bringup.paths import parameter_file, project_root
from hiwm_bringup.processes import NodeDiedError, Supervisor, node_environment
from hiwm_bringup.testing import unique_domain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm check``."""
    parser.add_argument(
        "--rig",
        choices=("sim", "world", "physical"),
        help="bring this rig up for the check, in a ROS domain of its own (physical: emulated arms and a recorded "
        "camera, unless --set gives ports and serials); without it the rig that is up is checked",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="name:=value", help="options of the rig, as for hiwm up (with --rig)"
    )
    add_suite_arguments(parser)


class _OwnRig:
    """A rig that lives as long as the check, and can be restarted.

    Args:
        specs: its nodes.
        domain: where they live.
        log_dir: each node's log, of its last life.
    """

    def __init__(self, specs: list[NodeSpec], domain: int, log_dir: Path) -> None:
        self._specs = specs
        self._log_dir = log_dir
        self._env = node_environment(os.environ, domain)
        self._supervisor = self._start()
        self._obituary = ""

    def _start(self) -> Supervisor:
        supervisor = Supervisor(self._specs, self._env, [parameter_file()], log_dir=self._log_dir)
        try:
            supervisor.start()
        except BaseException:
            supervisor.stop()
            raise
        return supervisor

    def restart(self) -> None:
        """End every node, then start it again."""
        self._obituary = self.obituary()
        self._supervisor.stop()
        self._supervisor = self._start()

    def stop(self) -> None:
        """End every node."""
        self._supervisor.stop()

    def obituary(self) -> str:
        """What a node had to say that died by itself, before or after a restart; empty where none did."""
        try:
            self._supervisor.poll()
        except NodeDiedError as error:
            return str(error)
        return self._obituary


@contextmanager
def _rig_for_check(specs: list[NodeSpec], domain: int) -> Iterator[_OwnRig]:
    with tempfile.TemporaryDirectory(prefix="hiwm_check_") as folder:
        rig = _OwnRig(specs, domain, Path(folder))
        try:
            yield rig
        finally:
            rig.stop()


def _check_own_rig(args: argparse.Namespace) -> int:
    words = [f"rig:={args.rig}", f"rig_file:={args.rig_file}", *args.set]
    specs = build_rig(parse_assignments(words), project_root())
    rig_file = load_rig(args.rig_file)
    with unique_domain() as domain, _rig_for_check(specs, domain) as rig:
        # This process takes part with the same transport profile as the nodes.
        os.environ.update(node_environment(os.environ, domain))
        print(f"checking {args.rig} ({', '.join(s.name for s in specs)}) in ROS domain {domain}", file=sys.stderr)
        try:
            code = run_checks(rig_file, args, args.rig, domain, rig.restart, lambda: bool(rig.obituary()))
        except NoRigError as error:
            raise NoRigError(rig.obituary() or str(error)) from error
        died = rig.obituary()
    if died:
        # A rig that lost a node is no drop-in, even where a restart has hidden it from the checks.
        print(f"error: {died}", file=sys.stderr)
        return EXIT_FAILED
    return code


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(args: argparse.Namespace) -> int:
    """Run the suite.

    Returns:
        0 where every check passed, 1 where one failed, 2 where there was no rig to check.
    """
    if args.list:
        list_checks()
        return EXIT_OK
    if args.set and not args.rig:
        print("error: --set belongs to a rig that is brought up: give --rig too", file=sys.stderr)
        return EXIT_USAGE
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        if args.json is not None:
            require_writable(args.json)
        if args.rig:
            return _check_own_rig(args)
        os.environ.update(node_environment(os.environ))
        return run_checks(load_rig(args.rig_file), args, "rig", restart=restart_command(args.restart))
    except (
        GraphError,
        RigFileError,
        NoRigError,
        ReportFileError,
        FileNotFoundError,
        KeyError,
        subprocess.CalledProcessError,
    ) as error:
        print(f"error: {error.args[0] if error.args else error}", file=sys.stderr)
        return EXIT_USAGE
