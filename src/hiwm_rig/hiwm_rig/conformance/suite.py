"""Running checks against a rig, one after the other. Needs rclpy through the session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hiwm_rig.conformance.registry import CannotMeasureError, Check, Finding
from hiwm_rig.conformance.session import Session


@dataclass(frozen=True)
class Result:
    """What became of one check.

    Attributes:
        name: of the check.
        group: section of the report.
        passed: None where the check was skipped.
        topic: topic or service that the rest speaks of; the first that failed, where one did.
        expected: in words.
        seen: in words; for a skipped check, why.
        seconds: how long it took.
        measured: False where the rig did not let the check be carried out: it failed for another reason than its own.
    """

    name: str
    group: str
    passed: bool | None
    topic: str
    expected: str
    seen: str
    seconds: float = 0.0
    measured: bool = True


def run_suite(
    session: Session, checks: Sequence[Check], on_result: Callable[[Result], None] | None = None
) -> list[Result]:
    """Run checks in order.

    Args:
        session: connected to a running rig.
        checks: see :func:`hiwm_rig.conformance.registry.select`.
        on_result: called after each check.
    """
    results = []
    for check in checks:
        result = _run(session, check)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def _run(session: Session, check: Check) -> Result:
    missing = [need for need in check.needs if not session.can(need)]
    if missing:
        why = f"needs {', '.join(missing)}: this run was not told how"
        return Result(check.name, check.group, None, "", check.about, why, measured=False)
    start, measured = time.monotonic(), True
    try:
        findings = list(check.run(session))
    except CannotMeasureError as error:
        findings, measured = [Finding(error.topic, False, check.about, str(error))], False
    shown = _most_telling(check, findings)
    passed = bool(findings) and all(f.passed for f in findings)
    taken = time.monotonic() - start
    return Result(check.name, check.group, passed, shown.topic, shown.expected, shown.seen, taken, measured)


def _most_telling(check: Check, findings: Iterable[Finding]) -> Finding:
    """The first finding that failed; else the first."""
    looked = list(findings)
    failed = [f for f in looked if not f.passed]
    return (failed or looked or [Finding("", False, check.about, "nothing to look at")])[0]
