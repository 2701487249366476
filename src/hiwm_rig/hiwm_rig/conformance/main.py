"""``rig_check``: the suite against the rig that is up in this ROS domain. ``hiwm check`` adds rigs of its own."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hiwm_rig.conformance.registry import all_checks, select
from hiwm_rig.conformance.report import Printer, ReportFileError, require_writable, summary, write_report
from hiwm_rig.conformance.session import Session
from hiwm_rig.conformance.settings import Settings
from hiwm_rig.conformance.suite import run_suite
from hiwm_rig.conformance.user import RigUser
from hiwm_rig.contract import Rig, RigFileError, load_rig

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


class NoRigError(RuntimeError):
    """There is nothing to check; the text says what to do."""


def seconds(text: str) -> float:
    """A duration on the command line.

    Raises:
        argparse.ArgumentTypeError: it is none that anything could be measured in.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got '{text}'")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that ``rig_check`` and ``hiwm check`` share."""
    parser.add_argument("--rig-file", default="push_t", help="name of a shipped rig file, or path of a .yaml file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these checks or groups of checks")
    parser.add_argument("--list", action="store_true", help="list the checks and what they look for, and end")
    parser.add_argument(
        "--window", type=seconds, default=Settings.window_s, metavar="S", help="how long to watch topics"
    )
    parser.add_argument(
        "--chunk", type=seconds, default=Settings.chunk_s, metavar="S", help="duration of a test motion"
    )
    parser.add_argument(
        "--start", type=seconds, default=Settings.start_s, metavar="S", help="how long to wait for a rig"
    )
    parser.add_argument(
        "--restart", metavar="COMMAND", help="shell command that restarts the rig; without it those checks are skipped"
    )


def list_checks() -> None:
    """Print every check with the line that says what it looks for."""
    group = ""
    width = max(len(c.name) for c in all_checks())
    for check in all_checks():
        if check.group != group:
            group = check.group
            print(f"\n{group.replace('_', ' ')}")
        print(f"  {check.name:<{width}}  {check.about}")


def restart_command(command: str | None) -> Callable[[], None] | None:
    """A function that runs a shell command to its end, or None.

    It raises ``subprocess.CalledProcessError`` where the command fails.
    """
    if command is None:
        return None
    return lambda: _shell(command)


def _shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


def run_checks(
    rig: Rig,
    args: argparse.Namespace,
    label: str,
    domain: int | None = None,
    restart: Callable[[], None] | None = None,
    hopeless: Callable[[], bool] = lambda: False,
) -> int:
    """Run the suite, print the table, write the JSON file.

    Args:
        rig: the contract.
        args: see :func:`add_arguments`.
        label: what the results are called.
        domain: ROS_DOMAIN_ID; None takes the environment's.
        restart: restarts the rig; without it those checks are skipped.
        hopeless: whether the rig has died, so that waiting for it has no use.

    Returns:
        0 where every check passed, 1 where one failed.

    Raises:
        NoRigError: no topic of the rig file shows anything.
        KeyError: an unknown check in ``args.only``.
        ReportFileError: the JSON file cannot be written; nothing has been checked then.
    """
    checks = select(args.only)
    if args.json is not None:
        require_writable(args.json)
    settings = Settings(window_s=args.window, chunk_s=args.chunk, start_s=args.start)
    with RigUser(rig, domain) as user:
        sim_time = user.adopt_clock()
        silent = user.wait_for_rig(settings.start_s, hopeless)
        everything = 2 * len(rig.cameras) + len(rig.arms)
        if len(silent) == everything:
            raise NoRigError(_no_rig(rig, silent, settings.start_s, sim_time))
        session = Session(user, settings, restart, sim_time)
        results = run_suite(session, checks, Printer([c.name for c in checks], sys.stdout))
    print(f"\n{label}: {summary(results)}")
    if args.json is not None:
        write_report(results, args.json, label)
    return EXIT_OK if all(r.passed is not False for r in results) else EXIT_FAILED


def _no_rig(rig: Rig, silent: Sequence[str], waited_s: float, sim_time: bool) -> str:
    text = f"nothing publishes {', '.join(silent)} within {waited_s:g} s: "
    if sim_time:
        return (
            text + "/clock is there, so the rig may be in lock-step, which cannot be checked: start it with time:=wall"
        )
    return text + (
        f"start the rig first, with the same ROS_DOMAIN_ID and rig file ('{rig.name}'), or let `hiwm check --rig sim` "
        "bring one up"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ros2 run hiwm_rig rig_check``."""
    parser = argparse.ArgumentParser(prog="rig_check", description="Say whether the rig that is up is a drop-in.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.list:
        list_checks()
        return EXIT_OK
    try:
        return run_checks(load_rig(args.rig_file), args, "rig", restart=restart_command(args.restart))
    except (RigFileError, NoRigError, ReportFileError, KeyError, subprocess.CalledProcessError) as error:
        print(f"error: {error.args[0] if error.args else error}", file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
