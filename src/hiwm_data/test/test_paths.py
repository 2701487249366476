"""Branches are stored once; paths put them together, frame by frame from the root to each leaf."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_cases import write_tree
from hiwm_data.assemble import Part, assemble
from hiwm_data.dataset import Dataset, branch_paths
from hiwm_data.paths import write_paths


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Dataset:
    return Dataset(write_tree(tmp_path_factory.mktemp("paths") / "tree"))


def test_a_path_leads_from_the_root_to_its_leaf_step_by_step(tree):
    paths = branch_paths(tree)
    assert [p.leaf for p in paths] == [0, 1, 2, 3, 5]
    pieces = [[(q.episode, q.start, q.stop) for q in p.pieces] for p in paths]
    assert pieces[0] == [(0, 0, 10)]
    assert pieces[1] == [(0, 0, 4), (1, 0, 8)]
    assert pieces[2] == [(0, 0, 4), (1, 0, 3), (2, 0, 7)]
    assert pieces[3] == [(0, 0, 2), (3, 0, 4)], "it left branch 2 at a step from before branch 1 began"
    for path in paths[:4]:
        steps = tree.column("observation.state")[path.rows(tree), 0]
        np.testing.assert_array_equal(steps, np.arange(len(steps)))
        assert path.complete


def test_the_dataset_holds_no_frame_twice(tree):
    rows = [
        (e.meta["episode_id"], e.meta["branch_id"], e.meta["start_step"] + i)
        for e in tree.episodes
        for i in range(e.length)
    ]
    assert len(set(rows)) == len(rows) == tree.num_frames
    used = np.unique(np.concatenate([p.rows(tree) for p in branch_paths(tree)]))
    assert len(used) == tree.num_frames, "every stored frame is on a path"


def test_a_gap_makes_a_path_incomplete(tree):
    last = branch_paths(tree)[-1]
    assert [(q.episode, q.start, q.stop) for q in last.pieces] == [(4, 0, 5), (5, 0, 3)] and not last.complete


def test_a_branch_whose_parent_was_left_out_is_an_incomplete_path(tmp_path, tree):
    alone = Dataset(assemble([Part(tree, [1, 2])], tmp_path / "alone"))
    paths = branch_paths(alone)
    assert [[(q.episode, q.start, q.stop) for q in p.pieces] for p in paths] == [[(0, 0, 8)], [(0, 0, 3), (1, 0, 7)]]
    assert not any(p.complete for p in paths)


def test_paths_can_be_written_as_linear_episodes(tmp_path, tree):
    assert len(write_paths(tree, tmp_path / "linear")) == 4
    linear = Dataset(tmp_path / "linear")
    assert [e.length for e in linear.episodes] == [10, 12, 14, 6]
    for episode in linear.episodes:
        steps = linear.column("observation.state")[episode.frames, 0]
        np.testing.assert_array_equal(steps, np.arange(episode.length))
        assert np.abs(linear.images("front")[episode.frames][:, 0, 0, 0] - steps * 9).max() <= 4
    assert [e.meta["outcome"] for e in linear.episodes] == ["failure", "failure", "success", "failure"]
    assert np.flatnonzero(linear.column("next.success")).tolist() == [10 + 12 + 13]
    assert [len(p.pieces) for p in branch_paths(linear)] == [1, 1, 1, 1]
