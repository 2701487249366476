"""Bags on disk: files of bounded size, one bag per episode, compressed images, repair of what a crash left."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hiwm_data.align import Event
from hiwm_data.bag_reader import Bag, BagError, BagMessage, find_bags
from hiwm_data.bag_writer import BagFormat, BagWriter, RecordingError
from hiwm_data.convert import convert_bags
from hiwm_data.dataset import Dataset
from hiwm_data.definitions import find_definition
from hiwm_data.recorder import Recorder, RecorderOptions, recording_metadata
from hiwm_data.repair import repair_bag
from hiwm_data.segments import EventType
from hiwm_data.testing import Messages, write_bag
from hiwm_data.topics import rig_topics
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Outcome
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag2 import Reader

RIG = load_rig("push_t")
CAMERA = RIG.cameras[0]
MESSAGES = Messages(RIG)
PERIOD = NS_PER_S // 10
START = 1000 * NS_PER_S


def images(count: int) -> list[BagMessage]:
    return [MESSAGES.image(CAMERA, i % 256, START + i * PERIOD) for i in range(count)]


def record(path: Path, messages: list[BagMessage], **options) -> Recorder:
    options = {"flush_s": 0.05, "min_free_mb": 0.0, **options}
    recorder = Recorder(path, rig_topics(RIG), recording_metadata(RIG, {}), RecorderOptions(**options))
    for message in messages:
        assert recorder.offer(message.topic, message.data, message.log_ns)
    recorder.close()
    assert recorder.error is None
    return recorder


def open_writer(path: Path, form: BagFormat | None = None) -> BagWriter:
    topics = rig_topics(RIG)
    return BagWriter(path, topics, {t.type: find_definition(t.type) for t in topics}, {}, form)


def episode(number: int, ticks: int, outcome: Outcome = Outcome.SUCCESS, first: int = 0) -> list[BagMessage]:
    """Begin, frames with commands, end; ``first`` is the tick it begins at."""
    at = [START + (first + tick) * PERIOD for tick in range(ticks)]
    name = f"e{number}"
    found = [MESSAGES.event(Event(at[0] - 1, EventType.BEGIN, name, "push", 0, -1, -1, Outcome.UNKNOWN))]
    for tick, stamp in enumerate(at):
        value = np.full(7, (number + tick) / 100)
        found += [MESSAGES.joint_state(value, stamp), MESSAGES.image(CAMERA, 10 * tick, stamp)]
        found += [MESSAGES.command(value, stamp + PERIOD // 2)]
    return [*found, MESSAGES.event(Event(at[-1] + PERIOD - 1, EventType.END, name, "push", 0, -1, -1, outcome))]


# -- files of bounded size --------------------------------------------------------------------------------------


def test_a_long_bag_is_a_row_of_files_that_reads_as_one(tmp_path):
    sent = images(100)
    bag = write_bag(tmp_path / "bag", RIG, sent, BagFormat(max_file_s=3.0))
    names = [f"bag_{i}.mcap" for i in range(4)]
    assert [f.name for f in Bag(bag).files] == names
    assert [m.log_ns for m in Bag(bag).messages()] == [m.log_ns for m in sent]
    assert Bag(bag).summary().counts == {CAMERA.image_topic: 100} and Bag(bag).summary().complete
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["relative_file_paths"] == [f["path"] for f in information["files"]] == names
    assert sum(f["message_count"] for f in information["files"]) == information["message_count"] == 100
    with Reader(bag) as reader:
        assert [t for _, t, _ in reader.messages()] == [m.log_ns for m in sent]


def test_each_file_of_a_long_bag_can_be_read_alone(tmp_path):
    bag = write_bag(tmp_path / "bag", RIG, images(100), BagFormat(max_file_s=3.0))
    last = Bag(bag / "bag_3.mcap")
    assert last.metadata["rig"] == Bag(bag).metadata["rig"]
    assert [int(last.decode(m).data[0]) for m in last.messages()] == list(range(93, 100))


def test_a_file_also_ends_at_its_size(tmp_path):
    bag = write_bag(tmp_path / "bag", RIG, images(90), BagFormat(compression="none", max_file_mb=0.2))
    assert len(Bag(bag).files) > 2
    assert all(f.stat().st_size < 1.5e6 for f in Bag(bag).files), "a chunk more than asked at most"
    assert len(list(Bag(bag).messages())) == 90


def test_the_index_kept_in_memory_is_that_of_one_file(tmp_path):
    """Without this the memory of a recorder grows as long as it records: an MCAP writer keeps every chunk's index."""
    bag = open_writer(tmp_path / "bag", BagFormat(max_file_s=1.0))
    kept = []
    for message in images(50):
        bag.write(message.topic, message.data, message.log_ns, message.log_ns)
        bag.flush()
        kept.append(len(bag._file._mcap._Writer__chunk_indices))
    bag.close()
    assert max(kept) <= 12 and len(Bag(tmp_path / "bag").files) == 5


