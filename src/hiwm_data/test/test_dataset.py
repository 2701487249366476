"""The dataset on disk: what goes in comes out, in the layout that lerobot reads, and bad input is named."""

from __future__ import annotations

import json
import pickle
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from hiwm_data.dataset import (
    Dataset,
    DatasetError,
    DatasetWriter,
    Feature,
    Moments,
    VideoOptions,
    merge_datasets,
    rig_features,
)
from hiwm_data.video import ClipReader
from hiwm_rig.contract import load_rig

SIZE = (32, 48)
FEATURES = {
    "observation.images.front": Feature("video", (*SIZE, 3)),
    "observation.images.wrist": Feature("video", (*SIZE, 3)),
    "observation.state": Feature("float32", (3,), ("a", "b", "c")),
    "action": Feature("float32", (3,), ("a", "b", "c")),
    "next.success": Feature("bool", (1,)),
}


def episode(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    grey = (np.arange(length) * 7 + seed * 40) % 256
    frames = np.broadcast_to(grey[:, None, None, None], (length, *SIZE, 3)).astype(np.uint8)
    return {
        "observation.images.front": frames,
        "observation.images.wrist": 255 - frames,
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
    }


def write(root, lengths=(12, 25), first_seed=0, **options):
    with DatasetWriter(root, fps=10, features=FEATURES, robot_type="test", **options) as writer:
        for i, length in enumerate(lengths):
            seed = first_seed + i
            writer.add_episode(episode(length, seed), task=f"task {seed % 2}", meta={"seed": seed, "split": "train"})
    return root


def assert_holds(dataset: Dataset, lengths, first_seed=0) -> None:
    assert [e.length for e in dataset.episodes] == list(lengths)
    for i, length in enumerate(lengths):
        expected, rows = episode(length, first_seed + i), dataset.episode_slice(i)
        for name in ("observation.state", "action", "next.success"):
            np.testing.assert_array_equal(dataset.column(name)[rows], expected[name])
        for camera in ("front", "wrist"):
            decoded = dataset.images(camera)[rows].astype(int)
            assert np.abs(decoded - expected[f"observation.images.{camera}"]).max() <= 3


def test_round_trip_keeps_columns_frames_tasks_and_meta(tmp_path):
    dataset = Dataset(write(tmp_path / "d"))
    assert_holds(dataset, (12, 25))
    assert dataset.fps == 10 and dataset.num_episodes == 2 and len(dataset) == 37
    assert [e.task for e in dataset.episodes] == ["task 0", "task 1"]
    assert [e.meta for e in dataset.episodes] == [{"seed": 0, "split": "train"}, {"seed": 1, "split": "train"}]
    assert dataset.features["action"].names == ("a", "b", "c")
    np.testing.assert_array_equal(dataset.column("index"), np.arange(37))
    np.testing.assert_allclose(dataset.column("timestamp")[12:], np.arange(25) / 10, atol=1e-6)


def test_layout_is_that_of_lerobot_dataset_v3(tmp_path):
    root = write(tmp_path / "d")
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 37, 2)
    assert info["fps"] == 10 and isinstance(info["fps"], int)
    video = info["features"]["observation.images.front"]
    assert video["dtype"] == "video" and video["shape"] == [*SIZE, 3] and video["names"][2] == "channels"
    assert {"timestamp", "frame_index", "episode_index", "index", "task_index"} <= info["features"].keys()
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    second = episodes[1]
    assert (second["dataset_from_index"], second["dataset_to_index"], second["length"]) == (12, 37, 25)
    assert second["tasks"] == ["task 1"]
    key = "videos/observation.images.front"
    assert (second[f"{key}/chunk_index"], second[f"{key}/file_index"]) == (0, 0)
    assert (second[f"{key}/from_timestamp"], second[f"{key}/to_timestamp"]) == pytest.approx((1.2, 3.7))
    assert second["stats/action/count"] == [25] and len(second["stats/observation.images.front/mean"]) == 3
    data = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert "observation.images.front" not in data.column_names
    assert str(data.schema.field("action").type).startswith("fixed_size_list")
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert (root / "videos/observation.images.wrist/chunk-000/file-000.mp4").is_file()


def test_statistics_are_those_of_all_frames(tmp_path):
    dataset = Dataset(write(tmp_path / "d", lengths=(12, 25, 5)))
    column = dataset.column("action")
    stats = dataset.stats["action"]
    np.testing.assert_allclose(stats.mean, column.mean(0), atol=1e-6)
    np.testing.assert_allclose(np.sqrt(stats.variance), column.std(0), atol=1e-6)
    np.testing.assert_array_equal(stats.maximum, column.max(0))
    assert stats.count == 42
    assert dataset.stats["observation.images.front"].mean.shape == (3, 1, 1)


