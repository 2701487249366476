"""ROS side of the rig contract: what every rig node and every user of a rig shares. Needs rclpy."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
import rclpy.executors
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_rig.codecs import array_to_image, camera_to_info, ns_to_stamp, sample_to_joint_state
from hiwm_rig.commands import CommandReceiver
from hiwm_rig.contract import Qos, Rig, RigFileError, load_rig
from hiwm_rig.types import FloatArray, Observation

EXIT_ERROR = 1
EXIT_USAGE = 2

LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""QoS of the episode topic: a late joiner still learns which episode runs."""


class StartupError(RuntimeError):
    """A node that cannot start; the text tells the user what to do. No traceback is shown."""


def qos_profile(qos: Qos) -> QoSProfile:
    """The rclpy profile of a rig file's QoS."""
    reliable = qos.reliability == "reliable"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def now_ns(node: Node) -> int:
    """The node's clock (wall or ``/clock``) in nanoseconds."""
    return int(node.get_clock().now().nanoseconds)


def declare_rig(node: Node, default: str = "push_t") -> Rig:
    """Declare the parameter ``rig_file`` (name of a shipped rig, or a path) and load it.

    Raises:
        StartupError: naming the file, the key and what was expected.
    """
    source = str(node.declare_parameter("rig_file", default).value)
    try:
        return load_rig(source)
    except RigFileError as error:
        raise StartupError(str(error)) from error


class RigPublisher:
    """The output of a rig: images, camera infos and joint states, all with the observation's stamp.

    Args:
        node: owner of the publishers.
        rig: the contract.
        camera_infos: calibrated ``CameraInfo`` by camera name; others are made from the rig file.
    """

    def __init__(self, node: Node, rig: Rig, camera_infos: Mapping[str, CameraInfo] | None = None) -> None:
        self._rig = rig
        images, states = qos_profile(rig.qos.images), qos_profile(rig.qos.joint_states)
        self._infos = {c.name: camera_to_info(c, 0) for c in rig.cameras} | dict(camera_infos or {})
        self._images = {c.name: node.create_publisher(Image, c.image_topic, images) for c in rig.cameras}
        self._info_pubs = {c.name: node.create_publisher(CameraInfo, c.info_topic, images) for c in rig.cameras}
        self._joints = [node.create_publisher(JointState, a.joint_states, states) for a in rig.arms]

    def publish(self, observation: Observation) -> None:
        """Publish one observation: joint states first (small), then images.

        Raises:
            KeyError: a camera of the rig is missing in the observation.
        """
        stamp_ns = observation.stamp_ns
        start = 0
        for arm, publisher in zip(self._rig.arms, self._joints, strict=True):
            part = slice(start, start + len(arm.joints))
            start = part.stop
            velocities = observation.velocities[part] if observation.velocities.size else None
            publisher.publish(sample_to_joint_state(arm.joint_names, observation.joints[part], stamp_ns, velocities))
        for camera in self._rig.cameras:
            info = self._infos[camera.name]
            info.header.stamp = ns_to_stamp(stamp_ns)
            self._info_pubs[camera.name].publish(info)
            image = array_to_image(observation.images[camera.name], stamp_ns, camera.frame_id, camera.encoding)
            self._images[camera.name].publish(image)


