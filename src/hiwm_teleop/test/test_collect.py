"""Collected corrections: complete columns, kept by what the operator sees, low trust marked, never more than asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hiwm_data.dataset import Dataset, DatasetError
from hiwm_rig.types import Driver
from hiwm_teleop.collect import CollectReport, CollectSettings, collect_corrections
from hiwm_teleop.operator import OperatorSettings
from toy import RIG, StandStill, ToySkill, ToyWorld


def collect(out: Path, skill: ToySkill | None = None, trust: float = 1.0, **settings: int) -> CollectReport:
    chosen = CollectSettings(operator=OperatorSettings(branches=2), **settings)  # type: ignore[arg-type]
    return collect_corrections(RIG, ToyWorld(trust), StandStill(), out, chosen, skill=skill or ToySkill())


def test_a_dataset_of_corrections_has_every_column_of_provenance(tmp_path: Path) -> None:
    report = collect(tmp_path / "corrections", corrections=3)
    data = Dataset(tmp_path / "corrections")
    assert (report.corrections, data.num_episodes) == (3, 3)
    human = data.column("intervention")
    assert np.array_equal(human, data.column("driver") == int(Driver.HUMAN))
    assert human.sum() == 3 * 15
    assert data.column("policy_proposed").all()
    for episode in data.episodes:
        branch = data.column("branch_id")[data.episode_slice(episode.index)]
        parent = data.column("parent_id")[data.episode_slice(episode.index)]
        assert len(set(branch)) == 1 and parent[0] < branch[0]
        assert np.all(np.diff(data.column("stamp_ns")[data.episode_slice(episode.index)]) > 0)
        assert data.column("next.success")[data.episode_slice(episode.index)][-1]
        assert episode.meta["source"] == "correction" and episode.meta["outcome"] == "success"


def test_what_the_policy_proposed_stands_beside_what_the_operator_did(tmp_path: Path) -> None:
    collect(tmp_path / "corrections", corrections=1)
    data = Dataset(tmp_path / "corrections")
    human = data.column("intervention")
    moved = np.abs(data.column("action") - data.column("policy_action")).max(axis=1)
    assert moved[human].max() > 0.04 and moved[~human][-1] < 1e-6


def test_corrections_that_do_not_help_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no episode"):
        collect(tmp_path / "corrections", ToySkill(step=0.0), corrections=3, max_rollouts=2)


def test_corrections_in_untrusted_states_are_marked(tmp_path: Path) -> None:
    report = collect(tmp_path / "corrections", trust=0.05, corrections=1)
    assert report.low_trust == 1
    assert Dataset(tmp_path / "corrections").episodes[0].meta["low_trust"]


def test_the_operator_log_lies_beside_the_dataset(tmp_path: Path) -> None:
    collect(tmp_path / "corrections", corrections=1)
    assert (tmp_path / "corrections.operator.json").is_file()


def test_a_task_without_a_skill_is_named(tmp_path: Path) -> None:
    rig = RIG.model_copy(update={"task": "juggling"})
    with pytest.raises(KeyError, match="juggling"):
        collect_corrections(rig, ToyWorld(), StandStill(), tmp_path / "x", CollectSettings(corrections=1))
