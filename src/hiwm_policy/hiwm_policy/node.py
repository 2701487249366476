"""The policy node: aligned camera frames and joint states in, chunks of joint targets out, inference on the side.

It does not know which rig it watches. A chunk computed from anything before an episode event is never published.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hiwm_rig.codecs import (
    NS_PER_S,
    Chunk,
    CodecError,
    chunk_to_trajectory,
    image_to_array,
    joint_state_to_sample,
    stamp_to_ns,
)
from hiwm_rig.contract import Arm, Camera, Rig
from hiwm_rig.rig_node import (
    LATCHED,
    DiagnosticsReporter,
    StartupError,
    declare_rig,
    qos_profile,
    run_node,
)
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.streams import StreamBuffer
from hiwm_rig.types import Driver, FloatArray, Observation
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState, EpisodeEvent
from hiwm_policy.policy import Policy, PolicyError, load_policy
from hiwm_policy.runner import ChunkedRunner, Request
from hiwm_policy.worker import LatestWorker

PACE = 0.7
"""Fraction of a control period before which no further observation is made: frames may come early, but not twice."""
LATENCIES = 500
"""Inference times kept for the percentiles."""


class PolicyNode(Node):
    """Parameters: ``rig_file``, ``policy`` (directory), ``seed`` (< 0: not reproducible), ``device``, ``threads``."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._rig = declare_rig(self)
        directory = str(self.declare_parameter("policy", "").value)
        seed = self.declare_parameter("seed", -1).value
        device = str(self.declare_parameter("device", "cpu").value)
        torch.set_num_threads(int(self.declare_parameter("threads", 1).value or 1))
        self._seed = int(seed) if seed is not None else -1
        self._runner = ChunkedRunner(open_policy(directory, device, self._rig), self._rig.joints)
        self._lock = threading.Lock()  # guards the epoch against publishing: see _infer and _on_event
        self._not_before_ns = 0
        self._newest_ns = 0
        self._person_drives = False
        self._failure: Exception | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES)
        self._counters: Counter[str] = Counter(observations=0, events=0, chunks=0, chunks_dropped=0, requests_dropped=0)
        self._tolerance_ns = round(0.5 * self._rig.period_s * NS_PER_S)
        self._pace_ns = round(PACE * self._rig.period_s * NS_PER_S)
        self._streams = StreamBuffer(
            [*(_image_key(c) for c in self._rig.cameras), *(_joint_key(a) for a in self._rig.arms)]
        )
        self._only = [SinglePublisher(self, arm.policy_command) for arm in self._rig.arms]
        commands = qos_profile(self._rig.qos.commands)
        self._chunk_publishers = [
            self.create_publisher(JointTrajectory, a.policy_command, commands) for a in self._rig.arms
        ]
        self._failed = self.create_guard_condition(self._raise_failure)
        self._warm_up()
        self._worker: LatestWorker[Request] = LatestWorker(self._infer, self._on_failure)
        self._subscribe()
        DiagnosticsReporter(self, self._diagnostics, self._rig.topics.diagnostics)
        self.get_logger().info(f"policy {directory}: a chunk every {self._runner.execute} frames")

    def close(self) -> None:
        """Stop the inference thread."""
        self._worker.close()

    def _subscribe(self) -> None:
        rig = self._rig
        # Events first: with events and frames waiting, the executor takes subscriptions in the order of their creation.
        self.create_subscription(EpisodeEvent, rig.topics.episode, self._on_event, LATCHED)
        self.create_subscription(ControlState, rig.topics.control_state, self._on_control_state, 10)
        images, states = qos_profile(rig.qos.images), qos_profile(rig.qos.joint_states)
        for arm in rig.arms:
            self.create_subscription(JointState, arm.joint_states, partial(self._on_joints, arm), states)
        for camera in rig.cameras:
            self.create_subscription(Image, camera.image_topic, partial(self._on_image, camera), images)

    # -- messages in -------------------------------------------------------------------------------------------

    def _on_event(self, msg: EpisodeEvent) -> None:
        with self._lock:
            self._counters["events"] += 1
            self._not_before_ns = stamp_to_ns(msg.header.stamp)
            self._newest_ns = 0
            self._streams.clear()
            epoch = self._runner.epoch + 1
            self._runner.reset(self._seed + epoch if self._seed >= 0 else None)

    def _on_control_state(self, msg: ControlState) -> None:
        self._person_drives = msg.driver in (Driver.ALIGNING, Driver.HUMAN)

    def _on_joints(self, arm: Arm, msg: JointState) -> None:
        self._take(_joint_key(arm), msg, lambda: joint_state_to_sample(msg, arm.joint_names).positions)

    def _on_image(self, camera: Camera, msg: Image) -> None:
        def decode() -> np.ndarray:
            image = image_to_array(msg)
            if image.shape[:2] != (camera.height, camera.width):
                raise CodecError(f"image must be {camera.width}x{camera.height}, got {image.shape[1]}x{image.shape[0]}")
            return image

        self._take(_image_key(camera), msg, decode)

    def _take(self, key: str, msg: Any, decode: Callable[[], np.ndarray]) -> None:
        stamp_ns = stamp_to_ns(msg.header.stamp)
        if stamp_ns < self._not_before_ns:
            self._counters["before_event"] += 1
            return
        try:
            value = decode()
        except CodecError as error:
            self._counters[f"rejected_{key}"] += 1
            self.get_logger().warning(f"{key}: {error}", throttle_duration_sec=1.0)
            return
        self._streams.push(key, stamp_ns, value)
        self._advance()

    def _advance(self) -> None:
        """Hand the newest complete observation to the runner, and ask for a chunk where one is due."""
        found = self._streams.latest(self._tolerance_ns)
        # Joint states of a physical rig come many times per image: one observation per control period.
        if found is None or found[0] - self._newest_ns < self._pace_ns:
            return
        self._newest_ns = found[0]
        self._counters["observations"] += 1
        self._runner.observe(self._observation(*found))
        # While a person drives, every frame: at the hand-back the arbiter then holds a chunk for where the arm is now.
        if self._runner.due(1 if self._person_drives else None) and not self._worker.submit(self._runner.snapshot()):
            self._counters["requests_dropped"] += 1

    def _observation(self, stamp_ns: int, values: Mapping[str, Any]) -> Observation:
        joints: FloatArray = np.concatenate([values[_joint_key(a)] for a in self._rig.arms])
        return Observation({c.name: values[_image_key(c)] for c in self._rig.cameras}, joints, stamp_ns)

    # -- chunks out --------------------------------------------------------------------------------------------

    def _infer(self, request: Request) -> None:
        """In the worker's thread."""
        started = time.perf_counter()
        chunk = self._runner.infer(request)
        self._latencies_ms.append(1e3 * (time.perf_counter() - started))
        with self._lock:  # no event can come between the question and the publishing
            if self._runner.accept(request):
                self._publish(chunk, request.stamp_ns)
                self._counters["chunks"] += 1
            else:
                self._counters["chunks_dropped"] += 1

    def _publish(self, chunk: npt.NDArray[np.float64], stamp_ns: int) -> None:
        offsets: npt.NDArray[np.float64] = np.arange(1, len(chunk) + 1, dtype=np.float64) * self._rig.period_s
        start = 0
        for arm, publisher in zip(self._rig.arms, self._chunk_publishers, strict=True):
            part = chunk[:, start : start + len(arm.joints)]
            start += len(arm.joints)
            publisher.publish(chunk_to_trajectory(arm.joint_names, Chunk(stamp_ns, offsets, part)))

    def _warm_up(self) -> None:
        """One chunk from nothing, so that the first real one is not the slow one."""
        rig = self._rig
        images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in rig.cameras}
        self._runner.observe(Observation(images, np.array(rig.home), 0))
        self._runner.infer(self._runner.snapshot())
        self._runner.reset(self._seed if self._seed >= 0 else None)

    def _on_failure(self, error: Exception) -> None:
        self._failure = error
        self._failed.trigger()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _diagnostics(self) -> dict[str, Any]:
        times = list(self._latencies_ms) or [0.0]
        p50, p99 = (round(float(v), 1) for v in np.percentile(times, [50, 99]))
        return {**self._counters, **self._streams.counters, "inference_ms_p50": p50, "inference_ms_p99": p99}


def _image_key(camera: Camera) -> str:
    return f"image_{camera.name}"


def _joint_key(arm: Arm) -> str:
    return f"joints_{arm.name}"


def open_policy(directory: str, device: str, rig: Rig) -> Policy:
    """Load a checkpoint for a rig.

    Raises:
        StartupError: if there is none, or it was trained for another rig; the text says what to do.
    """
    if not directory:
        raise StartupError("parameter 'policy' must name a policy directory, for example policy:=models/push_t_base")
    try:
        policy = load_policy(Path(directory), device)
        policy.spec.check_rig(rig)
    except PolicyError as error:
        raise StartupError(str(error)) from error
    return policy


def main() -> None:
    """Entry point of the executable ``policy``."""
    sys.exit(run_node(PolicyNode))


if __name__ == "__main__":
    main()
