"""A ROS participant inside this process that listens and calls services in a domain of its choice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Probe:
    """A node in this process that listens, publishes and calls services in a domain.

    Use as a context manager. Everything runs in the calling thread, inside :meth:`spin_until` and :meth:`call`.

    Args:
        domain: ROS_DOMAIN_ID; None takes the environment's.
        name: of the node.
    """

    def __init__(self, domain: int | None = None, name: str = "hiwm_probe") -> None:
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
