"""Bags to datasets: what drove which step, branches once each, bad input named, same frames live as from the bag."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hiwm_data.align import Event, RigStreams
from hiwm_data.bag_info import describe_bag
from hiwm_data.bag_reader import Bag, BagError, BagMessage
from hiwm_data.bag_tree import bag_trees
from hiwm_data.convert import ConvertOptions, aligned_frames, convert_bags
from hiwm_data.dataset import Dataset
from hiwm_data.segments import EventType
from hiwm_data.testing import Messages, write_bag
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Driver, Outcome

from hiwm_bringup import cli

RIG = load_rig("push_t")
MESSAGES = Messages(RIG)
PERIOD = NS_PER_S // 10
START = 1000 * NS_PER_S


def at(tick: float) -> int:
    return START + round(tick * PERIOD)


def joints(value: float) -> np.ndarray:
    return np.full(7, value)


def event(kind: EventType, tick: float, branch=0, parent=-1, snapshot=-1, outcome=Outcome.UNKNOWN) -> BagMessage:
    return MESSAGES.event(Event(at(tick), kind, "episode", "push", branch, parent, snapshot, outcome))


def shown(tick: int, value: int, world: tuple[int, int] | None = None, trust: float = 1.0) -> list[BagMessage]:
    """What a rig publishes on a tick; ``world`` is (step, branch)."""
    messages = [MESSAGES.joint_state(joints(value / 100), at(tick)), MESSAGES.image(RIG.cameras[0], value, at(tick))]
    return messages if world is None else [*messages, MESSAGES.world(*world, trust, at(tick))]


def driven(tick: int, driver: Driver = Driver.POLICY, proposal: bool = True) -> list[BagMessage]:
    """What the arbiter publishes between two ticks: the last of three commands is the one in force at ``tick + 1``."""
    messages = []
    for part in (0.1, 0.5, 0.9):
        proposed = joints(-(tick + part)) if proposal else None
        messages += [
            MESSAGES.control(driver, proposed, at(tick + part)),
            MESSAGES.command(joints(tick + part), at(tick + part)),
        ]
    return messages


def plain_recording(ticks: int = 6) -> list[BagMessage]:
    messages = [event(EventType.BEGIN, -0.5)]
    for tick in range(ticks):
        messages += shown(tick, 10 * tick % 256) + driven(tick)
    return [*messages, event(EventType.END, ticks - 0.05, outcome=Outcome.SUCCESS)]


def branching_recording() -> list[BagMessage]:
    """Root 0,1,2,3 | rollback to step 1: branch 5, a person drives | branch 6 from step 1 again."""
    messages = [event(EventType.BEGIN, -0.5)]
    for tick in range(4):
        messages += shown(tick, 10 * tick, (tick, 4)) + driven(tick)
    messages += [event(EventType.ROLLBACK, 4 - 1e-4, branch=5, parent=4, snapshot=1, outcome=Outcome.FAILURE)]
    for i, tick in enumerate(range(4, 8)):
        messages += shown(tick, 10 + 100 * bool(i) + i, (1 + i, 5), trust=0.5) + driven(tick, Driver.HUMAN)
    messages += [event(EventType.BRANCH, 8 - 1e-4, branch=6, parent=5, snapshot=1, outcome=Outcome.SUCCESS)]
    for i, tick in enumerate(range(8, 11)):
        messages += shown(tick, 10 + 200 * bool(i) + i, (1 + i, 6)) + driven(tick)
    return [*messages, event(EventType.END, 11, outcome=Outcome.FAILURE)]


def convert(tmp_path: Path, messages, **options) -> tuple[Dataset, object]:
    bag = write_bag(tmp_path / "bag", RIG, messages)
    report = convert_bags([bag], tmp_path / "out", options=ConvertOptions(**options))
    return Dataset(tmp_path / "out"), report


def test_action_is_the_last_command_before_the_next_tick(tmp_path):
    dataset, report = convert(tmp_path, plain_recording())
    np.testing.assert_allclose(dataset.column("action")[:, 0], np.arange(6) + 0.9, rtol=1e-6)
    np.testing.assert_allclose(dataset.column("policy_action")[:, 3], -(np.arange(6) + 0.9), rtol=1e-6)
    np.testing.assert_allclose(dataset.column("observation.state")[:, 0], np.arange(6) / 10, rtol=1e-6)
    np.testing.assert_array_equal(dataset.column("stamp_ns"), [at(t) for t in range(6)])
    assert np.abs(dataset.images("front")[:, 5, 5, 0] - 10.0 * np.arange(6)).max() <= 2
    assert dataset.column("next.success").tolist() == [False] * 5 + [True]
    assert dataset.column("driver").tolist() == [0] * 6 and (dataset.column("trust") == 1).all()
    assert dataset.episodes[0].meta["outcome"] == "success" and dataset.episodes[0].task == "push"
    assert report.episodes == 1 and report.frames == 6


def test_every_branch_is_written_once_with_its_parent_and_only_its_own_frames(tmp_path):
    dataset, report = convert(tmp_path, branching_recording())
    assert [e.length for e in dataset.episodes] == [4, 4, 3]
    keys = ("branch_id", "parent_id", "snapshot_id", "start_step", "outcome", "source")
    assert [tuple(e.meta[k] for k in keys) for e in dataset.episodes] == [
        (4, -1, -1, 0, "failure", "rollout"),
        (5, 4, 1, 1, "success", "correction"),
        (6, 4, 1, 1, "failure", "rollout"),
    ]
    stamps = dataset.column("stamp_ns")
    assert len(np.unique(stamps)) == len(stamps) == 11, "no recorded step is written twice"
    np.testing.assert_array_equal(dataset.column("branch_id"), [4] * 4 + [5] * 4 + [6] * 3)
    np.testing.assert_array_equal(dataset.column("parent_id"), [-1] * 4 + [4] * 4 + [4] * 3)
    np.testing.assert_array_equal(dataset.column("intervention"), [False] * 4 + [True] * 4 + [False] * 3)
    np.testing.assert_allclose(dataset.column("trust")[4:8], 0.5)
    assert np.flatnonzero(dataset.column("next.success")).tolist() == [7]
    assert dataset.episodes[1].meta["trust_min"] == 0.5 and report.intervention_frames == 4


def test_the_action_of_a_frame_never_comes_from_before_the_jump(tmp_path):
    """Between a jump and the first command after it a rig holds: the action is where it stands."""
    late = at(5)
    messages = [m for m in branching_recording() if not (m.topic == RIG.arms[0].command and at(4) <= m.log_ns < late)]
    dataset, _ = convert(tmp_path, messages)
    rows = dataset.episode_slice(1)
    np.testing.assert_allclose(dataset.column("action")[rows][0], dataset.column("observation.state")[rows][0])
    np.testing.assert_allclose(dataset.column("action")[rows][1:, 0], [5.9, 6.9, 7.9], rtol=1e-6)


def test_the_last_action_of_a_branch_comes_from_before_the_jump_that_leaves_it(tmp_path):
    """Right after a jump the arbiter holds where the new branch begins: no command of the branch that was left."""
    after_jump = [MESSAGES.command(joints(99.0), at(4) - 1000), MESSAGES.control(Driver.PAUSED, None, at(4) - 1000)]
    dataset, _ = convert(tmp_path, sorted([*branching_recording(), *after_jump], key=lambda m: m.log_ns))
    np.testing.assert_allclose(dataset.column("action")[:4, 0], [0.9, 1.9, 2.9, 3.9], rtol=1e-6)
    assert dataset.column("driver")[3] == Driver.POLICY


def test_frames_shown_again_by_a_paused_rig_are_one_frame(tmp_path):
    messages = [event(EventType.BEGIN, -0.5)]
    for tick, step in enumerate([0, 1, 1, 1, 2, 3]):
        messages += shown(tick, step, (step, 0)) + driven(tick)
    dataset, report = convert(tmp_path, messages)
    np.testing.assert_array_equal(dataset.column("stamp_ns"), [at(t) for t in (0, 3, 4, 5)])
    np.testing.assert_allclose(dataset.column("action")[:, 0], [0.9 + 2, 3.9, 4.9, 5.9], rtol=1e-6)
    assert report.counters["repeated_frames"] == 2


def test_a_lost_frame_splits_the_branch_so_that_no_step_spans_two(tmp_path):
    messages = [m for m in branching_recording() if not (m.topic == RIG.cameras[0].image_topic and m.log_ns == at(2))]
    dataset, report = convert(tmp_path, messages, min_frames=1)
    assert [e.length for e in dataset.episodes] == [2, 1, 4, 3]
    assert [e.meta["part"] for e in dataset.episodes] == [0, 1, 0, 0]
    assert report.counters["gaps"] == 1


def test_a_discarded_branch_is_left_out_and_a_discarded_episode_whole(tmp_path):
    def with_outcome(kind: EventType, outcome: Outcome):
        messages = branching_recording()
        bag = write_bag(tmp_path / f"{kind}", RIG, messages)
        streams = RigStreams(RIG)
        for message in Bag(bag).messages([RIG.topics.episode]):
            streams.push(message.topic, MESSAGES.store.deserialize_cdr(message.data, message.type), 0)
        changed = [replace(e, outcome=outcome) if e.type == kind else e for e in streams.events]
        return [m for m in messages if m.topic != RIG.topics.episode] + [MESSAGES.event(e) for e in changed]

    dataset, report = convert(tmp_path, with_outcome(EventType.BRANCH, Outcome.DISCARD))
    assert [e.meta["branch_id"] for e in dataset.episodes] == [4, 6]
    assert report.counters["discarded_segments"] == 1
    bag = write_bag(tmp_path / "whole", RIG, with_outcome(EventType.END, Outcome.DISCARD))
    with pytest.raises(BagError, match="no frames to write"):
        convert_bags([bag], tmp_path / "none")


def test_only_frames_inside_episodes_count_and_a_bag_without_episodes_is_one(tmp_path):
    messages = plain_recording()
    dataset, report = convert(tmp_path, [m for m in messages if m.topic != RIG.topics.episode])
    assert dataset.num_frames == 6 and dataset.episodes[0].meta["outcome"] == "unknown"
    later = [m for m in messages if m.topic != RIG.topics.episode] + [event(EventType.BEGIN, 1.5)]
    bag = write_bag(tmp_path / "later", RIG, later)
    report = convert_bags([bag], tmp_path / "later_out")
    assert report.frames == 4 and report.counters["outside_episodes"] == 2


def test_a_bag_without_the_needed_topics_names_them(tmp_path):
    messages = [m for m in plain_recording() if m.topic != RIG.arms[0].command]
    bag = write_bag(tmp_path / "bag", RIG, messages)
    with pytest.raises(
        BagError, match=r"no messages on /follower/joint_trajectory; it has .*/camera/front/color/image_raw"
    ):
        convert_bags([bag], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_bag_of_another_rig_is_refused(tmp_path):
    bag = write_bag(tmp_path / "bag", RIG, plain_recording())
    with pytest.raises(BagError, match="no messages on /camera/exterior_1"):
        convert_bags([bag], tmp_path / "out", rig=load_rig("droid"))
    other = write_bag(tmp_path / "other", RIG.model_copy(update={"name": "other"}), plain_recording())
    with pytest.raises(BagError, match="recorded on another rig"):
        convert_bags([bag, other], tmp_path / "out")


def test_malformed_messages_are_counted_and_left_out(tmp_path):
    messages = plain_recording()
    bad = MESSAGES.command(joints(np.nan), at(3.95))
    dataset, report = convert(tmp_path, [*messages, bad])
    assert report.counters[f"rejected {RIG.arms[0].command}"] == 1
    np.testing.assert_allclose(dataset.column("action")[3, 0], 3.9, rtol=1e-6)


def test_a_branch_hangs_where_its_snapshot_was_made_not_where_the_operator_came_from(tmp_path):
    """Branch 6 comes after branch 5, which has a step 1 of its own; its snapshot was made on the root."""
    messages = branching_recording()
    dataset, _ = convert(tmp_path, messages)
    assert [e.meta["parent_id"] for e in dataset.episodes] == [-1, 4, 4]


def test_the_tree_of_a_bag_says_who_drove_where_and_how_it_ended(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", RIG, branching_recording())
    trees, _ = bag_trees(Bag(bag))
    assert [(t.episode_id, t.task, len(t.roots)) for t in trees] == [("episode", "push", 1)]
    root = trees[0].roots[0]
    found = {
        b.branch_id: (b.parent_id, b.start_step, b.frames, dict(b.drivers), b.outcome) for b in trees[0].branches()
    }
    assert found == {
        4: (-1, 0, 4, {"policy": 4}, "failure"),
        5: (4, 1, 4, {"human": 4}, "success"),
        6: (4, 1, 3, {"policy": 3}, "failure"),
    }
    assert root.children[0].trust_min == 0.5 and [c.branch_id for c in root.children] == [5, 6]
    assert cli.main(["data", "info", str(bag)]) == 0
    text = capsys.readouterr().out
    assert "episode episode: task push, 1.0 s, failure" in text
    assert "└─ branch 4: 4 frames (policy 4), failure" in text
    assert "   ├─ branch 5 from step 1: 4 frames (human 4), success, trust at least 0.50" in text
    assert "   └─ branch 6 from step 1: 3 frames (policy 3), failure" in text
    assert RIG.topics.control_state in text and "git_revision" in text


def test_a_discarded_branch_is_in_the_tree_of_its_bag(tmp_path):
    messages = [event(EventType.BEGIN, -0.5)]
    for tick in range(4):
        messages += shown(tick, tick) + driven(tick)
    bag = write_bag(tmp_path / "bag", RIG, [*messages, event(EventType.END, 3.95, outcome=Outcome.DISCARD)])
    (tree,), _ = bag_trees(Bag(bag))
    assert [b.outcome for b in tree.branches()] == ["discard"]


def test_a_bag_without_a_rig_is_described_all_the_same(tmp_path):
    messages = [m for m in plain_recording() if m.topic != RIG.arms[0].command]
    text = describe_bag(write_bag(tmp_path / "bag", RIG, messages))
    assert RIG.cameras[0].image_topic in text and "no branches can be told: " in text


def test_a_bag_that_is_cut_off_is_converted_as_far_as_it_goes(tmp_path):
    bag = write_bag(tmp_path / "bag", RIG, plain_recording(40))
    file = bag / "bag_0.mcap"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 600])
    report = convert_bags([bag], tmp_path / "out")
    assert report.incomplete == [str(bag)] and 0 < report.frames <= 40


@pytest.mark.parametrize("seed", range(3))
def test_live_topics_and_bags_give_the_same_frames(tmp_path, seed):
    """Live messages come interleaved and late, bags in the order of the file: the aligned frames are equal."""
    messages = branching_recording()
    bag = Bag(write_bag(tmp_path / "bag", RIG, messages))
    recorded = RigStreams(RIG, depth=None)
    for message in bag.messages(recorded.topics):
        recorded.push(message.topic, bag.decode(message), message.log_ns)
    expected = aligned_frames(recorded, Counter())

    rng = np.random.default_rng(seed)
    late = sorted(messages, key=lambda m: m.log_ns + rng.integers(0, PERIOD // 3))
    live, found = RigStreams(RIG, depth=16), {}
    for message in late:
        live.push(message.topic, MESSAGES.store.deserialize_cdr(message.data, message.type), message.log_ns)
        for frame in aligned_frames(live, Counter()):
            found[frame.stamp_ns] = frame
    assert sorted(found) == [f.stamp_ns for f in expected]
    for frame in expected:
        other = found[frame.stamp_ns]
        np.testing.assert_array_equal(frame.joints, other.joints)
        np.testing.assert_array_equal(frame.images["front"], other.images["front"])
        assert frame.world == other.world
    assert len(expected) == 11