class RigCommands:
    """The input of a rig: one validated command receiver per arm, fed by its topic.

    Args:
        node: owner of the subscriptions.
        rig: the contract.
        clock: the rig's time in ns; the node's clock by default. A rig that publishes ``/clock`` passes its own.
        on_accepted: called after each command that was taken.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        clock: Callable[[], int] | None = None,
        on_accepted: Callable[[], None] | None = None,
    ) -> None:
        self._node = node
        self._rig = rig
        self._clock = clock or (lambda: now_ns(node))
        self._on_accepted = on_accepted
        self.receivers: list[CommandReceiver] = []
        for arm in rig.arms:
            receiver = CommandReceiver(arm.joints, np.array(arm.home), rig.timeouts.command_s)
            self.receivers.append(receiver)
            node.create_subscription(
                JointTrajectory, arm.command, self._callback(receiver, arm.name), qos_profile(rig.qos.commands)
            )

    def target(self, at_ns: int, now: int) -> np.ndarray:
        """(D,) targets of all arms for the position due at ``at_ns``; held where nothing valid is in force."""
        return np.concatenate([r.target(at_ns, now).positions for r in self.receivers])

    def hold(self, joints: FloatArray) -> None:
        """Forget all commands and hold (D,) positions: after a reset or a rollback."""
        start = 0
        for arm, receiver in zip(self._rig.arms, self.receivers, strict=True):
            receiver.hold(joints[start : start + len(arm.joints)])
            start += len(arm.joints)

    def counters(self) -> dict[str, int]:
        """Counters of all receivers together, for diagnostics."""
        total: dict[str, int] = {}
        for receiver in self.receivers:
            for key, value in receiver.counters.items():
                total[key] = total.get(key, 0) + value
        return total

    def last_rejection(self) -> str:
        """Why the last rejected command was rejected, of each arm that has one; for diagnostics."""
        return "; ".join(r.last_rejection.message for r in self.receivers if r.last_rejection is not None)

    def _callback(self, receiver: CommandReceiver, arm: str) -> Callable[[JointTrajectory], None]:
        def on_command(msg: JointTrajectory) -> None:
            rejection = receiver.offer_message(msg, self._clock())
            if rejection is None:
                if self._on_accepted is not None:
                    self._on_accepted()
            else:
                text = f"command for arm '{arm}' rejected: {rejection.message}"
                self._node.get_logger().warning(text, throttle_duration_sec=1.0)

        return on_command


class DiagnosticsReporter:
    """Publishes a node's counters on ``/diagnostics`` once a second.

    Args:
        node: owner.
        counters: called on each report; any counter named ``rejected_*``, ``dropped*``, ``missed*`` or ``failed*`` that
            grew since the last report makes the status WARN.
        topic: from the rig file.
    """

    _BAD = ("rejected_", "dropped", "missed", "failed")

    def __init__(
        self, node: Node, counters: Callable[[], Mapping[str, Any]], topic: str = "/diagnostics", period_s: float = 1.0
    ) -> None:
        self._node = node
        self._counters = counters
        self._last: dict[str, float] = {}
        self._publisher = node.create_publisher(DiagnosticArray, topic, 10)
        self._timer = node.create_timer(period_s, self.report)

    def report(self) -> None:
        """Publish now."""
        values = dict(self._counters())
        grown = [k for k, v in values.items() if k.startswith(self._BAD) and float(v) > self._last.get(k, 0.0)]
        self._last = {k: float(v) for k, v in values.items() if k.startswith(self._BAD)}
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if grown else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name(),
            message=", ".join(f"{k} now {values[k]}" for k in grown) or "ok",
            hardware_id=self._node.get_name(),
            values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def run_node(factory: Callable[[], Node], args: list[str] | None = None, threads: int = 1) -> int:
    """Run one node until Ctrl-C: the ``main`` of every node.

    Args:
        factory: makes the node; a :class:`StartupError` it raises is shown as one line. Where the node has a method
            ``close``, it is called on the way out, whatever happened.
        args: command line; None for ``sys.argv``.
        threads: executor threads; 1 keeps all callbacks in one thread.

    Returns:
        0 after Ctrl-C or SIGTERM, 1 after an error in a callback, 2 where it could not start.
    """
    rclpy.init(args=args)
    try:
        node = factory()
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        rclpy.try_shutdown()
        return EXIT_USAGE
    except (KeyboardInterrupt, ExternalShutdownException):
        rclpy.try_shutdown()
        return 0
    except Exception:
        if not rclpy.ok():
            return 0  # Ctrl-C while starting: whatever was under way failed because of it
        traceback.print_exc()
        rclpy.try_shutdown()
        return EXIT_USAGE
    return _spin(node, threads)


def _spin(node: Node, threads: int) -> int:
    executor: Any
    if threads > 1:
        executor = rclpy.executors.MultiThreadedExecutor(num_threads=threads)
    else:
        executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)
    # What start-up has made stays. A full collection that walks through all of it would hold every callback meanwhile.
    gc.collect()
    gc.freeze()
    code = 0
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = EXIT_USAGE
    except Exception:
        # Ctrl-C invalidates the context at any moment; a callback that was publishing then fails because of it.
        if rclpy.ok():
            traceback.print_exc()
            code = EXIT_ERROR
    finally:
        close = getattr(node, "close", None)
        if callable(close):
            close()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return code