def test_merging_statistics_equals_those_of_the_whole():
    values = np.random.default_rng(0).normal(size=(50, 4))
    merged = Moments.of(values[:7]).merge(Moments.of(values[7:]))
    np.testing.assert_allclose(merged.variance, values.var(0))
    np.testing.assert_allclose(merged.mean, values.mean(0))


def test_episodes_spread_over_several_video_files_are_found(tmp_path):
    root = write(tmp_path / "d", lengths=(12, 25, 9), video=VideoOptions(file_mb=0.0001))
    assert len(list((root / "videos/observation.images.front/chunk-000").iterdir())) > 1
    assert_holds(Dataset(root), (12, 25, 9))


def test_merge_reindexes_without_touching_the_videos(tmp_path):
    parts = [write(tmp_path / "a", (12, 25)), write(tmp_path / "b", (9,), 2), write(tmp_path / "c", (4, 6), 3)]
    out = merge_datasets(parts, tmp_path / "merged")
    merged = Dataset(out)
    assert_holds(merged, (12, 25, 9, 4, 6))
    np.testing.assert_array_equal(merged.column("index"), np.arange(56))
    np.testing.assert_array_equal(np.unique(merged.column("episode_index")), np.arange(5))
    assert [e.task for e in merged.episodes] == ["task 0", "task 1", "task 0", "task 1", "task 0"]
    assert merged.info["total_tasks"] == 2
    assert [e.meta["seed"] for e in merged.episodes] == [0, 1, 2, 3, 4]
    name = "videos/observation.images.front/chunk-000/file-00{}.mp4"
    assert (out / name.format(1)).read_bytes() == (parts[1] / name.format(0)).read_bytes()
    np.testing.assert_allclose(merged.stats["action"].mean, merged.column("action").mean(0), atol=1e-6)
    assert merged.stats["index"].maximum[0] == 55
    again = Dataset(merge_datasets([out, parts[1]], tmp_path / "again"))
    assert [e.length for e in again.episodes] == [12, 25, 9, 4, 6, 9]
    np.testing.assert_array_equal(again.column("action")[-9:], episode(9, 2)["action"])


def test_merge_refuses_datasets_that_do_not_fit(tmp_path):
    first = write(tmp_path / "a")
    other = dict(FEATURES, action=Feature("float32", (4,)))
    with DatasetWriter(tmp_path / "b", fps=10, features=other, robot_type="test") as writer:
        writer.add_episode(episode(5, 0) | {"action": np.zeros((5, 4), np.float32)}, task="t")
    with pytest.raises(DatasetError, match=r"columns \['action'\] differ"):
        merge_datasets([first, tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros((5, 2), np.float32)}, r"'action': expected shape \[5, 3\], got \[5, 2\]"),
        ({"action": np.full((5, 3), np.nan, np.float32)}, "'action': holds NaN"),
        (
            {"observation.images.front": np.zeros((5, *SIZE, 3), np.float32)},
            "'observation.images.front': expected uint8",
        ),
        ({"next.success": np.zeros(4, bool)}, r"'next.success': expected shape \[5\]"),
        ({"extra": np.zeros(5)}, r"unknown columns \['extra'\]"),
    ],
)
def test_a_column_that_does_not_fit_is_named_and_nothing_is_left(tmp_path, change, message):
    with (
        pytest.raises(DatasetError, match=message),
        DatasetWriter(tmp_path / "d", fps=10, features=FEATURES, robot_type="test") as writer,
    ):
        writer.add_episode(episode(5, 0) | change, task="t")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_dataset_is_replaced_only_on_request_and_only_when_the_new_one_is_complete(tmp_path):
    root = write(tmp_path / "d", (12,))
    with pytest.raises(DatasetError, match="exists already"):
        write(root, (5,))
    with (
        pytest.raises(RuntimeError),
        DatasetWriter(root, fps=10, features=FEATURES, robot_type="test", overwrite=True) as writer,
    ):
        writer.add_episode(episode(5, 0), task="t")
        raise RuntimeError("interrupted")
    assert_holds(Dataset(root), (12,))
    assert_holds(Dataset(write(root, (5,), overwrite=True)), (5,))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cache", "d"]


def test_frames_are_decoded_once_and_again_after_the_dataset_changed(tmp_path, monkeypatch):
    root, cache = tmp_path / "d", tmp_path / "cache"
    write(root, (12,))
    np.testing.assert_array_equal(Dataset(root, cache).images("front")[:], Dataset(root).images("front")[:])
    monkeypatch.setattr(ClipReader, "read", lambda *_: pytest.fail("decoded again"))
    assert len(Dataset(root, cache).images("front")[:]) == 12
    monkeypatch.undo()
    write(root, (12,), first_seed=3, overwrite=True)
    assert np.abs(Dataset(root, cache).images("front")[0].astype(int) - 120).max() <= 3
    assert len(list(cache.glob("*.frames"))) == 1, "frames of the old version are gone"