def test_metadata_has_the_keys_and_kinds_that_rosbag2_reads(tmp_path):
    """Those of rosbag2_storage/yaml.hpp, version 9, each of which it reads without asking whether it is there."""
    bag = write_bag(tmp_path / "bag", RIG, images(3))
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    kinds = {
        "version": int,
        "storage_identifier": str,
        "duration": dict,
        "starting_time": dict,
        "message_count": int,
        "topics_with_message_count": list,
        "compression_format": str,
        "compression_mode": str,
        "relative_file_paths": list,
        "files": list,
        "custom_data": dict,
        "ros_distro": str,
    }
    assert {k: type(v) for k, v in information.items()} == kinds and information["version"] == 9
    assert all(isinstance(v, str) for v in information["custom_data"].values())
    for entry in information["topics_with_message_count"]:
        topic = entry["topic_metadata"]
        assert {"name", "type", "serialization_format", "offered_qos_profiles", "type_description_hash"} == set(topic)
        assert topic["serialization_format"] == "cdr" and topic["type_description_hash"].startswith("RIHS01_")
        for profile in topic["offered_qos_profiles"]:
            assert profile["history"] == "keep_last" and profile["durability"] in ("volatile", "transient_local")
            assert profile["deadline"] == {"sec": 9223372036, "nsec": 854775807}


# -- one bag per episode ----------------------------------------------------------------------------------------


def test_one_bag_per_episode_gives_the_same_dataset_as_one_for_all(tmp_path):
    sent = [*episode(0, 8), *episode(1, 6, Outcome.FAILURE, first=30), *episode(2, 5, first=37)]
    record(tmp_path / "one", sent)
    recorder = record(tmp_path / "each", sent, per_episode=True)
    bags = find_bags([tmp_path / "each"])
    assert [b.name for b in bags] == ["episode_0000", "episode_0001", "episode_0002"]
    assert [Bag(b).metadata["outcome"] for b in bags] == ["success", "failure", "success"]
    assert [Bag(b).metadata["episode_id"] for b in bags] == ["e0", "e1", "e2"]
    assert recorder.message_count >= len(sent)
    convert_bags([tmp_path / "one"], tmp_path / "a")
    convert_bags([tmp_path / "each"], tmp_path / "b")
    one, each = Dataset(tmp_path / "a"), Dataset(tmp_path / "b")
    for name in ("observation.state", "action", "stamp_ns", "next.success"):
        np.testing.assert_array_equal(one.column(name), each.column(name))
    assert [e.length for e in each.episodes] == [8, 6, 5]


def test_nothing_is_recorded_between_episodes_and_old_latched_events_make_no_bag(tmp_path):
    over = [m for m in episode(7, 2) if m.topic == RIG.topics.episode]
    between = [m._replace(log_ns=START + 300 * PERIOD) for m in images(3)]
    record(tmp_path / "each", [*over, *episode(8, 3, first=10), *between], per_episode=True)
    bags = find_bags([tmp_path / "each"])
    assert [Bag(b).metadata["episode_id"] for b in bags] == ["e8"]
    assert Bag(bags[0]).summary().counts[CAMERA.image_topic] == 3


def test_an_episode_that_is_cut_off_by_the_end_of_the_recording_is_kept(tmp_path):
    record(tmp_path / "each", episode(0, 4)[:-1], per_episode=True)
    bag = Bag(tmp_path / "each" / "episode_0000")
    assert "outcome" not in bag.metadata and len(list(bag.messages([CAMERA.image_topic]))) == 4


# -- compressed images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "tolerance"), [("png", 0), ("jpeg", 3)])
def test_compressed_images_come_back_as_the_images_of_the_rig(tmp_path, kind, tolerance):
    sent = images(5)
    record(tmp_path / "bag", sent, images=kind)
    bag = Bag(tmp_path / "bag")
    assert set(bag.summary().types) == {f"{CAMERA.image_topic}/compressed"}
    read = list(bag.messages([CAMERA.image_topic]))
    assert [(m.topic, m.type, m.log_ns) for m in read] == [(m.topic, m.type, m.log_ns) for m in sent]
    for message, original in zip(read, sent, strict=True):
        got, want = bag.decode(message), bag.decode(original)
        assert got.header == want.header and (got.height, got.width) == (want.height, want.width)
        assert np.abs(got.data.astype(int) - want.data).max() <= tolerance


