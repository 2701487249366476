"""The benchmark of reading datasets reads a converted bag, by worker processes, and counts every frame."""

from __future__ import annotations

from hiwm_data.convert import convert_bags
from hiwm_data.dataset import Dataset
from hiwm_data.testing import write_bag
from hiwm_rig.contract import load_rig

from hiwm_bringup import bench_dataset


def test_it_reads_a_converted_bag(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_dataset, "_EPISODE_FRAMES", 12)
    monkeypatch.setattr(bench_dataset, "_BAG_EPISODES", 2)
    monkeypatch.setattr(bench_dataset, "_STEPS", 3)
    rig = load_rig("push_t")
    write_bag(tmp_path / "bag", rig, bench_dataset.recording(rig))
    convert_bags([tmp_path / "bag"], tmp_path / "set")
    assert [(e.length, e.meta["source"], e.meta["outcome"]) for e in Dataset(tmp_path / "set").episodes] == [
        (12, "demonstration", "success")
    ] * 2
    found = bench_dataset.read_dataset(tmp_path / "set", workers=1)
    assert found["frames"] == 24 and min(found["first_epoch"], found["after"]) > 0
