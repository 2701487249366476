"""The sim rig as a process: the topics of the rig file, commands obeyed or rejected, reset, pause, one instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hiwm_bringup.probe import Probe
from hiwm_bringup.processes import node_environment
from hiwm_bringup.testing import unique_domain
from hiwm_rig.codecs import stamp_to_ns
from hiwm_rig.contract import Rig
from hiwm_sim.ik import ArmKinematics

pytest.importorskip("rclpy")

PERIOD_NS = 100_000_000


def start(domain: int, *parameters: str) -> subprocess.Popen[str]:
    words = [word for p in parameters for word in ("-p", p)]
    command = [sys.executable, "-m", "hiwm_sim.node", "--ros-args", *words]
    return subprocess.Popen(
        command, env=node_environment(os.environ, domain), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    with unique_domain() as domain:
        yield domain


@pytest.fixture(scope="module")
def running(domain: int) -> Iterator[subprocess.Popen[str]]:
    process = start(domain, "seed:=3")
    yield process
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.fixture(scope="module")
def probe(running: subprocess.Popen[str], domain: int) -> Iterator[Probe]:
    with Probe(domain, "sim_rig_test") as probe:
        yield probe


@pytest.fixture(scope="module")
def heard(probe: Probe, rig: Rig) -> dict[str, list[Any]]:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import CameraInfo, Image, JointState

    camera = rig.cameras[0]
    heard = {
        "image": probe.listen(Image, camera.image_topic),
        "info": probe.listen(CameraInfo, camera.info_topic),
        "joints": probe.listen(JointState, rig.arms[0].joint_states),
        "diagnostics": probe.listen(DiagnosticArray, rig.topics.diagnostics),
    }
    probe.spin_until(lambda: len(heard["image"]) >= 5, 60, "five images")
    return heard


def newest(heard: dict[str, list[Any]], probe: Probe, key: str) -> Any:
    count = len(heard[key])
    probe.spin_until(lambda: len(heard[key]) > count + 1, 20, f"a new message on {key}")
    return heard[key][-1]


def test_images_infos_and_joint_states_share_their_stamps(heard: dict[str, list[Any]], probe: Probe, rig: Rig) -> None:
    newest(heard, probe, "image")
    stamps = {key: [stamp_to_ns(m.header.stamp) for m in heard[key]] for key in ("image", "info", "joints")}
    assert len(set(stamps["image"]) & set(stamps["info"]) & set(stamps["joints"])) >= 4
    assert np.all(np.diff(stamps["image"]) > 0)
    assert heard["image"][-1].encoding == "rgb8"
    assert heard["image"][-1].header.frame_id == rig.cameras[0].frame_id
    assert heard["info"][-1].distortion_model == "plumb_bob"
    assert tuple(heard["joints"][-1].name) == rig.joint_names


def test_a_command_is_obeyed_and_a_bad_one_is_rejected_and_counted(
    heard: dict[str, list[Any]], probe: Probe, rig: Rig
) -> None:
    from hiwm_rig.rig_node import qos_profile
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    publisher = probe.node.create_publisher(JointTrajectory, rig.arms[0].command, qos_profile(rig.qos.commands))
    target = ArmKinematics().inverse([0.25, 0.10, 0.10])

    def send(positions: list[float]) -> None:
        publisher.publish(
            JointTrajectory(joint_names=rig.joint_names, points=[JointTrajectoryPoint(positions=positions)])
        )
        probe.spin_for(0.05)

    def arrived() -> bool:
        send(target.tolist())
        return bool(np.allclose(heard["joints"][-1].position, target, atol=5e-3))

    probe.spin_until(arrived, 30, "the arm at its target")
    for bad in ([float("nan")] * 7, [9.0] * 7, [0.0] * 6):
        send(bad)
    probe.spin_for(1.2)
    counted = {v.key: v.value for v in newest(heard, probe, "diagnostics").status[0].values}
    assert int(counted["rejected_not_finite"]) >= 1
    assert int(counted["rejected_out_of_limits"]) >= 1
    assert int(counted["rejected_malformed"]) >= 1
    assert np.allclose(newest(heard, probe, "joints").position, target, atol=5e-3)


def test_a_reset_goes_home_to_the_state_of_the_seed(heard: dict[str, list[Any]], probe: Probe, rig: Rig) -> None:
    from hiwm_msgs.srv import Pause, Reset

    pictures = []
    for seed in (11, 12, 11):
        answer = probe.call(Reset, "/hiwm/reset", Reset.Request(seed=seed))
        assert answer.success
        message = newest(heard, probe, "image")
        assert np.allclose(heard["joints"][-1].position, rig.home, atol=5e-3)
        pictures.append(np.frombuffer(message.data, np.uint8).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.5
    assert np.abs(pictures[0] - pictures[2]).mean() < 0.2
    refused = probe.call(Reset, "/hiwm/reset", Reset.Request(source="bag", path="x"))
    assert not refused.success
    assert "bag" in refused.message
    assert probe.call(Pause, "/hiwm/pause", Pause.Request(paused=True)).message == "paused"
    newest(heard, probe, "image")  # goes on publishing
    assert probe.call(Pause, "/hiwm/pause", Pause.Request(paused=False)).message == "running"


def test_a_second_instance_refuses_to_start(heard: dict[str, list[Any]], domain: int) -> None:
    second = start(domain, "discovery_s:=5.0")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "/camera/front/color/image_raw is already published by" in output


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("task:=juggle", ["juggle", "push_t"]),
        ("variation:=neon", ["neon", "background"]),
        ("rig_file:=absent", ["absent", "push_t"]),
    ],
)
def test_an_unusable_parameter_ends_the_node_with_one_clear_line(parameter: str, words: list[str]) -> None:
    with unique_domain() as domain:
        process = start(domain, parameter, "discovery_s:=0.0")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    line = next(text for text in output.splitlines() if text.startswith("error:"))
    assert all(word in line for word in words)
