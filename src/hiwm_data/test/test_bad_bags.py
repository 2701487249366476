"""Bad recordings: a clear error that names the bag and the topic, and never a half-written dataset."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.align import Event
from hiwm_data.bag_commands import EXIT_USAGE
from hiwm_data.bag_reader import BagError, BagMessage
from hiwm_data.bag_writer import BagFormat
from hiwm_data.convert import ConvertOptions, ConvertReport, convert_bags
from hiwm_data.dataset import Dataset
from hiwm_data.recorder import Recorder, RecorderOptions, RecordingError
from hiwm_data.repair import repair_bag
from hiwm_data.segments import EventType
from hiwm_data.testing import Messages, write_bag
from hiwm_data.topics import rig_topics
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Outcome

from hiwm_bringup import cli

RIG = load_rig("push_t")
CAMERA = RIG.cameras[0]
ARM = RIG.arms[0]
MESSAGES = Messages(RIG)
PERIOD = NS_PER_S // 10
START = 1000 * NS_PER_S


def at(tick: float) -> int:
    return START + round(tick * PERIOD)


def frame(tick: int, stamp: int | None = None, camera=CAMERA) -> list[BagMessage]:
    """Joint states, image and command of one tick, logged at that tick; ``stamp`` in their headers."""
    stamp = at(tick) if stamp is None else stamp
    shown = [MESSAGES.joint_state(np.full(7, tick / 100), stamp), MESSAGES.image(camera, tick, stamp)]
    return [m._replace(log_ns=at(tick)) for m in (*shown, MESSAGES.command(np.full(7, tick / 100), at(tick) + 1))]


def recording(frames: list[list[BagMessage]]) -> list[BagMessage]:
    begin = MESSAGES.event(Event(at(-1), EventType.BEGIN, "e", "push", 0, -1, -1, Outcome.UNKNOWN))
    return [begin, *(m for messages in frames for m in messages)]


def convert(tmp_path: Path, messages: list[BagMessage], **options) -> ConvertReport:
    bag = write_bag(tmp_path / "bag", RIG, messages)
    return convert_bags([bag], tmp_path / "out", options=ConvertOptions(**options))


def refused(tmp_path: Path, messages: list[BagMessage], match: str) -> None:
    with pytest.raises(BagError, match=match) as refusal:
        convert(tmp_path, messages)
    assert "bag" in str(refusal.value)
    assert not list(tmp_path.glob("out*")), "nothing is left of a dataset"


def test_a_bag_without_messages(tmp_path):
    refused(tmp_path, [], "no messages on /camera/front/color/image_raw, .*; it has nothing")


@pytest.mark.parametrize("topic", [CAMERA.image_topic, ARM.joint_states, ARM.command])
def test_a_missing_topic(tmp_path, topic):
    messages = [m for m in recording([frame(t) for t in range(5)]) if m.topic != topic]
    refused(tmp_path, messages, f"no messages on {topic}; it has ")


def test_a_rig_file_with_another_image_size(tmp_path):
    small = CAMERA.model_copy(update={"width": 64, "height": 64})
    messages = recording([frame(t, camera=small) for t in range(5)])
    refused(tmp_path, messages, f"{CAMERA.image_topic}: 5 of 5 messages dropped: 5 rejected .image is 64x64, the rig")


def test_a_rig_file_with_other_joints(tmp_path):
    bag = write_bag(tmp_path / "bag", RIG, recording([frame(t) for t in range(5)]))
    joints = tuple(j.model_copy(update={"name": f"other_{j.name}"}) for j in ARM.joints)
    other = RIG.model_copy(update={"arms": (ARM.model_copy(update={"joints": joints}),)})
    with pytest.raises(BagError, match=rf"bag: {ARM.joint_states}: 5 of 5 .*lacks joints \['other_"):
        convert_bags([bag], tmp_path / "out", rig=other)
    assert not list(tmp_path.glob("out*"))


def test_images_of_two_sizes(tmp_path):
    small = CAMERA.model_copy(update={"width": 64, "height": 64})
    frames = [frame(t, camera=small if t % 3 == 0 else CAMERA) for t in range(12)]
    refused(tmp_path, recording(frames), f"{CAMERA.image_topic}: .* 4 rejected .image is 64x64, the rig file says 128x")


def test_a_clock_that_was_set_back_while_recording(tmp_path):
    frames = [frame(t, stamp=at(t) if t < 10 else at(t) - 5 * PERIOD - 1000) for t in range(20)]
    refused(tmp_path, recording(frames), f"{CAMERA.image_topic}: .* with a stamp that goes backwards")


def test_stamps_that_nobody_sets(tmp_path):
    refused(tmp_path, recording([frame(t, stamp=5) for t in range(20)]), "with the stamp of the one before")


def test_two_frames_that_changed_places_are_sorted_and_reported(tmp_path):
    frames = [frame(t) for t in range(20)]
    messages = recording(frames)
    a, b = (
        next(i for i, m in enumerate(messages) if m.topic == CAMERA.image_topic and m.log_ns == at(t)) for t in (5, 6)
    )
    messages[a], messages[b] = messages[b], messages[a]
    report = convert(tmp_path, messages)
    assert report.counters[f"backwards {CAMERA.image_topic}"] == 1 and report.frames == 20
    assert (np.diff(Dataset(tmp_path / "out").column("stamp_ns")) > 0).all()


def test_dropped_frames_beyond_the_threshold_are_refused_with_counts(tmp_path):
    frames = [frame(t) for t in range(30) if t % 4 != 3]
    refused(tmp_path, recording(frames), f"{CAMERA.image_topic}: 7 of 30 messages dropped: 7 lost. At most 10%")
    report = convert_bags([tmp_path / "bag"], tmp_path / "out", options=ConvertOptions(max_dropped=0.5))
    assert report.counters["lost_frames"] == 7 and report.counters["gaps"] == 7


def test_a_gap_in_the_middle_is_counted_and_no_step_spans_it(tmp_path):
    report = convert(tmp_path, recording([frame(t) for t in range(60) if not 20 <= t < 24]))
    assert report.counters["lost_frames"] == 4
    dataset = Dataset(tmp_path / "out")
    assert [(e.length, e.meta["part"]) for e in dataset.episodes] == [(20, 0), (36, 1)]


def test_joint_states_that_pause_are_named(tmp_path):
    messages = [
        m
        for m in recording([frame(t) for t in range(20)])
        if not (m.topic == ARM.joint_states and at(5) <= m.log_ns < at(10))
    ]
    refused(tmp_path, messages, f"{ARM.joint_states}: . of .* lost")


def test_a_truncated_bag_converts_up_to_its_end_and_says_so(tmp_path):
    messages = recording([frame(t) for t in range(60)])
    bag = write_bag(tmp_path / "bag", RIG, messages, BagFormat(compression="none", max_file_s=2.0))
    last = bag / "bag_2.mcap"
    os.truncate(last, last.stat().st_size // 2)
    report = convert_bags([bag], tmp_path / "out")
    assert report.incomplete == [str(bag)] and 38 <= report.frames < 60, report
    assert Dataset(tmp_path / "out").num_frames == report.frames


def test_one_bad_bag_among_good_ones_leaves_no_dataset(tmp_path):
    good = write_bag(tmp_path / "good", RIG, recording([frame(t) for t in range(5)]))
    bad = write_bag(tmp_path / "bad", RIG, recording([frame(t) for t in range(0, 50, 5)]))
    with pytest.raises(BagError, match="/bad: "):
        convert_bags([good, bad], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_targets_that_cannot_be_written_are_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    bag = write_bag(tmp_path / "bag", RIG, recording([frame(t) for t in range(5)]))
    assert cli.main(["data", "convert", str(bag), "--out", str(tmp_path / "file" / "out")]) == EXIT_USAGE
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ") and str(tmp_path / "file") in message
    with pytest.raises(RecordingError, match=r"file/bag: cannot make the folder: Not a directory"):
        Recorder(tmp_path / "file" / "bag", rig_topics(RIG), {}, RecorderOptions(min_free_mb=0))


def test_a_repair_that_the_disk_refuses_leaves_the_bag_as_it_was(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", RIG, recording([frame(t) for t in range(40)]))
    file = bag / "bag_0.mcap"
    os.truncate(file, file.stat().st_size - 700)
    before = file.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hiwm_data.mcap_file.os.write", full)
    with pytest.raises(RecordingError, match="No space left on device"):
        repair_bag(bag)
    assert file.read_bytes() == before and not list(bag.glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data", "convert", "/nowhere", "--out", "/tmp/x"], "/nowhere: no such bag"),
        (["data", "info", "/nowhere"], "/nowhere: no such bag"),
        (["record", "--repair", "/nowhere"], "/nowhere: no such bag"),
        (["record"], "--repair BAG"),
    ],
)
def test_commands_refuse_what_is_no_bag_in_one_line(words, expected, capsys):
    assert cli.main(words) == EXIT_USAGE
    assert expected in capsys.readouterr().err
