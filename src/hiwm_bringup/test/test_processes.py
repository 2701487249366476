"""No process outlives its graph, and a node that dies is reported with its last lines."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.processes import NodeDiedError, Supervisor, node_command, node_environment
from hiwm_bringup.testing import wait_until

NODE = """#!{python}
import os, signal, subprocess, sys, time
role = os.path.basename(sys.argv[0])
print("hello from", role, flush=True)
if role == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if role == "dies":
    time.sleep(0.3); print("the disk is full", flush=True); sys.exit(3)
if role == "finishes":
    time.sleep(0.3); sys.exit(0)
if role == "parent":
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(60)"])
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("clean end of", role, flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A package 'fake' of little programs, found the way real packages are."""
    (tmp_path / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/fake").touch()
    folder = tmp_path / "lib/fake"
    folder.mkdir(parents=True)
    for role in ("lives", "dies", "finishes", "stubborn", "parent"):
        (folder / role).write_text(NODE.format(python=sys.executable))
        (folder / role).chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}:{os.environ.get('AMENT_PREFIX_PATH', '')}")

    def make(role: str, **kwargs) -> NodeSpec:
        return NodeSpec("fake", role, role, **kwargs)

    return make


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_dying_node_takes_the_graph_down_with_its_last_lines(fake):
    with (
        pytest.raises(NodeDiedError, match=r"(?s)node 'dies' ended with exit code 3.*the disk is full"),
        Supervisor([fake("lives"), fake("dies")], os.environ) as graph,
    ):
        pids = [r.process.pid for r in graph.running]
        graph.wait(20)
    assert not any(alive(pid) for pid in pids)


def test_a_node_that_ends_unasked_is_an_error_even_with_exit_code_zero(fake):
    with pytest.raises(NodeDiedError, match="exit code 0"), Supervisor([fake("finishes")], os.environ) as graph:
        graph.wait(20)


def test_a_node_that_may_finish_ends_the_graph_well(fake):
    with Supervisor([fake("lives"), fake("finishes", on_exit="finish")], os.environ) as graph:
        start = time.monotonic()
        graph.wait(20)
        assert time.monotonic() - start < 15


def test_logs_are_prefixed_by_node_and_written_to_files(fake, tmp_path, monkeypatch):
    monkeypatch.setattr("hiwm_bringup.processes._INT_WAIT_S", 1.0)
    echo = io.StringIO()
    with Supervisor([fake("lives"), fake("stubborn")], os.environ, echo=echo, log_dir=tmp_path / "logs") as graph:
        wait_until(lambda: echo.getvalue().count("hello") == 2)
        assert "lives    | hello from lives\n" in echo.getvalue()
        graph.stop()
    assert "clean end of lives" in (tmp_path / "logs/lives.log").read_text()


def test_a_node_that_ignores_ctrl_c_is_ended_all_the_same(fake, monkeypatch):
    monkeypatch.setattr("hiwm_bringup.processes._INT_WAIT_S", 0.5)
    with Supervisor([fake("stubborn")], os.environ) as graph:
        wait_until(lambda: bool(graph.running[0].lines))
        pid = graph.pid("stubborn")
        assert graph.stop()["stubborn"] == -signal.SIGTERM
    assert not alive(pid)


def test_the_children_of_a_node_do_not_outlive_it(fake):
    with Supervisor([fake("parent")], os.environ) as graph:
        wait_until(lambda: bool(graph.running[0].lines))
        pid = graph.pid("parent")
        children = Path(f"/proc/{pid}/task/{pid}/children")
        wait_until(lambda: bool(children.read_text().split()))
        child = int(children.read_text().split()[0])
    wait_until(lambda: not alive(child), 5)


def test_killing_the_supervisor_itself_leaves_no_process(fake, tmp_path):
    code = """
import os, sys, time
from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.processes import Supervisor
with Supervisor([NodeSpec("fake", "lives", "lives")], os.environ) as graph:
    print(graph.pid("lives"), flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(child), 5, "the end of the node")


def test_a_package_or_executable_that_is_not_built_is_named(fake, tmp_path):
    with pytest.raises(FileNotFoundError, match="no executable 'missing'"):
        node_command(fake("missing"), tmp_path)
    with pytest.raises(FileNotFoundError, match="nothere"):
        node_command(NodeSpec("nothere", "x", "x"), tmp_path)


def test_parameters_and_remappings_reach_the_command_line(fake, tmp_path):
    spec = fake("lives", parameters={"seed": 3, "note": "007"}, remappings=(("/a", "/b"),))
    command = node_command(spec, tmp_path, [Path("/etc/common.yaml")])
    assert command[1:4] == ["--ros-args", "-r", "__node:=lives"]
    assert command[-2:] == ["-r", "/a:=/b"]
    assert command.index("/etc/common.yaml") < command.index(str(tmp_path / "lives.yaml"))
    assert "note: '007'" in (tmp_path / "lives.yaml").read_text()


def test_the_environment_keeps_what_the_user_has_set():
    env = node_environment({"OMP_NUM_THREADS": "8"}, domain=5)
    assert env["OMP_NUM_THREADS"] == "8" and env["ROS_DOMAIN_ID"] == "5"
    assert env["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds.xml")
    own = {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"}
    assert node_environment(own)["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml"
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in node_environment({"FASTDDS_DEFAULT_PROFILES_FILE": "/m.xml"})
