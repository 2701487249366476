"""Merging, appending, filtering and splitting move episodes with all that belongs to them, and decode nothing."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_cases import FEATURES, SIZE, frames, write_plain, write_tree
from hiwm_data.dataset import Dataset, DatasetError, DatasetWriter, VideoOptions, append_datasets, merge_datasets
from hiwm_data.selection import Criteria, driver_of, filter_dataset, group_by, select, split_by_share, write_groups
from hiwm_data.stats import Moments, merge_all
from hiwm_data.video import ClipReader, VideoSink


def assert_same_episode(found: Dataset, index: int, wanted: Dataset, original: int) -> None:
    rows, source = found.episode_slice(index), wanted.episode_slice(original)
    for name in ("observation.state", "action", "next.success", "trust", "timestamp", "frame_index"):
        np.testing.assert_array_equal(found.column(name)[rows], wanted.column(name)[source])
    for camera in found.cameras:
        np.testing.assert_array_equal(found.images(camera)[rows], wanted.images(camera)[source])
    assert found.episodes[index].task == wanted.episodes[original].task
    assert set(found.column("episode_index")[rows]) == {index}


def assert_statistics_are_those_of_its_frames(dataset: Dataset) -> None:
    """Equal to a computation from all frames, as a new dataset with the same content would have them."""
    for name, feature in dataset.features.items():
        if feature.is_video:
            parts = [{name: Moments.of_frames(dataset.images(name)[e.frames])} for e in dataset.episodes]
            whole, tolerance = merge_all(parts)[name], 0.02  # the writer sees frames before the codec
        else:
            whole, tolerance = Moments.of(dataset.column(name)), 1e-6
        kept = dataset.stats[name]
        assert kept.count == whole.count == len(dataset)
        for a, b in ((kept.mean, whole.mean), (kept.minimum, whole.minimum), (kept.maximum, whole.maximum)):
            np.testing.assert_allclose(a, b, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(np.sqrt(kept.variance), np.sqrt(whole.variance), atol=tolerance, err_msg=name)


def no_decoding(monkeypatch) -> None:
    monkeypatch.setattr(ClipReader, "read", lambda *_: pytest.fail("frames were decoded"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Dataset:
    return Dataset(write_plain(tmp_path_factory.mktemp("selection") / "plain"))


def test_filters_combine(plain):
    assert [driver_of(plain, e) for e in plain.episodes] == ["policy", "mixed", "human"]
    assert select(plain, Criteria()) == [0, 1, 2]
    assert select(plain, Criteria(driver=("human", "mixed"))) == [1, 2]
    assert select(plain, Criteria(driver=("human", "mixed"), min_trust=0.5)) == [1]
    assert select(plain, Criteria(outcome=("success",), task=("push l*",))) == [2]
    assert select(plain, Criteria(source=("rollout", "correction"), min_frames=20)) == [1]
    assert select(plain, Criteria(task=("push left", "push right"))) == [0, 1, 2]


def test_a_filtered_dataset_holds_the_chosen_episodes_cut_out_without_decoding(plain, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        no_decoding(patch)
        assert filter_dataset(plain.root, tmp_path / "f", Criteria(driver=("policy", "human"))) == [0, 2]
    found = Dataset(tmp_path / "f")
    assert (found.num_episodes, len(found), found.info["total_tasks"]) == (2, 21, 2)
    for index, original in enumerate((0, 2)):
        assert_same_episode(found, index, plain, original)
        assert found.episodes[index].meta == plain.episodes[original].meta
    assert_statistics_are_those_of_its_frames(found)
    small, large = (sum(p.stat().st_size for p in r.rglob("*.mp4")) for r in (found.root, plain.root))
    assert small < large, "the videos hold the chosen episodes only"


def test_a_filter_that_nothing_passes_says_what_there_is(plain, tmp_path):
    with pytest.raises(DatasetError, match=r"none of 3 episodes fits; task: push left, push right; outcome: failure"):
        filter_dataset(plain.root, tmp_path / "f", Criteria(task=("fold",)))
    assert not list(tmp_path.iterdir())


def test_filtering_by_what_is_not_recorded_names_the_column(tmp_path):
    features = {k: f for k, f in FEATURES.items() if k not in ("trust", "intervention")}
    with DatasetWriter(tmp_path / "d", fps=10, features=features, robot_type="test") as writer:
        writer.add_episode({k: v for k, v in frames(0, 5).items() if k in features}, task="t")
    for criteria, column in ((Criteria(driver=("human",)), "intervention"), (Criteria(min_trust=0.1), "trust")):
        with pytest.raises(DatasetError, match=f"no column '{column}'"):
            select(Dataset(tmp_path / "d"), criteria)


def test_episodes_that_do_not_start_with_a_key_frame_are_encoded_again(tmp_path):
    """Foreign videos: key frames anywhere, pictures stored in another order than shown."""
    root = write_plain(tmp_path / "d")
    dataset = Dataset(root)
    for camera in dataset.cameras:
        path = next((root / f"videos/observation.images.{camera}").rglob("*.mp4"))
        pixels = dataset.images(camera)[:]
        sink = VideoSink(tmp_path / "x", camera, (*SIZE, 3), 10, VideoOptions(gop=100))
        sink.add(pixels)
        sink.close()
        sink.path.replace(path)
    foreign = Dataset(root)
    filter_dataset(root, tmp_path / "f", Criteria(driver=("mixed",)))
    found = Dataset(tmp_path / "f")
    for camera in ("front", "wrist"):
        wanted = foreign.images(camera)[foreign.episode_slice(1)].astype(int)
        assert np.abs(found.images(camera)[:].astype(int) - wanted).max() <= 4


def test_splitting_by_a_value_and_by_shares_loses_nothing(plain, tmp_path):
    assert group_by(plain, "task") == {"push right": [0], "push left": [1, 2]}
    folders = write_groups(plain, group_by(plain, "outcome"), tmp_path / "by", mark=False)
    assert {n: Dataset(f).num_episodes for n, f in folders.items()} == {"success": 2, "failure": 1}
    shares = split_by_share(plain, {"train": 0.67, "val": 0.33}, seed=1)
    assert sorted(shares["train"] + shares["val"]) == [0, 1, 2] and len(shares["val"]) == 1
    folders = write_groups(plain, shares, tmp_path / "shares", mark=True)
    assert {e.meta["split"] for e in Dataset(folders["val"]).episodes} == {"val"}
    assert_same_episode(Dataset(folders["val"]), 0, plain, shares["val"][0])
    with pytest.raises(DatasetError, match="add up to 1"):
        split_by_share(plain, {"train": 0.9, "val": 0.2})
    with pytest.raises(DatasetError, match="no episode left for 'val'"):
        split_by_share(plain, {"train": 0.99, "val": 0.01})


def test_branches_of_one_recording_stay_on_one_side_of_a_split(tmp_path):
    tree = Dataset(write_tree(tmp_path / "tree"))
    for seed in range(4):
        groups = split_by_share(tree, {"train": 0.5, "val": 0.5}, seed)
        assert sorted(groups.values()) == [[0, 1, 2, 3], [4, 5]]


def test_appending_keeps_the_files_that_were_there_and_reads_no_frames(tmp_path, monkeypatch):
    root, more = write_plain(tmp_path / "a"), write_plain(tmp_path / "b", (7, 3))
    before = {p.relative_to(root): p.stat().st_ino for p in root.rglob("*") if p.suffix in (".mp4", ".parquet")}
    kept = Dataset(write_plain(tmp_path / "copy"))
    with monkeypatch.context() as patch:
        no_decoding(patch)
        append_datasets(root, [more, more])
    longer = Dataset(root)
    assert [e.length for e in longer.episodes] == [12, 25, 9, 7, 3, 7, 3]
    for path, inode in before.items():
        if path.parts[0] in ("data", "videos"):
            assert (root / path).stat().st_ino == inode, f"{path} was written again"
    np.testing.assert_array_equal(longer.column("index"), np.arange(len(longer)))
    for index in range(3):
        assert_same_episode(longer, index, kept, index)
    assert_same_episode(longer, 5, Dataset(more), 0)
    assert_statistics_are_those_of_its_frames(longer)
    append_datasets(root, [more])
    assert Dataset(root).num_episodes == 9 and sorted(p.name for p in tmp_path.iterdir()) == [
        ".cache",
        "a",
        "b",
        "copy",
    ]


def test_merged_statistics_are_those_of_all_frames(tmp_path):
    parts = [write_plain(tmp_path / "a"), write_plain(tmp_path / "b", (7, 3)), write_tree(tmp_path / "c")]
    merged = Dataset(merge_datasets(parts, tmp_path / "m"))
    assert_statistics_are_those_of_its_frames(merged)
    assert [len(s) > 0 for s in merged.episode_statistics()] == [True] * merged.num_episodes


def test_datasets_of_other_robots_are_not_merged(tmp_path):
    parts = [write_plain(tmp_path / "a"), write_plain(tmp_path / "b", robot="other")]
    with pytest.raises(DatasetError, match=r"b: recorded on robot 'other', but .*a on 'test'"):
        merge_datasets(parts, tmp_path / "m")
    with pytest.raises(DatasetError, match="recorded on robot 'other'"):
        append_datasets(parts[0], [parts[1]])
    assert Dataset(parts[0]).num_episodes == 3 and not (tmp_path / "m").exists()
