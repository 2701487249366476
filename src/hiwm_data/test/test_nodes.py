"""The recorder and the replay as real processes over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import numpy as np
import pytest
from hiwm_data.bag_reader import Bag
from hiwm_data.testing import Messages, write_bag
from hiwm_rig.contract import load_rig

pytest.importorskip("rclpy", reason="needs ROS 2")

from diagnostic_msgs.msg import DiagnosticArray
from hiwm_bringup.testing import Probe, unique_domain, wait_until
from hiwm_rig.codecs import array_to_image
from hiwm_rig.rig_node import LATCHED
from sensor_msgs.msg import Image

from hiwm_msgs.msg import EpisodeEvent

RIG = load_rig("push_t")
CAMERA = RIG.cameras[0]
START_S = 150
"""Until a process is up, on a machine that is busy with other things."""
pytestmark = pytest.mark.timeout(400)


def start(executable: str, domain: int, **parameters: object) -> subprocess.Popen[str]:
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    module = {"recorder": "hiwm_data.recorder_node", "replay": "hiwm_data.replay_node"}[executable]
    return subprocess.Popen(
        ["python", "-m", module, "--ros-args", *arguments],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    return output


def test_recorder_keeps_every_message_and_reports_counts_until_ctrl_c(tmp_path):
    path = tmp_path / "bag"
    with unique_domain() as domain, Probe(domain) as probe:
        episodes = probe.node.create_publisher(EpisodeEvent, RIG.topics.episode, LATCHED)
        # Published before the recorder is there: latched, so it belongs to the recording all the same.
        episodes.publish(EpisodeEvent(type=EpisodeEvent.BEGIN, episode_id="early"))
        images = probe.node.create_publisher(Image, CAMERA.image_topic, 50)
        reports = probe.listen(DiagnosticArray, "/diagnostics")
        recorder = start("recorder", domain, output=path)
        try:
            probe.spin_until(lambda: images.get_subscription_count() > 0, START_S, "the recorder's subscription")
            probe.spin_for(1.0)  # this side knows the recorder; the recorder must know this side too
            for value in range(30):
                pixels = np.full((CAMERA.height, CAMERA.width, 3), value, np.uint8)
                images.publish(array_to_image(pixels, value + 1, CAMERA.frame_id))
                probe.spin_for(0.02)

            def written() -> bool:
                values = [v for r in reports for s in r.status if s.hardware_id == "recorder" for v in s.values]
                return any(v.key == f"written {CAMERA.image_topic}" and v.value == "30" for v in values)

            probe.spin_until(written, 30, "the recorder's report of 30 images")
        finally:
            output = stop(recorder)
    assert recorder.returncode == 0 and "recorded" in output
    bag = Bag(path)
    found = [bag.decode(m) for m in bag.messages([CAMERA.image_topic])]
    assert [int(m.data[0]) for m in found] == list(range(30))
    assert [m.header.stamp.nanosec for m in found] == list(range(1, 31))
    events = [bag.decode(m) for m in bag.messages([RIG.topics.episode])]
    assert [e.episode_id for e in events] == ["early"] and bag.complete


def test_a_second_recorder_on_the_same_folder_is_refused(tmp_path):
    with unique_domain() as domain:
        (tmp_path / "bag").mkdir()
        process = start("recorder", domain, output=tmp_path / "bag")
        output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 2
    assert "exists already; a recording never overwrites" in output and "Traceback" not in output


def test_recorder_ends_with_an_error_when_the_disk_is_too_full(tmp_path):
    with unique_domain() as domain:
        process = start("recorder", domain, output=tmp_path / "bag", min_free_mb=1e12)
        output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 2 and "MB are needed" in output and "Traceback" not in output


def test_replay_publishes_the_same_messages_at_their_own_pace(tmp_path):
    messages = Messages(RIG)
    bag = write_bag(tmp_path / "bag", RIG, [messages.image(CAMERA, i, i * 50_000_000 + 1) for i in range(20)])
    with unique_domain() as domain, Probe(domain) as probe:
        received = probe.listen(Image, CAMERA.image_topic, 50)
        times: list[float] = []
        replay = start("replay", domain, bag=bag, rate=2.0, wait_s=60.0)
        try:
            while len(received) < 20 and replay.poll() is None:
                before = len(received)
                probe.spin_for(0.01)
                times += [time.monotonic()] * (len(received) - before)
            replay.wait(60)
            wait_until(lambda: replay.poll() is not None, 30, "the end of the replay")
        finally:
            output = stop(replay) if replay.poll() is None else replay.communicate()[0]
    assert replay.returncode == 0, output
    assert [int(m.data[0]) for m in received] == list(range(20))
    assert 0.3 < times[-1] - times[0] < 5, "0.95 s of recording at twice the speed"


def test_replay_of_a_missing_bag_is_one_line(tmp_path):
    with unique_domain() as domain:
        process = start("replay", domain, bag=tmp_path / "missing")
        output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 2 and "no such bag" in output and "Traceback" not in output
