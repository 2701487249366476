"""A user of a rig, for tests: listens, sends commands, calls services, in a DDS domain of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from hiwm_rig.codecs import stamp_to_ns, target_to_trajectory
from hiwm_rig.contract import Rig
from hiwm_rig.rig_node import LATCHED, qos_profile
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import EpisodeEvent, WorldState


class Process:
    """A node in a process of its own."""

    def __init__(self, command: list[str], domain: int) -> None:
        environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.popen = subprocess.Popen(command, env=environment, **pipes)

    def output_after_exit(self, timeout: float = 90.0) -> str:
        try:
            return self.popen.communicate(timeout=timeout)[0]
        finally:
            self.stop()

    def stop(self) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(2)
            try:
                self.popen.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.communicate()
        return self.popen.returncode

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()


class RigUser:
    """Subscribes to all of a rig's topics; ``log`` keeps (kind, stamp, message) in order of arrival."""

    def __init__(self, rig: Rig, domain: int) -> None:
        self.rig, self.domain = rig, domain
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("rig_user", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.log: list[tuple[str, int, Any]] = []
        camera, arm = rig.cameras[0], rig.arms[0]
        images, states = qos_profile(rig.qos.images), qos_profile(rig.qos.joint_states)
        self._listen("image", Image, camera.image_topic, images)
        self._listen("info", CameraInfo, camera.info_topic, images)
        self._listen("joints", JointState, arm.joint_states, states)
        self._listen("world", WorldState, rig.topics.world_state, 10)
        self._listen("event", EpisodeEvent, rig.topics.episode, LATCHED)
        self._listen("diagnostics", DiagnosticArray, rig.topics.diagnostics, 10)
        self._listen("clock", Clock, "/clock", 10)
        self.commands = self.node.create_publisher(JointTrajectory, arm.command, qos_profile(rig.qos.commands))
        self.events = self.node.create_publisher(EpisodeEvent, rig.topics.episode, LATCHED)

    def _listen(self, kind: str, message_type: Any, topic: str, qos: Any) -> None:
        def arrived(message: Any) -> None:
            stamp = stamp_to_ns(message.clock if kind == "clock" else message.header.stamp)
            self.log.append((kind, stamp, message))

        self.node.create_subscription(message_type, topic, arrived, qos)

    def until(self, condition: Callable[[], Any], timeout: float = 60.0) -> Any:
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing happened in {timeout} s; log: {[k for k, _, _ in self.log][-20:]}")
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def of(self, kind: str) -> list[Any]:
        return [m for k, _, m in self.log if k == kind]

    def next(self, kind: str, count: int = 1, timeout: float = 60.0) -> Any:
        """The newest message of a kind, once ``count`` more have come."""
        target = len(self.of(kind)) + count
        self.until(lambda: len(self.of(kind)) >= target, timeout)
        return self.of(kind)[target - 1]

    def call(self, service_type: Any, name: str, **fields: Any) -> Any:
        client = self.node.create_client(service_type, name)
        self.until(client.service_is_ready)
        future = client.call_async(service_type.Request(**fields))
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def command(self, positions: Any, names: tuple[str, ...] | None = None, stamp_ns: int = 0) -> None:
        self.until(lambda: self.commands.get_subscription_count() > 0)
        self.commands.publish(
            target_to_trajectory(names or self.rig.joint_names, positions, stamp_ns, self.rig.period_s)
        )

    def diagnostics(self) -> dict[str, str]:
        return {v.key: v.value for v in self.next("diagnostics").status[0].values}

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
