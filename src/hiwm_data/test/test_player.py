"""Playing a bag: what is due when, stamps that fit the clock, seek, pause and loop. No clock runs here."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hiwm_data.align import Event
from hiwm_data.bag_reader import Bag
from hiwm_data.player import Player, PlayerOptions, ReplayTime, read_stamp, rig_output, with_stamp
from hiwm_data.segments import EventType
from hiwm_data.testing import Messages, write_bag
from hiwm_rig.codecs import NS_PER_S, stamp_to_ns
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Outcome

RIG = load_rig("push_t")
CAMERA = RIG.cameras[0]
MESSAGES = Messages(RIG)
PERIOD = NS_PER_S // 10
START = 1000 * NS_PER_S
LATE = 1 << 40
"""Nanoseconds: when the replay begins, on the player's clock."""


@pytest.fixture
def bag(tmp_path: Path) -> Bag:
    """Ten seconds: frames every 0.1 s, an episode from 2 s on with a branch at 6 s."""
    messages = [MESSAGES.image(CAMERA, i, START + i * PERIOD) for i in range(101)]
    begin = Event(START + 2 * NS_PER_S + 1, EventType.BEGIN, "e", "push", 0, -1, -1, Outcome.UNKNOWN)
    branch = Event(START + 6 * NS_PER_S + 1, EventType.BRANCH, "e", "push", 1, 0, 3, Outcome.FAILURE)
    end = Event(START + 9 * NS_PER_S + 1, EventType.END, "e", "push", 1, 0, 3, Outcome.SUCCESS)
    messages += [MESSAGES.event(e) for e in (begin, branch, end)]
    return Bag(write_bag(tmp_path / "bag", RIG, sorted(messages, key=lambda m: m.log_ns)))


def player(bag: Bag, events: bool = False, **options) -> Player:
    topics = [CAMERA.image_topic, *([RIG.topics.episode] if events else [])]
    made = Player(bag, topics, PlayerOptions(**options))
    made.hold(LATE)
    return made


def values(bag: Bag, messages) -> list[int]:
    return [int(bag.decode(m).data[0]) for m in messages if m.topic == CAMERA.image_topic]


def stamps(bag: Bag, messages) -> list[int]:
    return [stamp_to_ns(bag.decode(m).header.stamp) for m in messages]


def test_messages_come_at_their_own_pace_and_at_any_rate(bag):
    slow = player(bag)
    assert values(bag, slow.due(LATE)) == [0]
    assert values(bag, slow.due(LATE + 3 * PERIOD)) == [1, 2, 3]
    assert values(bag, player(bag, rate=2.0).due(LATE + 3 * PERIOD)) == list(range(7))
    assert len(slow.due(LATE + 11 * NS_PER_S)) == 97 and slow.finished


def test_recorded_stamps_are_kept_unless_asked(bag):
    assert stamps(bag, player(bag).due(LATE + 2 * PERIOD)) == [START, START + PERIOD, START + 2 * PERIOD]


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_stamps_moved_to_now_are_those_of_a_rig_that_runs_now(bag, rate):
    played = player(bag, rate=rate, time=ReplayTime.NOW)
    assert stamps(bag, played.due(LATE + 2 * PERIOD))[:3] == [LATE + round(i * PERIOD / rate) for i in range(3)]
    played.pause(True, LATE + 2 * PERIOD)
    assert played.due(LATE + 5 * NS_PER_S) == []
    played.pause(False, LATE + 5 * NS_PER_S)
    after = stamps(bag, played.due(LATE + 5 * NS_PER_S + round(PERIOD / rate)))
    assert after == [LATE + 5 * NS_PER_S + round(PERIOD / rate)]


def test_seek_goes_to_a_time_forwards_and_backwards(bag):
    played = player(bag)
    played.seek(5.0, LATE)
    assert values(bag, played.due(LATE + PERIOD)) == [50, 51]
    played.seek(1.0, LATE + PERIOD)
    assert values(bag, played.due(LATE + PERIOD)) == [10]
    for outside in (-1.0, 10.5):
        with pytest.raises(ValueError, match=r"outside of the bag, which has 10\.0 s"):
            played.seek(outside, LATE)
    assert values(bag, played.due(LATE + 2 * PERIOD)) == [11], "a refused seek changes nothing"
    assert values(bag, player(bag, start_s=9.9).due(LATE)) == [99]


def test_after_a_seek_the_running_episode_is_announced_first(bag):
    def announced(seconds: float) -> list[int]:
        played = player(bag, events=True, start_s=seconds)
        return [bag.decode(m).type for m in played.due(LATE) if m.topic == RIG.topics.episode]

    assert announced(1.0) == []
    assert announced(3.0) == [EventType.BEGIN]
    assert announced(7.0) == [EventType.BEGIN, EventType.BRANCH]
    assert announced(9.5) == []


def test_the_clock_never_runs_backwards(bag):
    played = player(bag, time=ReplayTime.CLOCK, loop=True)
    shown, seen = [], []
    now = LATE
    for tick in range(350):
        now += PERIOD
        if tick == 120:
            played.seek(0.5, now)
        messages = played.due(now)
        shown.append(played.clock_ns(now))
        seen += stamps(bag, messages)
        assert all(stamp <= shown[-1] for stamp in stamps(bag, messages))
    assert (shown[0], seen[0]) == (START + PERIOD, START)
    assert all(b > a for a, b in pairwise(shown))
    assert all(b > a for a, b in pairwise(seen)) and len(seen) > 330


def test_a_loop_begins_again_and_a_plain_replay_ends(bag):
    looping = player(bag, loop=True)
    found = []
    for tick in range(220):
        found += values(bag, looping.due(LATE + tick * PERIOD))
        assert not looping.finished
    assert found.count(0) >= 2 and found.count(50) >= 2


def test_a_rate_that_leads_nowhere_is_refused(bag):
    with pytest.raises(ValueError, match="rate must be above 0, got 0"):
        player(bag, rate=0.0)


def test_only_the_stamp_of_a_message_is_touched(bag):
    message = next(bag.messages([CAMERA.image_topic]))
    moved = message._replace(data=with_stamp(message.data, 77 * NS_PER_S + 5))
    assert read_stamp(moved.data) == 77 * NS_PER_S + 5 and len(moved.data) == len(message.data)
    before, after = bag.decode(message), bag.decode(moved)
    assert after.header.frame_id == before.header.frame_id and (after.data == before.data).all()


def test_what_a_rig_publishes_is_neither_command_nor_proposal():
    topics = rig_output(RIG)
    assert CAMERA.image_topic in topics and RIG.arms[0].joint_states in topics and RIG.topics.episode in topics
    assert not {RIG.arms[0].command, RIG.arms[0].policy_command, RIG.arms[0].leader_joint_states} & set(topics)
