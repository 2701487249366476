"""``hiwm test``: formatting, lint, types, unit tests, integration tests; the last line is pytest's summary."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from hiwm_bringup.paths import project_root

CORES = ("hiwm_rig", "hiwm_sim", "hiwm_world_model", "hiwm_policy", "hiwm_teleop", "hiwm_data", "hiwm_bringup")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm test``."""
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"only these packages (of {', '.join(CORES)})")
    parser.add_argument("-k", dest="keyword", metavar="EXPRESSION", help="only tests that match, as in pytest")
    parser.add_argument("--no-checks", action="store_true", help="tests only: no ruff, no mypy")
    parser.add_argument("--durations", type=int, default=10, metavar="N", help="show the N slowest tests")


def _check(title: str, command: list[str], root: Path) -> bool:
    start = time.monotonic()
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    good = result.returncode == 0
    print(f"{'ok  ' if good else 'FAIL'} {title} ({time.monotonic() - start:.0f} s)", flush=True)
    if not good:
        print(result.stdout + result.stderr, flush=True)
    return good


def _checks(root: Path, packages: list[str]) -> bool:
    python = sys.executable
    folders = [f"src/{package}" for package in packages]
    modules = [f"src/{package}/{package}" for package in packages]
    results = [
        _check("ruff check", [python, "-m", "ruff", "check", *folders], root),
        _check("ruff format --check", [python, "-m", "ruff", "format", "--check", *folders], root),
        _check("mypy", [python, "-m", "mypy", *modules], root),
    ]
    return all(results)


def _test_files(root: Path, packages: list[str]) -> list[str]:
    """Unit tests first, package by package; files named ``test_integration*`` (real nodes over DDS) last."""
    files = [file for package in packages for file in sorted((root / "src" / package / "test").glob("test_*.py"))]
    files.sort(key=lambda file: file.name.startswith("test_integration"))
    return [str(file.relative_to(root)) for file in files]


def run(args: argparse.Namespace) -> int:
    """Run checks and tests.

    Returns:
        0 where everything passed, 1 otherwise, 2 for an unknown package.
    """
    root = project_root()
    unknown = [p for p in args.packages if p not in CORES]
    if unknown:
        print(f"error: no package {unknown}; expected some of {', '.join(CORES)}", file=sys.stderr)
        return 2
    packages = args.packages or list(CORES)
    checked = args.no_checks or _checks(root, packages)
    files = _test_files(root, packages)
    selection = ["-k", args.keyword] if args.keyword else []
    command = [sys.executable, "-m", "pytest", f"--durations={args.durations}", *selection, *files]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    tested = subprocess.run(command, cwd=root, env=env, check=False).returncode
    return 0 if checked and tested == 0 else 1
