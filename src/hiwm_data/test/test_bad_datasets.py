"""Data that cannot be used is an error that names the file and says what to do, and never half a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_cases import FEATURES, SIZE, frames, write_plain, write_rig, write_tree
from hiwm_data.dataset import Dataset, DatasetError, DatasetWriter, merge_datasets
from hiwm_data.video import VideoOptions, VideoSink
from hiwm_rig.contract import load_rig

from hiwm_data import commands

FRONT = "videos/observation.images.front/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_a_zero_length_episode_is_refused_and_nothing_is_left(tmp_path):
    empty = {k: v[:0] for k, v in frames(0, 3).items()}
    with (
        pytest.raises(DatasetError, match="an episode needs at least one frame"),
        DatasetWriter(tmp_path / "d", fps=10, features=FEATURES, robot_type="test") as writer,
    ):
        writer.add_episode(frames(0, 3), task="t")
        writer.add_episode(empty, task="t")
    assert files(tmp_path) == []


def test_mixed_image_sizes_are_refused_when_written(tmp_path):
    wrong = frames(0, 3) | {"observation.images.wrist": np.zeros((3, 16, 48, 3), np.uint8)}
    with (
        pytest.raises(DatasetError, match=r"'observation.images.wrist': expected shape \[3, 16, 32, 3\]"),
        DatasetWriter(tmp_path / "d", fps=10, features=FEATURES, robot_type="test") as writer,
    ):
        writer.add_episode(frames(0, 3), task="t")
        writer.add_episode(wrong, task="t")
    assert files(tmp_path) == []


def test_a_video_of_another_size_is_named(tmp_path):
    root = write_plain(tmp_path / "d")
    sink = VideoSink(tmp_path / "other", "x", (SIZE[0], 2 * SIZE[1], 3), 10, VideoOptions())
    sink.add(np.zeros((46, SIZE[0], 2 * SIZE[1], 3), np.uint8))
    sink.close()
    sink.path.replace(root / FRONT)
    with pytest.raises(DatasetError, match=r"file-000\.mp4: frames are 64x16, the dataset says 32x16"):
        Dataset(root).images("front")[0]


def test_a_video_that_lacks_frames_is_named(tmp_path):
    root = write_plain(tmp_path / "d")
    sink = VideoSink(tmp_path / "other", "x", (*SIZE, 3), 10, VideoOptions())
    sink.add(np.zeros((40, *SIZE, 3), np.uint8))
    sink.close()
    sink.path.replace(root / FRONT)
    dataset = Dataset(root)
    assert len(dataset.images("front")[:37]) == 37
    with pytest.raises(DatasetError, match=r"file-000\.mp4: 6 frames are missing, the first is number 40"):
        dataset.images("front")[40]


@pytest.mark.parametrize("file", [DATA, EPISODES, "meta/tasks.parquet", FRONT])
@pytest.mark.parametrize("damage", ["cut", "noise", "gone"])
def test_a_damaged_file_is_named_and_a_merge_leaves_nothing(tmp_path, file, damage):
    good, bad = write_plain(tmp_path / "good"), write_plain(tmp_path / "bad")
    path = bad / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\x00" * len(content))

    def read_all() -> None:
        dataset = Dataset(bad)
        dataset.column("action")
        dataset.images("front")[:]

    name = "episodes" if (file, damage) == (EPISODES, "gone") else path.name
    with pytest.raises(DatasetError, match=name):
        read_all()
    if file != FRONT or damage == "gone":
        with pytest.raises(DatasetError, match=name):
            merge_datasets([good, bad], tmp_path / "merged")
        assert files(tmp_path) == ["bad", "good"]


def test_data_that_does_not_match_the_episodes_table_is_named(tmp_path):
    root = write_plain(tmp_path / "d")
    table = pq.read_table(root / DATA)
    pq.write_table(table.slice(0, 40), root / DATA)
    with pytest.raises(DatasetError, match=r"file-000\.parquet: it holds 40 frames, the episodes table says 46"):
        Dataset(root).column("action")


def test_a_column_that_the_data_files_lack_is_named(tmp_path):
    root = write_plain(tmp_path / "d")
    pq.write_table(pq.read_table(root / DATA).drop_columns(["trust"]), root / DATA)
    with pytest.raises(DatasetError, match=r"file-000\.parquet: .*trust"):
        Dataset(root).column("trust")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"codebase_version": "v3.0"}'])
def test_an_info_file_without_what_is_needed_is_named(tmp_path, text):
    root = write_plain(tmp_path / "d", (3,))
    (root / "meta/info.json").write_text(text)
    with pytest.raises(DatasetError, match=r"info\.json"):
        Dataset(root)


def test_a_v2_dataset_is_refused_with_the_command_that_converts_it(tmp_path):
    root = write_plain(tmp_path / "d", (3,))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(DatasetError, match=rf"v2\.1\. .*convert_dataset_v21_to_v30 .*--root={root}"):
        Dataset(root)


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file/d"):
        write_plain(tmp_path / "file" / "d")
    source = write_plain(tmp_path / "s", (3,))
    with pytest.raises(DatasetError, match="file/m"):
        merge_datasets([source], tmp_path / "file" / "m")
    with pytest.raises(DatasetError, match="HIWM_CACHE"):
        Dataset(source, cache_dir=tmp_path / "file" / "cache").images("front")


def test_a_dataset_of_another_rig_is_named(tmp_path):
    dataset = Dataset(write_rig(tmp_path / "d"))
    dataset.check_joints(load_rig("push_t").joint_names)
    with pytest.raises(
        DatasetError, match=r"'observation.state' holds \['.*'\], expected \['panda_joint1'.*another rig"
    ):
        dataset.check_joints(load_rig("droid").joint_names)


def test_a_full_disk_ends_caching_but_not_reading(tmp_path, monkeypatch, caplog):
    from hiwm_data import frame_cache

    def full(*_):
        raise OSError(28, "No space left on device")

    frames_of = Dataset(write_plain(tmp_path / "d")).images("front")
    monkeypatch.setattr(frame_cache.os, "pwrite", full)
    np.testing.assert_array_equal(frames_of[:], frames_of[:])
    assert caplog.text.count("the disk is full") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("info", "{tree}"), "branches: 5 root-to-leaf paths, 4 without a gap"),
        (("paths", "{tree}"), "0[0:4], 1[0:3], 2[0:7]"),
        (("paths", "{tree}", "--out", "{out}/linear"), "4 paths, 42 frames"),
        (("filter", "{tree}", "--out", "{out}/f", "--outcome", "success"), "1 of 6 episodes"),
        (("split", "{tree}", "--out", "{out}/s", "--by", "outcome"), "failure: 5 episodes"),
        (("merge", "{tree}", "{tree}", "--out", "{out}/m"), "wrote"),
        (("view", "{tree}", "--out", "{out}/v", "--episodes", "2"), "index.html"),
    ],
)
def test_commands_do_what_they_say(tmp_path, capsys, words, text):
    import argparse

    tree = write_tree(tmp_path / "tree")
    verb, *rest = (w.format(tree=tree, out=tmp_path) for w in words)
    parser = argparse.ArgumentParser()
    getattr(commands, f"add_{verb}_arguments")(parser)
    arguments = parser.parse_args(rest)
    assert getattr(commands, f"run_{verb}")(arguments) == 0
    assert text in capsys.readouterr().out
    if verb != "info" and "--out" in rest:
        assert getattr(commands, f"run_{verb}")(arguments) == 2, "an existing target is not overwritten"
        assert "exists already" in capsys.readouterr().err


def test_an_error_while_a_dataset_is_completed_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    from hiwm_data import writer as writing

    root = write_plain(tmp_path / "d", (3,))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_json", full)
        with (
            pytest.raises(OSError, match="No space left"),
            DatasetWriter(root, fps=10, features=FEATURES, robot_type="test", overwrite=True) as writer,
        ):
            writer.add_episode(frames(0, 9), task="t")
    assert files(tmp_path) == ["d"] and len(Dataset(root)) == 3
