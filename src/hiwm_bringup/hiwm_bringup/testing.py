"""For integration tests: real nodes in real processes, each test in its own DDS domain."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.paths import parameter_file
from hiwm_bringup.probe import Probe
from hiwm_bringup.processes import Supervisor, node_environment

__all__ = ["Probe", "graph", "unique_domain", "wait_until"]

_FIRST_DOMAIN, _LAST_DOMAIN = 20, 100
"""Domain ids that need no ephemeral ports on Linux, without those that people use by hand."""
_DISCOVERY = "ROS_AUTOMATIC_DISCOVERY_RANGE"


@contextmanager
def unique_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test on this machine uses; locked until the end of the block.

    The search starts at random: a test then does not meet the participants that one before it left behind (a killed
    process is remembered for the length of its lease, and its shared memory for longer). Tests stay on this machine:
    on a laboratory's network there may be a robot that listens.

    Raises:
        RuntimeError: all ids are taken.
    """
    folder = Path(tempfile.gettempdir()) / f"hiwm_test_domains-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    domains = list(range(_FIRST_DOMAIN, _LAST_DOMAIN))
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        with (folder / str(domain)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            before = os.environ.get(_DISCOVERY)
            os.environ[_DISCOVERY] = "LOCALHOST"
            try:
                yield domain
            finally:
                os.environ.pop(_DISCOVERY)
                if before is not None:
                    os.environ[_DISCOVERY] = before
            return
    raise RuntimeError(f"no free ROS_DOMAIN_ID between {_FIRST_DOMAIN} and {_LAST_DOMAIN}")


@contextmanager
def graph(specs: Sequence[NodeSpec], domain: int, log_dir: Path | None = None) -> Iterator[Supervisor]:
    """Nodes running in a domain; stopped at the end of the block. Their last lines are added to any error."""
    env = node_environment(os.environ, domain)
    with Supervisor(specs, env, [parameter_file()], log_dir=log_dir) as supervisor:
        try:
            yield supervisor
        except Exception as error:
            for running in supervisor.running:
                lines = "\n    ".join(running.lines) or "(no output)"
                error.add_note(f"{running.spec.name}, exit status {running.process.poll()}:\n    {lines}")
            raise


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "the condition") -> None:
    """Poll a condition.

    Raises:
        TimeoutError: naming ``what``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s} s")
        time.sleep(0.02)
