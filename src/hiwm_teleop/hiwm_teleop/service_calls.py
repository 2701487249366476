"""Service calls of a node that must not wait: the answer comes later, or is given up. Needs rclpy's futures only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

REPLY_S = 3.0
"""A service that has not answered after this long counts as having none."""

Answer = Callable[[Any], None]


class ServiceCalls:
    """Calls under way. The owner calls :meth:`give_up` now and then, from a timer."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, Answer]] = {}

    def call(self, client: Any, request: Any, answer: Answer) -> None:
        """Call a service; ``answer`` gets its reply once, or None where nobody serves it or no reply came in time."""
        if not client.service_is_ready():
            answer(None)
            return
        future = client.call_async(request)
        key = id(future)
        self._waiting[key] = (time.monotonic() + REPLY_S, answer)

        def on_done(done: Any) -> None:
            if self._waiting.pop(key, None) is not None:
                answer(done.result())

        future.add_done_callback(on_done)

    def give_up(self) -> int:
        """Answer None to the calls that have waited too long; how many there were."""
        late = [key for key, (deadline, _) in self._waiting.items() if time.monotonic() > deadline]
        for key in late:
            self._waiting.pop(key)[1](None)
        return len(late)
