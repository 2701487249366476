"""Recorder and replay as real processes over DDS: parity of bags and live topics, episodes by service, seek, clock."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.align import RigStreams
from hiwm_data.bag_reader import Bag, find_bags
from hiwm_data.convert import ConvertOptions, convert_bags, recorded_segments, segment_columns
from hiwm_data.dataset import Dataset
from hiwm_data.testing import Messages, recorded_session, write_bag
from hiwm_data.topics import rig_topics
from hiwm_rig.codecs import NS_PER_S, array_to_image, sample_to_joint_state, stamp_to_ns
from hiwm_rig.contract import load_rig

pytest.importorskip("rclpy", reason="needs ROS 2")

from hiwm_bringup.graph import NodeSpec, build_graph, parse_assignments
from hiwm_bringup.paths import project_root
from hiwm_bringup.testing import Probe, graph, unique_domain
from hiwm_data.recorder_node import message_class, topic_qos
from hiwm_rig.rig_node import now_ns, qos_profile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_bringup import cli
from hiwm_msgs.srv import Pause, Seek, StartEpisode

RIG = load_rig("push_t")
CAMERA = RIG.cameras[0]
ARM = RIG.arms[0]
START_S = 150
"""Until processes are up, on a machine that is busy with other things."""
pytestmark = pytest.mark.timeout(600)


def node(executable: str, name: str = "", **parameters) -> NodeSpec:
    end = "finish" if executable == "replay" else "fail"
    return NodeSpec("hiwm_data", executable, name or executable, parameters, on_exit=end)


def columns_of(streams: RigStreams) -> list[dict[str, np.ndarray]]:
    """The columns of each branch, images included."""
    found = []
    for segment in recorded_segments("topics", streams, 1.0, Counter()):
        columns = segment_columns(segment, streams)
        columns["image"] = np.stack([f.images[CAMERA.name] for f in segment.frames])
        found.append(columns)
    return found


def streams_of(bag: Path) -> RigStreams:
    streams, opened = RigStreams(RIG), Bag(bag)
    for message in opened.messages(streams.topics):
        streams.push(message.topic, opened.decode(message), message.log_ns)
    return streams


def test_features_from_the_bag_and_from_the_live_topics_are_identical(tmp_path):
    """A recorded session is played; one process records it while this one listens: same frames, same features."""
    source = write_bag(tmp_path / "source", RIG, recorded_session(RIG))
    bag = tmp_path / "bag"
    live = RigStreams(RIG)
    with unique_domain() as domain, Probe(domain) as probe:
        for spec in rig_topics(RIG):
            if spec.name in live.topics:
                kind = message_class(spec.type)
                push = lambda msg, topic=spec.name: live.push(topic, msg, now_ns(probe.node))  # noqa: E731
                probe.node.create_subscription(kind, spec.name, push, topic_qos(spec))
        recorder = node("recorder", output=str(bag))
        with graph([recorder], domain):
            probe.spin_until(lambda: bag.is_dir(), START_S, "the recorder's bag")
            # Two listen: the recorder and this process.
            with graph([node("replay", bag=str(source), wait_s=120.0, listeners=2)], domain) as replay:
                probe.spin_until(lambda: not replay.poll(), START_S, "the end of the replay")
            expected = len(list(Bag(source).messages()))
            probe.spin_until(lambda: sum(live.received.values()) >= expected, 30, "all messages here")
            probe.spin_for(1.0)
    wanted, recorded, heard = columns_of(streams_of(source)), columns_of(streams_of(bag)), columns_of(live)
    assert [len(c["action"]) for c in wanted] == [8, 8, 8]
    for other in (recorded, heard):
        assert len(other) == len(wanted)
        for columns, reference in zip(other, wanted, strict=True):
            assert columns.keys() == reference.keys()
            for name, values in reference.items():
                np.testing.assert_array_equal(columns[name], values, err_msg=name)
    convert_bags([bag], tmp_path / "dataset")
    dataset = Dataset(tmp_path / "dataset")
    for name in ("observation.state", "action", "policy_action", "driver", "branch_id", "trust", "stamp_ns"):
        np.testing.assert_array_equal(dataset.column(name), np.concatenate([c[name] for c in heard]), err_msg=name)


class FakeRig:
    """Publishes one frame after the other from this process."""

    def __init__(self, probe: Probe) -> None:
        self.probe, self.value = probe, 0
        node = probe.node
        self.images = node.create_publisher(Image, CAMERA.image_topic, qos_profile(RIG.qos.images))
        self.joints = node.create_publisher(JointState, ARM.joint_states, qos_profile(RIG.qos.joint_states))

    def run(self, frames: int) -> None:
        for _ in range(frames):
            stamp = now_ns(self.probe.node)
            pixels = np.full((CAMERA.height, CAMERA.width, 3), self.value % 256, np.uint8)
            self.joints.publish(sample_to_joint_state(ARM.joint_names, np.array(RIG.home), stamp))
            self.images.publish(array_to_image(pixels, stamp, CAMERA.frame_id))
            self.value += 1
            self.probe.spin_for(RIG.period_s)


def test_episode_commands_make_a_bag_for_each_episode_with_its_outcome(tmp_path, capsys):
    each = tmp_path / "each"
    arbiter = NodeSpec("hiwm_teleop", "arbiter", "arbiter", {"first_driver": "paused"})
    nodes = [arbiter, node("recorder", output=str(each), split="episode")]
    with unique_domain() as domain, Probe(domain) as probe, graph(nodes, domain):
        rig = FakeRig(probe)
        probe.spin_until(lambda: rig.images.get_subscription_count() > 0, START_S, "the recorder's subscription")
        probe.spin_for(1.0)
        probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request(task="first"), START_S)
        for outcome in ("success", "discard", "failure"):
            rig.run(12)
            assert cli.main(["episode", outcome, "--domain", str(domain)]) == 0
            rig.run(8)
            assert cli.main(["episode", "start", "--domain", str(domain)]) == 0
        assert cli.main(["episode", "start", "--domain", str(domain)]) == 1
    assert "is running: end it first" in capsys.readouterr().err
    bags = find_bags([each])[:3]
    assert Bag(bags[0]).metadata["task"] == "first"
    assert [Bag(b).metadata["outcome"] for b in bags] == ["success", "discard", "failure"]
    assert all(Bag(b).summary().complete for b in bags)
    # This process is no steady rig on a busy machine.
    report = convert_bags(bags, tmp_path / "out", options=ConvertOptions(max_dropped=1.0, min_frames=1))
    assert {(e.meta["bag"], e.meta["outcome"]) for e in Dataset(tmp_path / "out").episodes} == {
        ("episode_0000", "success"),
        ("episode_0002", "failure"),
    }
    assert report.counters["discarded_segments"] >= 1


def test_a_recorder_killed_by_kill_9_leaves_a_bag_that_repairs_to_its_last_second(tmp_path):
    from hiwm_data.repair import repair_bag

    bag = tmp_path / "bag"
    with unique_domain() as domain, Probe(domain) as probe, graph([node("recorder", output=str(bag))], domain) as nodes:
        rig = FakeRig(probe)
        probe.spin_until(lambda: rig.images.get_subscription_count() > 0, START_S, "the recorder's subscription")
        probe.spin_for(1.0)
        rig.run(30)
        last_ns = now_ns(probe.node)
        os.kill(nodes.pid("recorder"), signal.SIGKILL)
        probe.spin_until(lambda: nodes.running[0].process.poll() is not None, 20, "the end of the recorder")
    assert not Bag(bag).summary().complete
    report = repair_bag(bag)
    summary = Bag(bag).summary()
    assert summary.complete and report.messages > 30
    assert last_ns - summary.end_ns < NS_PER_S


def test_a_replay_seeks_pauses_and_loops_under_a_clock_that_never_runs_backwards(tmp_path):
    messages = Messages(RIG)
    frames = [messages.image(CAMERA, i, 1000 * NS_PER_S + i * NS_PER_S // 20) for i in range(61)]
    bag = write_bag(tmp_path / "bag", RIG, frames)
    with unique_domain() as domain, Probe(domain) as probe:
        images = probe.listen(Image, CAMERA.image_topic, 50)
        clock = probe.listen(Clock, "/clock", 50)
        replay = node("replay", bag=str(bag), wait_s=60.0, loop=True, time="clock")
        with graph([replay], domain):
            probe.spin_until(lambda: len(images) > 3, START_S, "the first images")
            answer = probe.call(Pause, "/replay/pause", Pause.Request(paused=True))
            assert answer.success
            probe.spin_for(0.5)
            held = len(images)
            assert probe.call(Seek, "/replay/seek", Seek.Request(seconds=2.5)).success
            assert not probe.call(Seek, "/replay/seek", Seek.Request(seconds=99.0)).success
            probe.spin_for(0.5)
            assert len(images) == held, "a paused replay shows nothing"
            probe.call(Pause, "/replay/pause", Pause.Request(paused=False))
            probe.spin_until(lambda: len(images) > held + 25, 60, "the loop")
    values = [int(m.data[0]) for m in images]
    assert values[held] == 50, "playing goes on where the seek went"
    assert values[held : held + 11] == list(range(50, 61)) and values[held + 11] == 0, "and begins again at the end"
    shown = [stamp_to_ns(c.clock) for c in clock]
    assert all(b >= a for a, b in pairwise(shown))
    stamps = [stamp_to_ns(m.header.stamp) for m in images]
    assert all(b > a for a, b in pairwise(stamps[held:]))
    assert stamps[0] == 1000 * NS_PER_S


def test_a_policy_runs_against_a_replay_as_against_a_rig(tmp_path):
    bag = write_bag(tmp_path / "bag", RIG, recorded_session(RIG, ticks=40))
    replay, *others = build_graph(parse_assignments(["rig:=replay", f"bag:={bag}"]), project_root())
    # Whoever listens first starts the replay: again and again, until the policy has loaded.
    looping = replace(replay, parameters={**replay.parameters, "loop": True})
    with unique_domain() as domain, Probe(domain) as probe:
        chunks = probe.listen(JointTrajectory, ARM.policy_command, 10)
        images = probe.listen(Image, CAMERA.image_topic, 50)
        with graph([looping, *others], domain) as nodes:
            probe.spin_until(lambda: nodes.poll() and len(chunks) >= 3, 2 * START_S, "proposals of the policy")
    shown = {stamp_to_ns(m.header.stamp) for m in images}
    assert {stamp_to_ns(c.header.stamp) for c in chunks} <= shown, "each answers a frame of the replay"
    for chunk in chunks:
        assert list(chunk.joint_names) == list(ARM.joint_names)
        assert np.isfinite([p.positions for p in chunk.points]).all()
