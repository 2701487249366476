"""Real processes for a node graph: start, watch, prefix the logs, stop all of them. No ROS, no launch_ros."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.paths import dds_profile

_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
_LAST_LINES = 30
_PR_SET_PDEATHSIG = 1
_INT_WAIT_S, _TERM_WAIT_S, _KILL_WAIT_S = 8.0, 3.0, 2.0


class NodeDiedError(RuntimeError):
    """A node of the graph ended when it should not; the text holds its exit code and its last lines."""


def node_environment(base: Mapping[str, str], domain: int | None = None) -> dict[str, str]:
    """The environment of a node process: ``base`` plus what the user has not set.

    Images need the larger shared-memory segment of the shipped profile; small models run fastest on one thread.
    """
    env = dict(base)
    env.setdefault("PYTHONUNBUFFERED", "1")
    env.setdefault("OMP_NUM_THREADS", "1")
    if not env.get("FASTRTPS_DEFAULT_PROFILES_FILE") and not env.get("FASTDDS_DEFAULT_PROFILES_FILE"):
        env["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(dds_profile())
    if domain is not None:
        env["ROS_DOMAIN_ID"] = str(domain)
    return env


def executable_path(package: str, executable: str) -> Path:
    """Where colcon installed an executable.

    Raises:
        FileNotFoundError: not built, or the workspace is not sourced.
    """
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        path = Path(get_package_prefix(package)) / "lib" / package / executable
    except PackageNotFoundError:
        raise FileNotFoundError(f"package {package} is not in AMENT_PREFIX_PATH: source the workspace") from None
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no executable '{executable}' ({path}): build the workspace")
    return path


def node_command(spec: NodeSpec, parameter_dir: Path, parameter_files: Sequence[Path] = ()) -> list[str]:
    """The command line of a node; its parameters go into a file in ``parameter_dir``, as launch_ros does it."""
    own = parameter_dir / f"{spec.name}.yaml"
    own.write_text(yaml.safe_dump({f"/{spec.name}": {"ros__parameters": dict(spec.parameters)}}), encoding="utf-8")
    command = [str(executable_path(spec.package, spec.executable)), "--ros-args", "-r", f"__node:={spec.name}"]
    for file in (*parameter_files, own):
        command += ["--params-file", str(file)]
    for source, target in spec.remappings:
        command += ["-r", f"{source}:={target}"]
    return command


def child_setup() -> Callable[[], None]:
    """A ``preexec_fn`` for child processes.

    After it Ctrl-C reaches the child even where this process was started in the background of a script, which ignores
    it; and on Linux the kernel ends the child when its parent dies, however it dies.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


@dataclass
class Running:
    """One process of the graph with its last lines."""

    spec: NodeSpec
    process: subprocess.Popen[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    reader: threading.Thread | None = None


class Supervisor:
    """Runs the nodes of a graph as processes.

    Use as a context manager: leaving it, whatever the reason, stops every process (SIGINT, then SIGTERM, then
    SIGKILL). Each runs in its own process group, so that a Ctrl-C in the terminal reaches them in this order only.

    Args:
        specs: the nodes.
        env: environment of all of them, see :func:`node_environment`.
        parameter_files: ROS parameter files for every node, weaker than the parameters of the spec.
        echo: where log lines go, prefixed by the node's name; None: nowhere (they are kept for error messages).
        log_dir: where each node's log is also written to ``<name>.log``; None: nowhere.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        env: Mapping[str, str],
        parameter_files: Sequence[Path] = (),
        echo: IO[str] | None = None,
        log_dir: Path | None = None,
    ) -> None:
        self._specs = list(specs)
        self._env = dict(env)
        self._parameter_files = list(parameter_files)
        self._echo = echo
        self._log_dir = log_dir
        self._lock = threading.Lock()
        self._scratch = tempfile.TemporaryDirectory(prefix="hiwm_up_")
        self._width = max((len(s.name) for s in specs), default=0)
        self.running: list[Running] = []

    def __enter__(self) -> Supervisor:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every node.

        Raises:
            FileNotFoundError: an executable is not built.
        """
        scratch = Path(self._scratch.name)
        commands = [(spec, node_command(spec, scratch, self._parameter_files)) for spec in self._specs]
        prepare = child_setup()
        for spec, command in commands:
            process = subprocess.Popen(
                command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=prepare,
            )
            running = Running(spec, process)
            running.reader = threading.Thread(target=self._read, args=(running,), daemon=True)
            running.reader.start()
            self.running.append(running)

    def pid(self, name: str) -> int:
        """Process id of a node."""
        return next(r.process.pid for r in self.running if r.spec.name == name)

    def poll(self) -> bool:
        """Whether the graph is still running; False once a node that may finish has finished well.

        Raises:
            NodeDiedError: a node died, with its last lines.
        """
        for running in self.running:
            code = running.process.poll()
            if code is None:
                continue
            if code == 0 and running.spec.on_exit == "finish":
                return False
            raise NodeDiedError(self._obituary(running, code))
        return True

    def wait(self, duration_s: float | None = None, until: Callable[[], bool] | None = None) -> None:
        """Return when the time is over, the condition holds, or the graph has finished.

        Raises:
            NodeDiedError: a node died meanwhile.
        """
        deadline = None if duration_s is None else time.monotonic() + duration_s
        while self.poll():
            if until is not None and until():
                return
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(0.05)

    def stop(self) -> dict[str, int]:
        """Stop every process that still runs; exit codes by node name. A further Ctrl-C does not interrupt this."""
        with _interrupts_ignored():
            return self._stop()

    def _stop(self) -> dict[str, int]:
        for number, patience in (
            (signal.SIGINT, _INT_WAIT_S),
            (signal.SIGTERM, _TERM_WAIT_S),
            (signal.SIGKILL, _KILL_WAIT_S),
        ):
            alive = [r for r in self.running if r.process.poll() is None]
            for running in alive:
                signal_group(running.process, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(r.process.poll() is None for r in alive):
                time.sleep(0.02)
        for running in self.running:
            # A node's own children may have outlived it: they are in its process group.
            signal_group(running.process, signal.SIGKILL)
            if running.reader is not None:
                running.reader.join(timeout=1.0)
        self._scratch.cleanup()
        return {r.spec.name: r.process.poll() or 0 for r in self.running}

    def _obituary(self, running: Running, code: int) -> str:
        if running.reader is not None:
            running.reader.join(timeout=1.0)
        how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        with self._lock:
            tail = "\n".join(f"    {line}" for line in running.lines)
        return f"node '{running.spec.name}' {how}; its last lines:\n{tail or '    (none)'}"

    def _read(self, running: Running) -> None:
        assert running.process.stdout is not None
        index = self._specs.index(running.spec)
        prefix = _prefix(running.spec.name.ljust(self._width), index, self._echo)
        log = None
        if self._log_dir is not None:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            log = (self._log_dir / f"{running.spec.name}.log").open("w", encoding="utf-8", buffering=1)
        for line in running.process.stdout:
            with self._lock:
                running.lines.append(line.rstrip("\n"))
                if self._echo is not None:
                    self._echo.write(prefix + line)
                    self._echo.flush()
            if log is not None:
                log.write(line)
        if log is not None:
            log.close()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _prefix(name: str, index: int, echo: IO[str] | None) -> str:
    if echo is not None and echo.isatty() and not os.environ.get("NO_COLOR"):
        return f"\033[{_COLOURS[index % len(_COLOURS)]}m{name} |\033[0m "
    return f"{name} | "


def signal_group(process: subprocess.Popen[Any], number: int) -> None:
    """Signal a process and what it has started, where it leads a process group."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
