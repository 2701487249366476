"""For integration tests: real nodes in real processes, each test in its own DDS domain."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.paths import parameter_file
from hiwm_bringup.processes import Supervisor, node_environment

T = TypeVar("T")
_FIRST_DOMAIN, _LAST_DOMAIN = 20, 100
"""Domain ids that need no ephemeral ports on Linux, without those that people use by hand."""


@contextmanager
def unique_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test on this machine uses; locked until the end of the block.

    Raises:
        RuntimeError: all ids are taken.
    """
    folder = Path(tempfile.gettempdir()) / "hiwm_test_domains"
    folder.mkdir(exist_ok=True)
    span = _LAST_DOMAIN - _FIRST_DOMAIN
    for offset in range(span):
        domain = _FIRST_DOMAIN + (os.getpid() + offset) % span
        with (folder / str(domain)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError(f"no free ROS_DOMAIN_ID between {_FIRST_DOMAIN} and {_LAST_DOMAIN}")


@contextmanager
def graph(specs: Sequence[NodeSpec], domain: int, log_dir: Path | None = None) -> Iterator[Supervisor]:
    """Nodes running in a domain; stopped at the end of the block. Their last lines are in any error."""
    env = node_environment(os.environ, domain)
    with Supervisor(specs, env, [parameter_file()], log_dir=log_dir) as supervisor:
        yield supervisor


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


class Probe:
    """A node in the test's own process that listens, publishes and calls services in a domain.

    Use as a context manager. Everything runs in the calling thread, inside :meth:`spin_until` and :meth:`call`.
    """

    def __init__(self, domain: int, name: str = "test_probe") -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor

        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def listen(self, message_type: Any, topic: str, qos: Any = 10) -> list[Any]:
        """A list that grows by every message of a topic."""
        received: list[Any] = []
        self.node.create_subscription(message_type, topic, received.append, qos)
        return received

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "the condition") -> None:
        """Handle messages until a condition holds.

        Raises:
            TimeoutError: naming ``what``.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {timeout_s} s")
            self._executor.spin_once(timeout_sec=0.02)

    def spin_for(self, seconds: float) -> None:
        """Handle messages for a time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)

    def call(self, service_type: Any, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        """Call a service and wait for its answer.

        Raises:
            TimeoutError: no such service, or no answer in time.
        """
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(service_type, name)
        self.spin_until(client.service_is_ready, timeout_s, f"service {name}")
        future = client.call_async(request)
        self.spin_until(future.done, timeout_s, f"the answer of {name}")
        return future.result()
