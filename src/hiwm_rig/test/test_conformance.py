"""The conformance suite itself: a correct rig passes every check, and each wrong rig fails the check meant for it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import pytest
from hiwm_bringup.testing import unique_domain
from hiwm_rig.conformance.main import add_arguments, main, run_checks
from hiwm_rig.conformance.registry import all_checks, check, select
from hiwm_rig.conformance.report import line, summary, write_report
from hiwm_rig.conformance.session import Session
from hiwm_rig.conformance.suite import Result, run_suite
from hiwm_rig.conformance.user import RigUser
from hiwm_rig.participant import Probe
from rosgraph_msgs.msg import Clock
from toy_rig import RIG, RIG_FILE, SETTINGS, Fault, ToyRig
from wrong_rigs import AFTER_RESTART, BASELINE, BASELINES, FAULTS, crashed, silent

pytestmark = pytest.mark.timeout(300)
NAMES = [c.name for c in all_checks()]
WORKERS = 3


@contextmanager
def session_with(domain: int, fault: Fault | None = None, after: Fault | None = None) -> Iterator[Session]:
    """The suite connected to a toy rig; ``after`` is what is wrong with it once it has been restarted."""
    rigs = [ToyRig(domain, fault)]

    def restart() -> None:
        rigs.pop().close()
        rigs.append(ToyRig(domain, after))

    try:
        with RigUser(RIG, domain) as user:
            user.wait_for_rig(SETTINGS.start_s)
            yield Session(user, SETTINGS, restart)
    finally:
        rigs.pop().close()


@dataclass(frozen=True)
class Verdict:
    """What the suite says of a wrong rig.

    Attributes:
        result: of the check that the rig must fail.
        baseline: of checks beside it, on the same rig, that its fault does not touch.
    """

    result: Result
    baseline: list[Result]

    def objections(self) -> list[str]:
        """Why the check did not fail because of what it looks for; empty where it did."""
        found = [f"{r.name} fails as well: {r.seen}" for r in self.baseline if not r.passed]
        if self.result.passed is not False:
            found.append("it does not fail")
        if not self.result.measured:
            found.append(f"it could not be carried out: {self.result.seen}")
        return found


def judge(session: Session, name: str) -> Verdict:
    """One check, and the baseline before it: what the check does to the rig is then not its fault."""
    baseline = run_suite(session, select(BASELINES.get(name, BASELINE)))
    return Verdict(run_suite(session, select([name]))[0], baseline)


def run_one(name: str, domain: int) -> Verdict:
    """One check against the rig that is wrong in this respect."""
    with session_with(domain, FAULTS.get(name), AFTER_RESTART.get(name)) as session:
        return judge(session, name)


@pytest.fixture(scope="module")
def wrong_results() -> dict[str, Verdict]:
    """Every wrong rig's verdict for its check; some at a time, each in a ROS domain of its own."""
    with ExitStack() as stack, ThreadPoolExecutor(WORKERS) as pool:
        domains: SimpleQueue[int] = SimpleQueue()
        for _ in range(WORKERS):
            domains.put(stack.enter_context(unique_domain()))

        def work(name: str) -> Verdict:
            domain = domains.get()
            try:
                return run_one(name, domain)
            finally:
                domains.put(domain)

        found = dict(zip(NAMES, pool.map(work, NAMES), strict=True))
        # Rates and delays are judged as well: what other rigs of the fixture disturbed is judged again, alone.
        return {name: work(name) if v.objections() else v for name, v in found.items()}


@pytest.fixture(scope="module")
def correct_results() -> dict[str, Result]:
    """The correct rig's results: two rigs at a time, half of the checks each; what failed is judged again, alone."""
    halves = [["interface", "images", "camera_info", "motion"], ["joint_states", "rejections", "lifecycle"]]

    def work(groups: list[str], domain: int) -> list[Result]:
        with session_with(domain) as session:
            return run_suite(session, select(groups))

    with unique_domain() as one, unique_domain() as two, ThreadPoolExecutor(2) as pool:
        found = {r.name: r for results in pool.map(work, halves, (one, two)) for r in results}
        failed = [name for name, result in found.items() if not result.passed]
        return found | ({r.name: r for r in work(failed, one)} if failed else {})


def test_there_is_a_wrong_rig_for_every_check_and_a_check_for_every_wrong_rig():
    assert sorted([*FAULTS, *AFTER_RESTART]) == sorted(NAMES)
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_the_correct_rig_passes(name, correct_results):
    result = correct_results[name]
    assert result.passed, f"{result.topic}: expected {result.expected}, seen {result.seen}"


@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_rig_fails_for_what_is_wrong_with_it(name, wrong_results):
    verdict = wrong_results[name]
    assert not verdict.objections()
    result = verdict.result
    assert result.expected and result.seen
    assert result.topic in line(result, 40) and result.seen in line(result, 40)


