"""The camera node as a process: the stand-in's topics, and what a missing or wrong camera looks like to its users."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hiwm_bringup.processes import node_environment
from hiwm_bringup.testing import Probe, unique_domain
from hiwm_rig.codecs import stamp_to_ns
from hiwm_rig.contract import load_rig
from hiwm_rig.realsense import node as node_module
from hiwm_rig.realsense.camera import CameraState, RealsenseCamera
from hiwm_rig.realsense.stand_in import SoftwareCamera
from hiwm_rig.rig_node import qos_profile
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

pytest.importorskip("pyrealsense2")
START_S = 90.0
RIG = """
name: bench
arms: [{joints: [{name: a, lower: -1, upper: 1, max_velocity: 1}], home: [0]}]
cameras: [{name: front, width: 96, height: 64, rate_hz: 15, hardware: {width: 160, height: 120, depth: true}}]
"""


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    path = tmp_path / "bench.yaml"
    path.write_text(RIG)
    return path


@contextmanager
def camera_node(domain: int, *parameters: str) -> Iterator[subprocess.Popen[str]]:
    """A camera node; its output can be read once it has ended."""
    words = [word for p in parameters for word in ("-p", p)]
    command = [sys.executable, "-m", "hiwm_rig.realsense.node", "--ros-args", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=node_environment(os.environ, domain), **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_the_stand_in_has_the_topics_of_realsense2_camera(rig_file):
    camera = load_rig(rig_file).cameras[0]
    with unique_domain() as domain, camera_node(domain, f"rig_file:={rig_file}", "stand_in:=true") as process:
        with Probe(domain) as probe:
            qos = qos_profile(load_rig(rig_file).qos.images)
            images = probe.listen(Image, "/camera/front/color/image_raw", qos)
            infos = probe.listen(CameraInfo, "/camera/front/color/camera_info", qos)
            depths = probe.listen(Image, "/camera/front/aligned_depth_to_color/image_raw", qos)
            depth_infos = probe.listen(CameraInfo, "/camera/front/aligned_depth_to_color/camera_info", qos)
            probe.spin_until(lambda: min(map(len, (images, infos, depths, depth_infos))) >= 10, START_S, "pictures")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert (images[-1].encoding, images[-1].header.frame_id) == ("rgb8", "front_color_optical_frame")
    assert (images[-1].width, images[-1].height) == (camera.width, camera.height)
    assert (depths[-1].encoding, depths[-1].header.frame_id) == ("16UC1", "front_color_optical_frame")
    assert np.median(np.frombuffer(depths[-1].data, "<u2")) == 500
    assert infos[-1].distortion_model == "plumb_bob" and infos[-1].d[0] == pytest.approx(0.05)
    stamps = {name: {stamp_to_ns(m.header.stamp) for m in got} for name, got in (("i", images), ("d", depths))}
    assert len(stamps["i"] & stamps["d"]) >= 8, "depth belongs to its picture"
    assert np.median(np.diff(sorted(stamps["i"]))) == pytest.approx(1e9 / 15, rel=0.1)


def test_a_missing_camera_is_an_error_on_diagnostics_within_two_seconds(rig_file):
    with unique_domain() as domain, Probe(domain) as probe:
        heard: list[tuple[float, DiagnosticStatus]] = []
        probe.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: heard.append((time.monotonic(), m.status[0])), 10
        )
        with camera_node(domain, f"rig_file:={rig_file}", "serial:=123456", "discovery_s:=0.0") as process:
            # From the moment the node exists: the start of a process is not the driver's.
            probe.spin_until(lambda: bool(probe.node.get_publishers_info_by_topic("/diagnostics")), START_S, "the node")
            start = time.monotonic()
            probe.spin_until(lambda: any(s.level == b"\x02" for _, s in heard), 20, "an error")
            seconds, status = next((t - start, s) for t, s in heard if s.level == b"\x02")
            assert process.poll() is None, "it waits for the camera"
    assert seconds < 2.0
    assert status.hardware_id == "camera/front" and "camera 123456 is not connected" in status.message
    assert "udev" in status.message


@contextmanager
def node_here(device: SoftwareCamera, domain: int, parameters: dict[str, Any]) -> Iterator[list[BaseException]]:
    """A camera node in this process, for a software device lives in one; what a callback of it raised."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_module, "RealsenseCamera", partial(RealsenseCamera, context=device.context, reopen_s=1.5))
        node = node_module.RealsenseCameraNode(context=context, parameter_overrides=overrides)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    raised: list[BaseException] = []

    def spin() -> None:
        try:
            executor.spin()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield raised
    finally:
        executor.shutdown()
        thread.join(10.0)
        node.close()
        node.destroy_node()
        context.try_shutdown()


