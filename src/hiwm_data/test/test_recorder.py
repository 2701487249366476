"""Recording: never slows callbacks, loses at most the last second, stops readably, opens in other readers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hiwm_data.bag_reader import Bag, BagError
from hiwm_data.bag_writer import RecordingError
from hiwm_data.definitions import DefinitionError, find_definition
from hiwm_data.recorder import Recorder, RecorderOptions, checkpoint_id, recording_metadata
from hiwm_data.repair import repair_bag
from hiwm_data.testing import Messages, write_bag
from hiwm_data.topics import IMAGE, TopicSpec, rig_topics
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import load_rig, parse_rig
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag2 import Reader

RIG = load_rig("push_t")
CAMERA = RIG.cameras[0]
FAST = RecorderOptions(flush_s=0.05, min_free_mb=0)


def images(count: int, start: int = 0):
    messages = Messages(RIG)
    return [messages.image(CAMERA, i % 256, (100 + i) * NS_PER_S // 10) for i in range(start, start + count)]


def record(path: Path, messages, options: RecorderOptions = FAST, **more) -> Recorder:
    recorder = Recorder(path, rig_topics(RIG), recording_metadata(RIG, {"policy": "p@1"}), options, **more)
    for message in messages:
        recorder.offer(message.topic, message.data, message.log_ns)
    recorder.close()
    return recorder


def test_what_is_offered_is_read_back_with_rig_checkpoints_and_revision(tmp_path):
    recorder = record(tmp_path / "bag", images(20))
    assert recorder.error is None and recorder.message_count == 20
    bag = Bag(tmp_path / "bag")
    assert parse_rig(bag.metadata["rig"]) == RIG
    assert yaml.safe_load(bag.metadata["checkpoints"]) == {"policy": "p@1"}
    assert bag.metadata["git_revision"] and bag.metadata["host"]
    decoded = [bag.decode(m) for m in bag.messages()]
    assert [int(d.data[0]) for d in decoded] == list(range(20)) and bag.complete
    assert Bag(tmp_path / "bag" / "bag_0.mcap").metadata["host"] == bag.metadata["host"]


def test_other_readers_open_the_bag_with_its_own_definitions(tmp_path):
    messages = Messages(RIG)
    write_bag(tmp_path / "bag", RIG, [*images(3), messages.control(2, np.ones(7), 99)])
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 4
        assert {c.topic for c in reader.connections} == {t.name for t in rig_topics(RIG)}
        hashes = {c.msgtype: c.digest for c in reader.connections}
        assert hashes[IMAGE].startswith("RIHS01_")
    with (tmp_path / "bag" / "bag_0.mcap").open("rb") as file:
        found = list(make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages())
    controls = [f.decoded_message for f in found if f.channel.topic == RIG.topics.control_state]
    assert [c.driver for c in controls] == [2]
    assert {f.channel.topic for f in found} == {CAMERA.image_topic, RIG.topics.control_state}


_KILLED = """
import sys, time
from hiwm_data.recorder import Recorder, recording_metadata
from hiwm_data.testing import Messages
from hiwm_data.topics import rig_topics
from hiwm_rig.contract import load_rig
rig = load_rig("push_t")
messages = Messages(rig)
recorder = Recorder(sys.argv[1], rig_topics(rig), recording_metadata(rig, {}))
while True:
    now = time.time_ns()
    message = messages.image(rig.cameras[0], 7, now)
    recorder.offer(message.topic, message.data, now)
    print(now, flush=True)
    time.sleep(0.02)
