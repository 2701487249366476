"""``hiwm up`` and ``hiwm demo`` leave no process behind, whatever ends them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hiwm_bringup.testing import wait_until

pytestmark = pytest.mark.timeout(600)
CLI = [sys.executable, "-m", "hiwm_bringup.cli"]


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts ``hiwm`` commands with their output in ``log``; kills what a failed test leaves."""
    running: list[subprocess.Popen] = []

    def begin(*words: str) -> subprocess.Popen:
        log = (tmp_path / "log").open("w")
        process = subprocess.Popen([*CLI, *words], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()


def log(tmp_path: Path) -> str:
    return (tmp_path / "log").read_text()


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def node(process: subprocess.Popen, executable: str) -> psutil.Process:
    return next(p for p in family(process) if any(Path(word).name == executable for word in p.cmdline()))


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def up(start, models: Path, domain: int, *words: str) -> subprocess.Popen:
    own = [f"world:={models / 'push_t_world'}", f"policy:={models / 'push_t_base'}", "--domain", str(domain)]
    return start("up", *own, *words)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_every_node_and_is_no_error(start, models, domain, tmp_path, number):
    process = up(start, models, domain)
    wait_until(lambda: "world rig ready" in log(tmp_path), 90, "the world rig")
    children = family(process)
    assert len(children) >= 3
    os.kill(process.pid, number)
    assert process.wait(30) == 0, log(tmp_path)
    wait_until(lambda: gone(children), 5, "the end of all nodes")


def test_ctrl_c_while_the_nodes_are_still_starting(start, models, domain, tmp_path):
    process = up(start, models, domain)
    wait_until(lambda: len(family(process)) >= 3, 60, "the processes")
    children = family(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    wait_until(lambda: gone(children), 5, "the end of all nodes")


def test_a_killed_node_takes_the_graph_down_with_an_error(start, models, domain, tmp_path):
    process = up(start, models, domain)
    wait_until(lambda: "world rig ready" in log(tmp_path), 90, "the world rig")
    children = family(process)
    node(process, "world_rig").kill()
    assert process.wait(30) == 1
    assert "node 'world_rig' was ended by signal SIGKILL; its last lines:" in log(tmp_path)
    wait_until(lambda: gone(children), 5, "the end of all nodes")


def test_a_second_graph_on_the_same_topics_is_refused_and_the_first_lives_on(start, models, domain, tmp_path):
    first = up(start, models, domain)
    wait_until(lambda: "world rig ready" in log(tmp_path), 90, "the world rig")
    second = up(start, models, domain)
    assert second.wait(90) == 1
    assert "only one instance may run" in log(tmp_path)
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0


def test_ctrl_c_in_the_session_of_the_demo_leaves_no_process(start, models, tmp_path, monkeypatch):
    (tmp_path / "root" / "models").mkdir(parents=True)
    for name in ("push_t_world", "push_t_base"):
        (tmp_path / "root" / "models" / name).symlink_to(models / name)
    monkeypatch.setenv("HIWM_ROOT", str(tmp_path / "root"))
    process = start("demo", "--out", str(tmp_path / "demo"))
    wait_until(lambda: len(family(process)) >= 5, 90, "the nodes of the session")
    children = family(process)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log(tmp_path)
    wait_until(lambda: gone(children), 5, "the end of all nodes")
    assert "Traceback" not in log(tmp_path).split("interrupted")[-1]


def test_ctrl_c_in_a_later_step_of_the_demo_leaves_no_process(tmp_path):
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from hiwm_bringup.steps import hiwm;"
        f"hiwm(['data', 'generate', '--out', {str(tmp_path / 'd')!r}, '--demos', '200', '--workers', '2'], os.environ)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(family(process)) >= 2, 90, "the workers")
    children = family(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    wait_until(lambda: gone(children), 10, "the end of the workers")


def test_a_demo_without_its_models_says_so_and_starts_nothing(tmp_path):
    env = {**os.environ, "HIWM_ROOT": str(tmp_path)}
    result = subprocess.run(
        [*CLI, "demo", "--out", str(tmp_path / "o")], capture_output=True, text=True, env=env, check=False
    )
    assert result.returncode == 2
    assert "no model there" in result.stderr and "Traceback" not in result.stderr


def test_wrong_demo_input_is_one_line(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    for words, expected in (
        (["--out", str(tmp_path)], "is not empty"),
        (["--out", str(tmp_path / "x"), "--droid", str(tmp_path)], "expected a folder with annotation/"),
    ):
        result = subprocess.run([*CLI, "demo", *words], capture_output=True, text=True, check=False)
        assert result.returncode == 2 and expected in result.stderr