@pytest.mark.parametrize("wreck", [silent, crashed], ids=lambda fault: fault.__name__)
def test_a_rig_that_does_nothing_at_all_is_no_wrong_rig(wreck):
    """Else a test rig that never came up would fail every check, and prove nothing of any of them."""
    with unique_domain() as domain, session_with(domain, wreck) as session:
        verdicts = [judge(session, name) for name in ("image_encoding", "joint_names", "single_point_reached")]
    assert not any(verdict.result.passed for verdict in verdicts)
    assert all(verdict.objections() for verdict in verdicts)


def test_a_rig_that_may_not_be_restarted_has_those_checks_skipped_and_the_report_says_so(tmp_path):
    with unique_domain() as domain:
        rig = ToyRig(domain)
        with RigUser(RIG, domain) as user:
            results = run_suite(Session(user, SETTINGS), select(["restart_obeys_running_users", "joint_names"]))
        rig.close()
    assert [r.passed for r in results] == [True, None]
    write_report(results, tmp_path / "r.json", "toy")
    report = json.loads((tmp_path / "r.json").read_text())
    assert [c["name"] for c in report["checks"]] == ["joint_names"]
    assert set(report["checks"][0]) >= {"name", "passed", "expected", "seen"} and report["checks"][0]["measured"]
    assert report["skipped"][0]["name"] == "restart_obeys_running_users" and report["passed"]
    assert "1 of 1 checks passed, 1 skipped" in summary(results)


def test_without_a_rig_the_program_says_what_to_do_and_ends_with_two(tmp_path, capsys, monkeypatch):
    file = tmp_path / "toy.yaml"
    file.write_text(RIG_FILE)
    with unique_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        assert main(["--rig-file", str(file), "--start", "0.5"]) == 2
    assert "start the rig first" in capsys.readouterr().err


def test_a_rig_in_lock_step_is_told_from_none(tmp_path, capsys, monkeypatch):
    file = tmp_path / "toy.yaml"
    file.write_text(RIG_FILE)
    with unique_domain() as domain, Probe(domain) as clock:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        clock.node.create_publisher(Clock, "/clock", 1)
        assert main(["--rig-file", str(file), "--start", "0.5"]) == 2
    assert "start it with time:=wall" in capsys.readouterr().err


def test_an_arm_that_somebody_else_commands_is_not_moved():
    with unique_domain() as domain, session_with(domain, FAULTS["nobody_else_commands"]) as session:
        session.user.spin_for(0.5)
        sent = session.user.is_heard(0), session.user._sent[0]
        result = run_suite(session, select(["single_point_reached"]))[0]
        assert result.passed is False and "somebody else commands" in result.seen
        assert sent == (True, 0) and session.user._sent[0] == 0


@pytest.mark.parametrize("words", [["--only", "no_such_check"], ["--rig-file", "no_such_rig"]])
def test_a_wrong_argument_is_one_line_and_ends_with_two(words, capsys, monkeypatch):
    with unique_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        assert main([*words, "--start", "0.1"]) == 2
    assert capsys.readouterr().err.startswith("error: no ")


@pytest.mark.parametrize(
    "words", [["--window", "0"], ["--chunk", "-1"], ["--start", "nan"], ["--window", "inf"], ["--chunk", "soon"]]
)
def test_a_duration_in_which_nothing_can_be_measured_is_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"argument {words[0]}: expected a number of seconds above 0, got '{words[1]}'" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["a_file/report.json", "a_folder"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_checked(where, tmp_path, capsys):
    (tmp_path / "a_file").touch()
    (tmp_path / "a_folder").mkdir()
    start = time.monotonic()
    assert main(["--json", str(tmp_path / where), "--start", "60"]) == 2
    assert time.monotonic() - start < 30
    error = capsys.readouterr().err
    assert error.startswith(f"error: --json {tmp_path / where}: cannot be written") and error.count("\n") == 1


def test_a_failed_check_is_the_exit_status_and_is_in_the_table(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--only", "joint_names", "image_encoding", "--json", str(tmp_path / "r.json")])
    with unique_domain() as domain:
        rig = ToyRig(domain, FAULTS["joint_names"])
        try:
            assert run_checks(RIG, args, "toy", domain) == 1
        finally:
            rig.close()
    out = capsys.readouterr().out
    assert "FAIL joint_names" in out and "ok   image_encoding" in out and "expected: ['a', 'b', 'c']" in out
    assert not json.loads((tmp_path / "r.json").read_text())["passed"]


def test_a_check_needs_a_name_of_its_own_and_a_line_for_users():
    def joint_names(session: Session) -> Iterator[object]:
        """A second one."""
        yield from ()

    with pytest.raises(ValueError, match="already a check"):
        check("joint_states")(joint_names)  # type: ignore[arg-type]
    joint_names.__name__, joint_names.__doc__ = "another", None
    with pytest.raises(ValueError, match="needs a docstring"):
        check("joint_states")(joint_names)  # type: ignore[arg-type]
    assert "another" not in {c.name for c in all_checks()}
