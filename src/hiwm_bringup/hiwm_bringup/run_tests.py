"""``hiwm test``: formatting, lint, types, unit tests, integration tests; the last line says what of it passed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from hiwm_bringup.paths import project_root

_NONE_SELECTED = 5
"""pytest's exit code where ``-k`` leaves no test of these files."""
CORES = ("hiwm_rig", "hiwm_sim", "hiwm_world_model", "hiwm_policy", "hiwm_teleop", "hiwm_data", "hiwm_bringup")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm test``."""
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"only these packages (of {', '.join(CORES)})")
    parser.add_argument("-k", dest="keyword", metavar="EXPRESSION", help="only tests that match, as in pytest")
    parser.add_argument("--no-checks", action="store_true", help="tests only: no ruff, no mypy")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes for the unit tests; integration tests have one"
    )
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


def _test_files(root: Path, packages: list[str]) -> dict[str, list[str]]:
    """Test files by kind: integration tests (whole graphs in real time) are those named ``test_integration*``."""
    found: dict[str, list[str]] = {"unit tests": [], "integration tests": []}
    for package in packages:
        for file in sorted((root / "src" / package / "test").glob("test_*.py")):
            kind = "integration tests" if file.name.startswith("test_integration") else "unit tests"
            found[kind].append(str(file.relative_to(root)))
    return found


def _pytest(args: argparse.Namespace, files: list[str], workers: int, root: Path) -> int:
    """pytest's exit code; files stay whole where they are spread over processes, as their fixtures are theirs."""
    selection = ["-k", args.keyword] if args.keyword else []
    spread = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    command = [sys.executable, "-m", "pytest", f"--durations={args.durations}", *spread, *selection, *files]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return subprocess.run(command, cwd=root, env=env, check=False).returncode


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
    start = time.monotonic()
    passed = {} if args.no_checks else {"checks": _checks(root, packages)}
    for kind, files in _test_files(root, packages).items():
        code = _pytest(args, files, args.workers if kind == "unit tests" else 1, root) if files else _NONE_SELECTED
        if code != _NONE_SELECTED:
            passed[kind] = code == 0
    if not passed.keys() - {"checks"}:
        print(f"error: no test of {', '.join(packages)} matches '{args.keyword}'", file=sys.stderr)
        return 1
    minutes = (time.monotonic() - start) / 60
    print(", ".join(f"{kind} {'ok' if good else 'FAIL'}" for kind, good in passed.items()), f"({minutes:.1f} minutes)")
    return 0 if all(passed.values()) else 1
