"""Import of real DROID episodes, untidy as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.bag_reader import Bag
from hiwm_data.convert import ConvertOptions, convert_bags
from hiwm_data.dataset import Dataset, DatasetError
from hiwm_data.droid import import_droid
from hiwm_data.droid_bags import export_droid_bags
from hiwm_data.video import VideoOptions, VideoSink
from hiwm_rig.contract import load_rig

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "droid_subset"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the DROID episodes are not at {REAL}")


def make_episode(folder: Path, name: str, frames: int = 6, views=(6, 6, 6), split: str = "train", **change) -> None:
    rig = load_rig("droid")
    raw = 3 * frames - 1
    steps = np.arange(raw)[:, None]
    annotation = {
        "texts": ["move"],
        "episode_id": 1,
        "success": 1,
        "videos": [{"video_path": f"videos/{name}/{i}.mp4"} for i in range(3)],
        "observation.state.joint_position": (steps + np.zeros((raw, 7))).tolist(),
        "observation.state.gripper_position": np.zeros(raw).tolist(),
        "action.joint_position": (steps + 0.5 + np.zeros((raw, 7))).tolist(),
        "action.gripper_position": np.ones(raw).tolist(),
    } | change
    path = folder / "annotation" / split / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(annotation))
    for i, (camera, count) in enumerate(zip(rig.cameras, views, strict=True)):
        sink = VideoSink(folder / "tmp", f"{name}-{i}", (camera.height, camera.width, 3), 5.0, VideoOptions())
        sink.add(np.full((count, camera.height, camera.width, 3), 40 * i, np.uint8))
        sink.close()
        target = folder / "videos" / name / f"{i}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "tmp" / "videos" / f"{name}-{i}" / "chunk-000" / "file-000.mp4").rename(target)


def test_action_is_the_last_target_before_the_next_frame(tmp_path):
    make_episode(tmp_path / "in", "0")
    import_droid(tmp_path / "in", tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    state, action = dataset.column("observation.state"), dataset.column("action")
    np.testing.assert_allclose(state[:, 0], [0, 3, 6, 9, 12, 15])
    np.testing.assert_allclose(action[:, 0], [2.5, 5.5, 8.5, 11.5, 14.5, 16.5])
    assert state.shape == (6, 8) and (action[:, 7] == 1).all()
    assert dataset.column("next.success").tolist() == [False] * 5 + [True]
    assert [int(dataset.images(c)[0, 0, 0, 0]) for c in dataset.cameras] == pytest.approx([0, 40, 80], abs=2)


def test_untidy_episodes_are_left_out_with_a_reason_and_the_others_imported(tmp_path):
    source = tmp_path / "in"
    make_episode(source, "0", texts=[""], success=0)
    make_episode(source, "1", views=(6, 5, 6))
    make_episode(source, "2", views=(6, 2, 6))
    make_episode(source, "3", **{"action.gripper_position": [float("nan")] * 17})
    make_episode(source, "4", split="val")
    (source / "annotation" / "train" / "5.json").write_text("{")
    report = import_droid(source, tmp_path / "out")
    assert report.episodes == {"train": 2, "val": 1} and report.frames == {"train": 11, "val": 6}
    assert report.trimmed == {"annotation/train/1.json": 1}
    reasons = {Path(k).stem: v for k, v in report.skipped.items()}
    assert "do not belong together" in reasons["2"] and "NaN" in reasons["3"] and "cannot read" in reasons["5"]
    dataset = Dataset(tmp_path / "out")
    assert [e.task for e in dataset.episodes] == ["", "move", "move"]
    assert [e.meta["outcome"] for e in dataset.episodes] == ["failure", "success", "success"]
    assert [e.meta["split"] for e in dataset.episodes] == ["train", "train", "val"]


def test_a_folder_without_usable_episodes_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="expected annotation/train"):
        import_droid(tmp_path, tmp_path / "out")
    make_episode(tmp_path / "in", "0", views=(6, 6, 1))
    with pytest.raises(DatasetError, match="no episode could be imported"):
        import_droid(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_real
@pytest.mark.timeout(180)
def test_the_real_subset_is_imported_whole(tmp_path):
    report = import_droid(REAL, tmp_path / "out")
    assert report.episodes == {"train": 7, "val": 4} and report.frames == {"train": 587, "val": 267}
    assert not report.skipped and not report.trimmed
    dataset = Dataset(tmp_path / "out")
    assert dataset.cameras == ["exterior_1", "exterior_2", "wrist"] and dataset.fps == 5
    state, action = dataset.column("observation.state"), dataset.column("action")
    inside = np.ones(len(state), bool)
    inside[[e.start + e.length - 1 for e in dataset.episodes]] = False
    following = np.flatnonzero(inside) + 1
    # A target is nearer to where the arm is at the next frame than to where it was.
    assert np.abs(action[inside] - state[following]).mean() < np.abs(action[inside] - state[inside]).mean()
    lower, upper = (np.array([getattr(j, side) for j in load_rig("droid").joints]) for side in ("lower", "upper"))
    assert ((action >= lower) & (action <= upper)).all()


def test_bags_convert_to_what_the_direct_import_gives(tmp_path):
    make_episode(tmp_path / "in", "0", frames=8, views=(8, 8, 8))
    make_episode(tmp_path / "in", "7", frames=5, views=(5, 5, 5), split="val", success=0)
    import_droid(tmp_path / "in", tmp_path / "direct")
    bags = export_droid_bags(tmp_path / "in", tmp_path / "bags")
    assert [b.relative_to(tmp_path / "bags").parts for b in bags] == [("train", "droid_0"), ("val", "droid_7")]
    for split, index in (("train", 0), ("val", 1)):
        convert_bags([tmp_path / "bags" / split], tmp_path / split, options=ConvertOptions(split=split))
        assert_same(Dataset(tmp_path / split), 0, Dataset(tmp_path / "direct"), index)


def assert_same(found: Dataset, index: int, direct: Dataset, original: int) -> None:
    rows, source = found.episode_slice(index), direct.episode_slice(original)
    for column in ("observation.state", "action", "next.success"):
        np.testing.assert_array_equal(found.column(column)[rows], direct.column(column)[source])
    for camera in direct.cameras:
        np.testing.assert_array_equal(found.images(camera)[rows], direct.images(camera)[source])
    keys = ("outcome", "source", "split")
    episode, other = found.episodes[index], direct.episodes[original]
    assert [episode.meta[k] for k in keys] == [other.meta[k] for k in keys]
    assert episode.task == (other.task or "droid") and (found.column("driver")[rows] == 2).all()


def test_a_bag_holds_robot_data_at_the_rate_it_was_recorded(tmp_path):
    make_episode(tmp_path / "in", "0", frames=8, views=(8, 8, 8))
    (bag,) = export_droid_bags(tmp_path / "in", tmp_path / "bags")
    counts = Bag(bag).summary().counts
    rig = load_rig("droid")
    assert counts[rig.arms[0].joint_states] == counts[rig.arms[0].command] == 23
    assert [counts[c.image_topic] for c in rig.cameras] == [8, 8, 8]
    with pytest.raises(DatasetError, match="exists already"):
        export_droid_bags(tmp_path / "in", tmp_path / "bags")
    with pytest.raises(DatasetError, match="found none"):
        export_droid_bags(tmp_path, tmp_path / "none")
    assert not (tmp_path / "none").exists() and not (tmp_path / "none.partial").exists()
