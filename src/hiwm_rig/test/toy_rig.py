"""A rig in a few lines, for tests of the conformance suite: an arm that follows its target, a camera that shows noise.

Its methods are the places where a rig can go wrong; a fault replaces one of them (see ``wrong_rigs.py``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from hiwm_rig.codecs import array_to_image, camera_to_info, sample_to_joint_state
from hiwm_rig.commands import CommandReceiver, limit_velocity
from hiwm_rig.conformance.settings import Settings
from hiwm_rig.contract import Rig, parse_rig
from hiwm_rig.rig_node import qos_profile
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.srv import Reset

RIG_FILE = """
name: toy
control_rate_hz: 20
arms:
  - joints:
      - {name: a, lower: -1.5, upper: 1.5, max_velocity: 3.0}
      - {name: b, lower: -1.0, upper: 1.0, max_velocity: 3.0}
      - {name: c, type: prismatic, lower: 0.0, upper: 0.1, max_velocity: 0.3}
    home: [0.1, 0.2, 0.05]
    state_rate_hz: 20
cameras: [{name: eye, width: 32, height: 24, rate_hz: 10}]
timeouts: {command_s: 0.8}
"""
RIG: Rig = parse_rig(RIG_FILE)
SETTINGS = Settings(
    window_s=1.2, chunk_s=0.5, start_s=5.0, reset_s=5.0, settle_s=4.0, rate_tolerance=0.45, jitter_s=0.08, latency_s=0.1
)
Fault = Callable[["ToyRig"], None]


class ToyRig:
    """A correct rig, until a fault replaces one of its methods; runs in a thread of its own.

    Args:
        domain: ROS_DOMAIN_ID.
        fault: applied before anything is published.
    """

    def __init__(self, domain: int, fault: Fault | None = None) -> None:
        arm, camera = RIG.arms[0], RIG.cameras[0]
        self.arm, self.camera = arm, camera
        self.types = SimpleNamespace(image=Image, info=CameraInfo, state=JointState, diagnostics=DiagnosticArray)
        self.qos = SimpleNamespace(
            image=qos_profile(RIG.qos.images),
            info=qos_profile(RIG.qos.images),
            state=qos_profile(RIG.qos.joint_states),
            command=qos_profile(RIG.qos.commands),
        )
        self.listens, self.use_sim_time, self.publishes_diagnostics = True, False, True
        self.receiver = CommandReceiver(arm.joints, np.array(arm.home), RIG.timeouts.command_s)
        self.limits = np.array([j.max_velocity for j in arm.joints])
        self.position, self.velocity = np.array(arm.home), np.zeros(len(arm.joints))
        self.tick, self.resets, self.moved_ns = 0, 0, self.now()
        if fault is not None:
            fault(self)
        self._open(domain)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _open(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        parameters = [Parameter("use_sim_time", value=self.use_sim_time)]
        self.node = rclpy.create_node("toy_rig", context=self.context, parameter_overrides=parameters)
        node, arm, camera = self.node, self.arm, self.camera
        self.image_pub = node.create_publisher(self.types.image, camera.image_topic, self.qos.image)
        self.info_pub = node.create_publisher(self.types.info, camera.info_topic, self.qos.info)
        self.state_pub = node.create_publisher(self.types.state, arm.joint_states, self.qos.state)
        if self.publishes_diagnostics:
            self.diagnostics_pub = node.create_publisher(self.types.diagnostics, RIG.topics.diagnostics, 10)
            node.create_timer(0.25, self.report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self.listens:
            node.create_subscription(JointTrajectory, arm.command, self.take, self.qos.command)
        node.create_service(Reset, "/hiwm/reset", self.on_reset)
        node.create_timer(RIG.period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(node)

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        """Leave the domain."""
        self._stop.set()
        self._thread.join(10.0)
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def now(self) -> int:
        return time.time_ns()

    def _tick(self) -> None:
        self.tick += 1
        stamp = self.now()
        # On a busy machine ticks come late and then in bursts; an arm goes by the time that has passed.
        passed_s, self.moved_ns = max((stamp - self.moved_ns) / 1e9, 1e-6), stamp
        before = self.position
        self.position = self.move(self.aim(stamp), min(passed_s, 2 * RIG.period_s))
        self.velocity = (self.position - before) / passed_s
        self.emit_state(stamp)
        if self.tick % 2 == 0:
            self.emit_picture(stamp)

    # -- what a fault may replace -----------------------------------------------------------------------------------

    def take(self, msg: JointTrajectory) -> None:
        self.receiver.offer_message(msg, self.now())

    def aim(self, now: int) -> np.ndarray:
        return self.receiver.target(now, now).positions

    def move(self, target: np.ndarray, passed_s: float) -> np.ndarray:
        return limit_velocity(self.position, target, self.limits, passed_s)

    def state(self, stamp: int) -> JointState | None:
        return sample_to_joint_state(self.arm.joint_names, self.position, stamp, self.velocity)

    def picture(self, stamp: int) -> Image | None:
        pixels = np.random.default_rng(self.tick).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        return array_to_image(pixels, stamp, self.camera.frame_id)

    def info(self, stamp: int) -> CameraInfo:
        return camera_to_info(self.camera, stamp)

    def emit_state(self, stamp: int) -> None:
        msg = self.state(stamp)
        if msg is not None:
            self.state_pub.publish(msg)

    def emit_picture(self, stamp: int) -> None:
        msg = self.picture(stamp)
        if msg is not None:
            self.image_pub.publish(msg)
            self.info_pub.publish(self.info(stamp))

    def report(self) -> None:
        values = [KeyValue(key=k, value=str(v)) for k, v in self.receiver.counters.items()]
        self.diagnostics_pub.publish(DiagnosticArray(status=[DiagnosticStatus(name="toy", values=values)]))

    def on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        if request.source not in ("", "library"):
            response.success, response.message = False, "no such source"
            return response
        self.resets += 1
        self.restore()
        response.success = True
        return response

    def restore(self) -> None:
        self.position = np.array(self.arm.home)
        self.receiver.hold(self.position)


def edit(rig: ToyRig, method: str, change: Callable[[Any], Any]) -> None:
    """Let a method of a rig return what ``change`` makes of its result; None stays None."""
    original = getattr(rig, method)

    def edited(*args: Any) -> Any:
        result = original(*args)
        return None if result is None else change(result)

    setattr(rig, method, edited)