def test_other_readers_find_compressed_images_as_image_transport_names_them(tmp_path):
    record(tmp_path / "bag", images(2), images="jpeg")
    with (tmp_path / "bag" / "bag_0.mcap").open("rb") as file:
        found = list(make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages())
    assert {(f.channel.topic, f.schema.name) for f in found} == {
        (f"{CAMERA.image_topic}/compressed", "sensor_msgs/msg/CompressedImage")
    }
    assert found[1].decoded_message.format == "rgb8; jpeg compressed bgr8"
    pixels = cv2.imdecode(np.frombuffer(found[1].decoded_message.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (CAMERA.height, CAMERA.width, 3)


def test_a_bag_with_compressed_images_converts(tmp_path):
    record(tmp_path / "bag", episode(0, 6), images="png")
    convert_bags([tmp_path / "bag"], tmp_path / "out")
    assert np.abs(Dataset(tmp_path / "out").images("front")[:, 0, 0, 0] - 10.0 * np.arange(6)).max() <= 2


def test_an_unknown_way_to_store_images_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="one of raw, jpeg, png, got 'gif'"):
        record(tmp_path / "bag", [], images="gif")
    assert not (tmp_path / "bag").exists()


# -- repair -----------------------------------------------------------------------------------------------------


def killed(tmp_path: Path, cut: int = 700) -> tuple[Path, list[BagMessage]]:
    """A bag of three files whose recorder died while it wrote the last one."""
    sent = images(70)
    bag = write_bag(tmp_path / "bag", RIG, sent, BagFormat(max_file_s=3.0))
    last = bag / "bag_2.mcap"
    os.truncate(last, last.stat().st_size - cut)
    return bag, sent


def test_repair_makes_a_bag_whole_in_place_and_leaves_whole_files_alone(tmp_path):
    bag, sent = killed(tmp_path)
    before = (bag / "bag_0.mcap").read_bytes()
    found = list(Bag(bag).messages())
    assert not Bag(bag).summary().complete and 0 < len(found) <= len(sent)
    report = repair_bag(bag)
    assert [f.name for f in report.repaired] == ["bag_2.mcap"] and report.messages == len(found)
    assert (bag / "bag_0.mcap").read_bytes() == before and Bag(bag).summary().complete
    assert list(Bag(bag).messages()) == found and not list(bag.glob("*.partial"))
    with Reader(bag) as reader:
        assert reader.message_count == len(found)
        assert {c.digest[:7] for c in reader.connections} == {"RIHS01_"}
    assert not repair_bag(bag).repaired, "a whole bag is left alone"


def test_repair_brings_back_a_bag_without_its_metadata(tmp_path):
    bag, _ = killed(tmp_path)
    (bag / "metadata.yaml").unlink()
    repair_bag(bag)
    with Reader(bag) as reader:
        assert reader.message_count == len(list(Bag(bag).messages()))
    assert Bag(bag).metadata["host"]


def test_a_file_begun_just_before_the_power_went_is_set_aside(tmp_path):
    bag, sent = killed(tmp_path, cut=0)
    (bag / "bag_3.mcap").touch()
    assert len(list(Bag(bag).messages())) == len(sent), "the bag is read all the same"
    report = repair_bag(bag)
    assert [f.name for f in report.set_aside] == ["bag_3.mcap.unreadable"] and report.messages == len(sent)


def test_a_damaged_chunk_in_the_middle_costs_only_itself(tmp_path):
    path = tmp_path / "bag"
    writer = open_writer(path, BagFormat(compression="none"))
    for message in images(30):
        writer.write(message.topic, message.data, message.log_ns, message.log_ns)
        writer.flush()
    writer.close()
    file = path / "bag_0.mcap"
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    file.write_bytes(data)
    bag = Bag(path)
    assert 27 <= len(list(bag.messages())) < 30 and not bag.complete
    assert bag.damage["bag_0.mcap"] >= 1


def test_what_cannot_be_repaired_is_named(tmp_path):
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "bag_0.mcap").write_bytes(b"not a bag")
    with pytest.raises(BagError, match="not one complete chunk"):
        repair_bag(tmp_path / "bag")
    with pytest.raises(BagError, match="no such bag"):
        repair_bag(tmp_path / "missing")


def test_a_missing_file_of_a_bag_is_named(tmp_path):
    bag, _ = killed(tmp_path)
    (bag / "bag_1.mcap").unlink()
    with pytest.raises(BagError, match=r"bag_1\.mcap is missing; metadata\.yaml lists it"):
        Bag(bag)


# -- reading from the middle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False], ids=["complete", "killed"])
def test_reading_from_a_time_gives_what_was_recorded_since(tmp_path, whole):
    bag, sent = killed(tmp_path, cut=0 if whole else 700)
    since = sent[45].log_ns
    found = [m.log_ns for m in Bag(bag).messages(since_ns=since)]
    assert found and found == [m.log_ns for m in sent[45 : 45 + len(found)]]