def test_reading_some_frames_decodes_only_the_blocks_they_lie_in(tmp_path, monkeypatch):
    frames = Dataset(write(tmp_path / "d", (12, 25))).images("front")
    decoded: list[tuple[int, int]] = []
    read = ClipReader.read
    monkeypatch.setattr(
        ClipReader,
        "read",
        lambda self, path, first, count: decoded.append((first, count)) or read(self, path, first, count),
    )
    assert abs(int(frames[11][0, 0, 0]) - 77) <= 3 and abs(int(frames[12 + 21][0, 0, 0]) - (21 * 7 + 40)) <= 3
    assert decoded == [(10, 2), (12 + 20, 5)]
    assert frames[np.array([[0, 1], [33, 11]])].shape == (2, 2, *SIZE, 3)
    assert frames[-1].shape == (*SIZE, 3) and frames[3:5, 2:6, 1:3].shape == (2, 4, 2, 3)
    with pytest.raises(IndexError):
        frames[37]


def test_frames_can_be_sent_to_another_process(tmp_path):
    frames = Dataset(write(tmp_path / "d", (12, 25))).images("front")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[10:20], frames[10:20])


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_cache_smaller_than_the_dataset_gives_the_same_frames_and_stays_small(tmp_path, blocks):
    root = write(tmp_path / "d", (12, 25, 9))
    whole = Dataset(root).images("front")[:]
    block_bytes = 10 * SIZE[0] * SIZE[1] * 3
    small = Dataset(root, tmp_path / "small", cache_gb=2 * (blocks + 0.5) * block_bytes / 1e9)
    rows = np.random.default_rng(0).integers(0, 46, 200)
    np.testing.assert_array_equal(small.images("front")[rows], whole[rows])
    kept = sum(p.stat().st_size for p in (tmp_path / "small").glob("*.frames"))
    assert kept == blocks * block_bytes


def test_readers_at_once_share_a_cache_without_disturbing_each_other(tmp_path):
    """With one slot they throw each other's blocks out all the time."""
    root = write(tmp_path / "d", (40,))
    whole = Dataset(root).images("front")[:]
    limit = 2 * 1.5 * 10 * SIZE[0] * SIZE[1] * 3 / 1e9
    readers = [Dataset(root, tmp_path / "shared", cache_gb=limit).images("front") for _ in range(3)]
    wrong: list[int] = []

    def read(reader, seed):
        for row in np.random.default_rng(seed).integers(0, 40, 60):
            if not np.array_equal(reader[int(row)], whole[row]):
                wrong.append(int(row))

    threads = [threading.Thread(target=read, args=(r, i)) for i, r in enumerate(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_damaged_video_is_an_error_that_names_the_file(tmp_path):
    root = write(tmp_path / "d", (40,))
    video = root / "videos/observation.images.front/chunk-000/file-000.mp4"
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 3])
    with pytest.raises(DatasetError, match=r"file-000\.mp4"):
        Dataset(root).images("front")[:]
    video.unlink()
    with pytest.raises(DatasetError, match="no such video file"):
        Dataset(root).images("front")


def test_folders_that_are_no_v3_dataset_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"info\.json: no such file"):
        Dataset(tmp_path)
    root = write(tmp_path / "d", (5,))
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace("v3.0", "v2.1"))
    with pytest.raises(DatasetError, match=r"expected codebase_version v3\.x, got v2\.1.*convert_dataset_v21_to_v30"):
        Dataset(root)
    with pytest.raises(DatasetError, match="no column 'reward'"):
        Dataset(write(tmp_path / "e", (5,))).column("reward")
    with pytest.raises(DatasetError, match="no camera 'top'"):
        Dataset(tmp_path / "e").images("top")


def test_rig_features_follow_the_rig_file():
    rig = load_rig("droid")
    features = rig_features(rig, provenance=True)
    assert [k for k in features if "images" in k] == [f"observation.images.{c.name}" for c in rig.cameras]
    assert features["action"].names == rig.joint_names and features["policy_action"].shape == (8,)
    assert "observation.environment_state" not in features


def test_a_kind_of_column_that_is_not_supported_is_named():
    foreign = Feature.from_json({"dtype": "image", "shape": [3, 8, 8], "names": ["c", "h", "w"]})
    with pytest.raises(DatasetError, match="columns of dtype 'image' are not supported"):
        _ = foreign.numpy_dtype
    channels_first = Feature.from_json(
        {"dtype": "video", "shape": [3, 8, 16], "names": ["channels", "height", "width"]}
    )
    assert channels_first.shape == (8, 16, 3)