"""


def test_kill_9_loses_at_most_a_second_and_the_rest_is_readable(tmp_path):
    path = tmp_path / "bag"
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        stamps = [first]
        while stamps[-1] - first < 2 * NS_PER_S:
            stamps.append(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        stamps += [int(line) for line in process.stdout.read().split()]
    bag = Bag(path)
    read = [m.log_ns for m in bag.messages()]
    assert not bag.complete
    assert read == stamps[: len(read)], "what was read is a gapless beginning of what was recorded"
    assert stamps[-1] - read[-1] < 1.0 * NS_PER_S
    assert yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["message_count"] > 0
    report = repair_bag(path)
    assert report.messages == len(read) and [f.name for f in report.repaired] == ["bag_0.mcap"]
    with Reader(path) as reader:
        assert reader.message_count == len(read)
        assert [t for _, t, _ in reader.messages()] == read


def test_a_filling_disk_stops_the_recording_with_an_error_and_a_complete_bag(tmp_path):
    free = [10_000_000_000]
    options = RecorderOptions(flush_s=0.05, min_free_mb=500)
    recorder = Recorder(tmp_path / "bag", rig_topics(RIG), {}, options, disk_free=lambda _: free[0])
    sent = images(5)
    for message in sent:
        assert recorder.offer(message.topic, message.data, message.log_ns)
    while recorder.message_count < 5:
        time.sleep(0.01)
    free[0] = 100_000_000
    deadline = time.monotonic() + 20
    while recorder.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "the disk has 100 MB left, at least 500 MB are needed" in str(recorder.error)
    assert not recorder.offer(sent[0].topic, sent[0].data, 1) and recorder.counters["dropped_after_stop"] == 1
    recorder.close()
    bag = Bag(tmp_path / "bag")
    assert len(list(bag.messages())) == 5 and bag.complete


def test_a_disk_too_full_to_start_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(RecordingError, match="the disk has 1 MB left"):
        Recorder(tmp_path / "bag", rig_topics(RIG), {}, RecorderOptions(), disk_free=lambda _: 1_000_000)
    assert not (tmp_path / "bag").exists()


_NO_SPACE = """
import resource, sys
from hiwm_data.bag_writer import BagFormat
from hiwm_data.recorder import Recorder, RecorderOptions
from hiwm_data.testing import Messages
from hiwm_data.topics import rig_topics
from hiwm_rig.contract import load_rig
import numpy as np
rig = load_rig("push_t")
messages = Messages(rig)
recorder = Recorder(sys.argv[1], rig_topics(rig), {}, RecorderOptions(flush_s=0.01, form=BagFormat("none")))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
for i in range(1000):
    message = messages.image(rig.cameras[0], i % 256, i + 1)
    recorder.offer(message.topic, message.data, message.log_ns)
    if recorder.error is not None:
        break
    import time; time.sleep(0.02)
recorder.close()
print(recorder.error)
"""


def test_a_write_that_fails_half_way_leaves_only_complete_messages(tmp_path):
    """A file size limit makes the kernel refuse a write in the middle, as a full disk does."""
    path = tmp_path / "bag"
    done = subprocess.run([sys.executable, "-c", _NO_SPACE, str(path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout and "recording stopped" in done.stdout, done.stdout + done.stderr
    bag = Bag(path)
    read = [(m.log_ns, int(bag.decode(m).data[-1])) for m in bag.messages()]
    assert len(read) >= 3 and read == [(i + 1, i) for i in range(len(read))]
    assert not bag.complete


def test_callbacks_do_not_wait_for_a_slow_disk_and_memory_is_bounded(tmp_path, monkeypatch):
    blocked = threading.Event()
    recorder = Recorder(tmp_path / "bag", rig_topics(RIG), {}, RecorderOptions(min_free_mb=0, max_queue_mb=0.5))
    write = recorder._bag.write
    monkeypatch.setattr(recorder._bag, "write", lambda *args: (blocked.wait(), write(*args)))
    begin = time.monotonic()
    taken = [recorder.offer(m.topic, m.data, m.log_ns) for m in images(40)]
    assert time.monotonic() - begin < 5
    assert taken[:10] == [True] * 10 and not taken[-1]
    assert recorder.counters["dropped_queue_full"] == taken.count(False)
    blocked.set()
    recorder.close()
    assert recorder.error is None and recorder.message_count == taken.count(True)


def test_a_recording_never_overwrites(tmp_path):
    record(tmp_path / "bag", images(2))
    with pytest.raises(RecordingError, match="exists already"):
        record(tmp_path / "bag", images(2))
    assert len(list(Bag(tmp_path / "bag").messages())) == 2


def test_an_unknown_message_type_is_named(tmp_path):
    with pytest.raises(RecordingError, match="no_such_msgs/msg/Thing is not installed"):
        Recorder(tmp_path / "bag", [TopicSpec("/x", "no_such_msgs/msg/Thing")], {}, FAST)
    with pytest.raises(DefinitionError, match="searched"):
        find_definition("sensor_msgs/msg/Image", [tmp_path])


def test_definitions_contain_every_type_they_use():
    definition = find_definition("hiwm_msgs/msg/ControlState")
    assert "MSG: std_msgs/Header" in definition.text and "MSG: builtin_interfaces/Time" in definition.text
    nested = find_definition("trajectory_msgs/msg/JointTrajectory").text
    assert nested.count("MSG: ") == 4, "header, time, point, duration: each once"


def test_checkpoints_are_named_by_their_content(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(RecordingError, match="no checkpoint there"):
        checkpoint_id(tmp_path / "model")
    (tmp_path / "model" / "policy.safetensors").write_bytes(b"1")
    first = checkpoint_id(tmp_path / "model")
    (tmp_path / "model" / "policy.safetensors").write_bytes(b"2")
    assert first.startswith("model@sha256:") and checkpoint_id(tmp_path / "model") != first


def test_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(BagError, match="no such bag"):
        Bag(tmp_path / "missing")
    with pytest.raises(BagError, match=r"holds no \.mcap"):
        Bag(tmp_path)
    (tmp_path / "x.mcap").write_bytes(os.urandom(100))
    with pytest.raises(BagError, match="not an MCAP file"):
        list(Bag(tmp_path / "x.mcap").messages())