def test_a_node_outlives_starvation_and_unplugging_and_says_so_each_time(rig_file):
    with ExitStack() as stack:
        device, domain = (
            stack.enter_context(SoftwareCamera(160, 120, 30, depth=True)),
            stack.enter_context(unique_domain()),
        )
        parameters = {"rig_file": str(rig_file), "serial": device.serial, "starvation_s": 0.4}
        raised = stack.enter_context(node_here(device, domain, parameters))
        probe = stack.enter_context(Probe(domain))
        images = probe.listen(Image, "/camera/front/color/image_raw")
        heard: list[DiagnosticStatus] = []
        probe.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: heard.append(m.status[0]), 10)

        def until(state: CameraState, level: bytes) -> None:
            heard.clear()
            probe.spin_until(
                lambda: bool(raised) or any(s.level == level and state in [v.value for v in s.values] for s in heard),
                START_S,
                state,
            )
            assert not raised, raised

        def streams() -> None:
            until(CameraState.STREAMING, b"\x00")
            images.clear()
            probe.spin_until(lambda: len(images) >= 5, START_S, "pictures")

        streams()
        for _ in range(2):
            device.pause()
            until(CameraState.STARVED, b"\x02")
            device.pause(False)
            streams()
            device.unplug()
            until(CameraState.SEARCHING, b"\x02")
            device.plug_in()
            streams()
    assert not raised


def test_depth_and_its_info_offer_what_the_contract_asks_of_images(rig_file):
    wanted = qos_profile(load_rig(rig_file).qos.images)
    kinds = {"image_raw": "sensor_msgs/msg/Image", "camera_info": "sensor_msgs/msg/CameraInfo"}
    with (
        unique_domain() as domain,
        camera_node(domain, f"rig_file:={rig_file}", "stand_in:=true"),
        Probe(domain) as probe,
    ):
        depths = probe.listen(Image, "/camera/front/aligned_depth_to_color/image_raw", wanted)
        probe.spin_until(lambda: len(depths) >= 3, START_S, "depth")
        for stream in ("color", "aligned_depth_to_color"):
            for name, kind in kinds.items():
                (found,) = probe.node.get_publishers_info_by_topic(f"/camera/front/{stream}/{name}")
                offered = found.qos_profile
                assert (offered.reliability, offered.durability) == (wanted.reliability, wanted.durability)
                assert found.topic_type == kind


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (["recording:=/no/such/file.db3"], "no such file"),
        (["camera:=rear"], "has no camera 'rear'"),
        (["serial:=1a", "recording:=x.db3"], "not both"),
    ],
)
def test_what_cannot_heal_ends_the_node_with_one_line(rig_file, parameters, expected):
    with unique_domain() as domain, camera_node(domain, f"rig_file:={rig_file}", *parameters) as process:
        output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 2
    lines = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and expected in lines[0] and "Traceback" not in output


def test_a_second_node_for_one_camera_is_refused(rig_file):
    words = [f"rig_file:={rig_file}", "stand_in:=true"]
    with unique_domain() as domain, camera_node(domain, *words), Probe(domain) as probe:
        images = probe.listen(Image, "/camera/front/color/image_raw")
        probe.spin_until(lambda: bool(images), START_S, "pictures")
        with camera_node(domain, *words) as second:
            output, _ = second.communicate(timeout=START_S)
        assert second.returncode == 2 and "only one instance may run" in output
