"""One publisher per topic: two arbiters or two rigs on the same topics would fight over a robot. Needs rclpy.

On one machine a lock file decides, at once and without a race; it goes when its process does, also after kill -9.
Across machines only DDS discovery can tell, which may show another node late: it is asked before the start and
watched for the first seconds after it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import IO

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from hiwm_rig.rig_node import StartupError

WATCH_S = 5
"""How long after the start discovery is watched. An older instance no longer watches, so it goes on undisturbed."""


class SinglePublisher:
    """The right to publish a topic; hold it as long as the node lives.

    Args:
        node: the node that is starting; call before its publisher is created.
        topic: a topic that may have one publisher only; resolved like a publisher's.
        wait_s: how long discovery may take.

    Raises:
        StartupError: another node publishes it, or is about to; names the topic and, where known, the node. A
            publisher that discovery shows only later raises it in the executor: :func:`~hiwm_rig.rig_node.run_node`
            shows it and ends the process.
    """

    def __init__(self, node: Node, topic: str, wait_s: float = 0.5) -> None:
        self._node = node
        self._topic = str(node.resolve_topic_name(topic))
        self._left = WATCH_S
        self._lock = self._take_lock()
        try:
            self._ask_discovery(wait_s)
        except StartupError:
            self._unlock()
            raise
        node.context.on_shutdown(self._unlock)
        # Steady time: `/clock` may stand still, or not be there yet.
        self._timer = node.create_timer(1.0, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def release(self) -> None:
        """Let another node publish the topic; nothing is watched any more."""
        self._timer.cancel()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> IO[str] | None:
        domain = self._node.context.get_domain_id()
        folder = Path(tempfile.gettempdir()) / f"hiwm-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            file = (folder / f"domain_{domain}{self._topic.replace('/', '-')}.lock").open("w", encoding="utf-8")
        except OSError as error:  # a read-only system: discovery has to do
            self._node.get_logger().warning(f"no lock file for {self._topic}: {error}")
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise self._taken("another node on this machine") from None
        return file

    def _ask_discovery(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            others = self._node.get_publishers_info_by_topic(self._topic)
            if others:
                # Discovery may know the publisher before it knows the name of its node.
                known = {
                    f"{o.node_namespace.rstrip('/')}/{o.node_name}" for o in others if "UNKNOWN" not in o.node_name
                }
                raise self._taken(", ".join(sorted(known)) or "another node")
            if time.monotonic() >= deadline:
                return
            time.sleep(0.02)

    def _watch(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._timer.cancel()
        if self._node.count_publishers(self._topic) > 1:
            raise self._taken("another node")

    def _taken(self, by: str) -> StartupError:
        return StartupError(
            f"{self._topic} is already published by {by}: only one instance may run "
            "(stop it, or use another ROS_DOMAIN_ID)"
        )
