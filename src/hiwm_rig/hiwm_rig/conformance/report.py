"""The results of a run, for people and for machines. No ROS."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from hiwm_rig.conformance.suite import Result
from hiwm_rig.files import write_json

_MARKS = {True: "ok  ", False: "FAIL", None: "skip"}
_COLOURS = {True: "32", False: "31", None: "33"}


class ReportFileError(RuntimeError):
    """The results cannot be written there; the text says what to do."""


def require_writable(path: Path) -> None:
    """Ask before the checks, which take minutes, what :func:`write_json` needs after them.

    Raises:
        ReportFileError: it is a folder, or nothing can be written beside it.
    """
    folder, why = path.parent, ""
    if path.is_dir():
        why = "it is a folder"
    elif folder.exists() and not folder.is_dir():
        why = f"{folder} is no folder"
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            why = error.strerror or str(error)
    if why:
        raise ReportFileError(
            f"--json {path}: cannot be written ({why}): name a file in a folder that you may write to"
        )


def line(result: Result, width: int, colour: bool = False) -> str:
    """One result as lines of text; a failure names topic, expected and seen."""
    mark = _MARKS[result.passed]
    if colour:
        mark = f"\033[{_COLOURS[result.passed]}m{mark}\033[0m"
    head = f"{mark} {result.name:<{width}}  "
    if result.passed is False:
        topic = f"{result.topic}: " if result.topic else ""
        pad = " " * 7
        return f"{head}{topic.rstrip(': ')}\n{pad}expected: {result.expected}\n{pad}seen:     {result.seen}"
    return f"{head}{result.seen}"


class Printer:
    """Prints results as they come, under the heading of their group."""

    def __init__(self, names: Sequence[str], out: IO[str]) -> None:
        self._width = max((len(n) for n in names), default=0)
        self._out = out
        self._group = ""

    def __call__(self, result: Result) -> None:
        """Print one result."""
        if result.group != self._group:
            self._group = result.group
            print(f"\n{result.group.replace('_', ' ')}", file=self._out)
        print(line(result, self._width, self._out.isatty()), file=self._out, flush=True)


def summary(results: Sequence[Result]) -> str:
    """The last line: how many passed, failed and were skipped."""
    passed = sum(r.passed is True for r in results)
    failed = [r.name for r in results if r.passed is False]
    skipped = sum(r.passed is None for r in results)
    text = f"{passed} of {len(results) - skipped} checks passed"
    if skipped:
        text += f", {skipped} skipped"
    return text + (f"; failed: {', '.join(failed)}" if failed else "")


def write_report(results: Sequence[Result], path: Path, rig: str) -> None:
    """Write the results.

    ``checks`` holds what ran: name, passed, topic, expected, seen, seconds, and ``measured``: false where the rig did
    not let the check be carried out, which is a failure as well. ``skipped`` holds name and reason.
    """
    ran = [
        {
            "name": r.name,
            "passed": r.passed,
            "measured": r.measured,
            "topic": r.topic,
            "expected": r.expected,
            "seen": r.seen,
            "seconds": round(r.seconds, 2),
        }
        for r in results
        if r.passed is not None
    ]
    skipped = [{"name": r.name, "reason": r.seen} for r in results if r.passed is None]
    report = {"rig": rig, "passed": all(r["passed"] for r in ran) and bool(ran), "checks": ran, "skipped": skipped}
    write_json(path, report)
