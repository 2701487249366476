"""The policy node over DDS, as a process of its own and (to stretch its inference) in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_policy.diffusion import DiffusionConfig, DiffusionPolicy
from hiwm_policy.policy import CameraInput, PolicyObservation, PolicySpec
from hiwm_policy.testing import RIG_YAML, SMALL
from hiwm_rig.contract import Rig

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from hiwm_bringup.testing import Probe, unique_domain  # noqa: E402
from hiwm_rig.codecs import array_to_image, ns_to_stamp, sample_to_joint_state, stamp_to_ns  # noqa: E402
from hiwm_rig.rig_node import LATCHED, qos_profile  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from hiwm_msgs.msg import ControlState, EpisodeEvent  # noqa: E402

pytestmark = pytest.mark.timeout(300)
PERIOD_NS = 100_000_000
START_NS = 1_000_000_000_000
NAMES = ("x", "y", "fixed")


class FakeRig:
    """Publishes frames with the stamps a test chooses, and listens to the chunks."""

    def __init__(self, domain: int, rig: Rig) -> None:
        self.probe = Probe(domain)
        node = self.probe.node
        self.images = node.create_publisher(Image, "/camera/front/color/image_raw", qos_profile(rig.qos.images))
        self.joints = node.create_publisher(JointState, "/follower/joint_states", qos_profile(rig.qos.joint_states))
        self.events = node.create_publisher(EpisodeEvent, "/hiwm/episode", LATCHED)
        self.control = node.create_publisher(ControlState, "/hiwm/control_state", 10)
        self.before: dict[str, float] = {}
        self.chunks = self.probe.listen(JointTrajectory, "/policy/joint_trajectory")
        self.diagnostics = self.probe.listen(DiagnosticArray, "/diagnostics")
        for publisher in (self.images, self.joints, self.events, self.control):
            self.probe.spin_until(lambda p=publisher: p.get_subscription_count() > 0, 90, "the policy node")
        self.probe.spin_until(lambda: node.count_publishers("/policy/joint_trajectory") > 0, 90, "the policy node")
        self.probe.spin_for(0.3)

    def show(self, stamp_ns: int) -> None:
        self.joints.publish(sample_to_joint_state(NAMES, np.array([0.1, 0.2, 0.009]), stamp_ns))
        self.images.publish(array_to_image(np.zeros((32, 32, 3), np.uint8), stamp_ns, "front_color_optical_frame"))
        self.probe.spin_for(0.1)

    def event(self, stamp_ns: int, kind: int = EpisodeEvent.ROLLBACK) -> None:
        msg = EpisodeEvent(type=kind, episode_id="e")
        msg.header.stamp = ns_to_stamp(stamp_ns)
        self.events.publish(msg)
        self.probe.spin_for(0.2)

    def wait_for_chunks(self, count: int) -> list[int]:
        self.probe.spin_until(lambda: len(self.chunks) >= count, 20, f"{count} chunks")
        return self.stamps()

    def stamps(self) -> list[int]:
        return [(stamp_to_ns(c.header.stamp) - START_NS) // PERIOD_NS for c in self.chunks]

    def counters(self) -> dict[str, float]:
        del self.diagnostics[:]
        self.probe.spin_until(lambda: bool(self.diagnostics), 10, "diagnostics")
        return {v.key: float(v.value) for v in self.diagnostics[-1].status[0].values}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("node")
    (root / "tiny.yaml").write_text(RIG_YAML)
    torch.manual_seed(0)
    camera = CameraInput(name="front", height=32, width=32)
    spec = PolicySpec(cameras=(camera,), joint_names=NAMES, rate_hz=10.0, horizon=12, execute=4)
    DiffusionPolicy(DiffusionConfig(spec=spec, **SMALL)).save(root / "policy")
    return root


def start(files: Path, domain: int, **parameters: object) -> subprocess.Popen[str]:
    given = {"policy": files / "policy", "rig_file": files / "tiny.yaml", **parameters}
    arguments = [word for key, value in given.items() if value != "" for word in ("-p", f"{key}:={value}")]
    return subprocess.Popen(
        [sys.executable, "-m", "hiwm_policy.node", "--ros-args", *arguments],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def running(files: Path, tiny_rig: Rig) -> Iterator[FakeRig]:
    """One node process for all tests: starting it takes longer than testing it."""
    with unique_domain() as domain:
        process = start(files, domain)
        fake = FakeRig(domain, tiny_rig)
        yield fake
        fake.probe.close()
        process.terminate()
        process.wait(10)


@pytest.fixture
def rig(running: FakeRig) -> FakeRig:
    """The running node at the begin of a new episode, which starts at time zero."""
    running.control.publish(ControlState(driver=ControlState.POLICY))
    running.event(START_NS, EpisodeEvent.BEGIN)
    running.chunks.clear()
    running.before = running.counters()
    return running


def test_joint_states_that_come_ten_times_per_image_make_one_observation_per_image(rig: FakeRig) -> None:
    before = rig.counters()["observations"]
    for k in range(30):
        stamp = START_NS + k * PERIOD_NS // 10
        rig.joints.publish(sample_to_joint_state(NAMES, np.array([0.1, 0.2, 0.009]), stamp))
        if k % 10 == 0:
            image = np.zeros((32, 32, 3), np.uint8)
            rig.images.publish(array_to_image(image, stamp + PERIOD_NS // 20, "front_color_optical_frame"))
        rig.probe.spin_for(0.02)
    assert rig.counters()["observations"] - before == 3


def test_chunks_are_timed_from_their_observation_and_come_every_few_frames(rig: FakeRig) -> None:
    for step in range(9):
        rig.show(START_NS + step * PERIOD_NS)
    assert rig.wait_for_chunks(3) == [0, 4, 8]  # at once, then every `execute` frames
    chunk = rig.chunks[0]
    assert list(chunk.joint_names) == list(NAMES) and len(chunk.points) == 12
    offsets = [stamp_to_ns(p.time_from_start) for p in chunk.points]
    assert offsets == [(j + 1) * PERIOD_NS for j in range(12)]
    targets = np.array([p.positions for p in chunk.points])
    assert np.isfinite(targets).all() and (np.abs(targets[:, :2]) <= 1).all()


def test_nothing_from_before_an_event_is_published_after_it(rig: FakeRig) -> None:
    for step in range(3):
        rig.show(START_NS + step * PERIOD_NS)
    assert rig.wait_for_chunks(1) == [0]
    rig.event(START_NS + 20 * PERIOD_NS)
    for step in range(3, 15):  # frames of the old branch that were under way
        rig.show(START_NS + step * PERIOD_NS)
    assert rig.stamps() == [0]
    rig.show(START_NS + 20 * PERIOD_NS)
    assert rig.wait_for_chunks(2) == [0, 20]  # and the first frame of the new branch gets a chunk at once
    assert rig.counters()["before_event"] - rig.before.get("before_event", 0) >= 12


def test_images_and_joints_of_different_frames_are_not_mixed(rig: FakeRig) -> None:
    rig.joints.publish(sample_to_joint_state(NAMES, np.zeros(3), START_NS))
    rig.images.publish(array_to_image(np.zeros((32, 32, 3), np.uint8), START_NS + 5 * PERIOD_NS, "f"))
    rig.probe.spin_for(0.5)
    assert rig.chunks == []


def test_while_a_person_drives_every_frame_gets_a_chunk(rig: FakeRig) -> None:
    rig.control.publish(ControlState(driver=ControlState.HUMAN))
    rig.probe.spin_for(0.3)
    for step in range(3):
        rig.show(START_NS + step * PERIOD_NS)
    assert rig.wait_for_chunks(3) == [0, 1, 2]


def test_bad_messages_are_counted_and_the_node_lives_on(rig: FakeRig) -> None:
    rig.joints.publish(sample_to_joint_state(("x", "y", "other"), np.zeros(3), START_NS))
    rig.joints.publish(sample_to_joint_state(NAMES, np.array([np.nan, 0, 0]), START_NS))
    rig.images.publish(array_to_image(np.zeros((16, 16, 3), np.uint8), START_NS, "f"))
    rig.probe.spin_for(0.3)
    rig.show(START_NS + PERIOD_NS)
    assert rig.wait_for_chunks(1) == [1]
    counters = rig.counters()
    assert counters["rejected_joints_follower"] == 2 and counters["rejected_image_front"] == 1
    assert counters["chunks"] == rig.before["chunks"] + 1 and counters["inference_ms_p99"] > 0


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"policy": ""}, "parameter 'policy' must name a policy directory"),
        ({"policy": "/nowhere"}, "no policy checkpoint here"),
        ({"rig_file": "push_t"}, "the policy expects"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_line(
    files: Path, parameters: dict[str, str], expected: str
) -> None:
    with unique_domain() as domain:
        process = start(files, domain, **parameters)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert expected in errors and "Traceback" not in errors


def test_a_second_policy_node_refuses_to_start(files: Path, rig: FakeRig) -> None:
    domain = rig.probe.node.context.get_domain_id()
    process = start(files, domain)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "already published" in errors


class SlowPolicy(DiffusionPolicy):
    """Takes its time, so that an event can come in the middle of an inference."""

    entered = threading.Event()
    release = threading.Event()
    slow = False

    def predict_action(self, observation: PolicyObservation) -> np.ndarray:
        if SlowPolicy.slow:
            SlowPolicy.entered.set()
            SlowPolicy.release.wait(10)
        return super().predict_action(observation)


@pytest.fixture
def slow_node(files: Path, tiny_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRig]:
    from rclpy.executors import SingleThreadedExecutor

    from hiwm_policy import node as node_module

    monkeypatch.setattr(node_module, "load_policy", lambda directory, device: SlowPolicy.load(directory, device))
    with unique_domain() as domain:
        words = ["-p", f"policy:={files / 'policy'}", "-p", f"rig_file:={files / 'tiny.yaml'}"]
        rclpy.init(args=["--ros-args", *words], domain_id=domain)
        node = node_module.PolicyNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spinner = threading.Thread(target=executor.spin, daemon=True)
        spinner.start()
        SlowPolicy.slow = True
        fake = FakeRig(domain, tiny_rig)
        yield fake
        SlowPolicy.slow = False
        SlowPolicy.release.set()
        fake.probe.close()
        executor.shutdown()
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
        spinner.join(5)


def test_an_inference_that_an_event_overtakes_is_dropped_and_callbacks_never_wait_for_it(slow_node: FakeRig) -> None:
    slow_node.show(START_NS)
    assert _within(5, SlowPolicy.entered.is_set)
    slow_node.event(START_NS + 2 * PERIOD_NS, EpisodeEvent.BRANCH)  # handled while the inference is stuck
    slow_node.show(START_NS + 2 * PERIOD_NS)
    counters = slow_node.counters()
    assert counters["events"] == 1 and counters["observations"] == 2 and counters["chunks"] == 0
    SlowPolicy.slow = False
    SlowPolicy.release.set()
    assert slow_node.wait_for_chunks(1) == [2]
    assert slow_node.counters()["chunks_dropped"] == 1


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()
