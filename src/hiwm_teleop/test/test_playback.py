"""The tape plays once in full, then from the middle with less amplitude, and never jumps while it plays."""

import json

import numpy as np
import pytest
from hiwm_rig.types import Driver
from hiwm_teleop.playback import Cue, Motion, Phase, Playback, PlaybackError

ROWS = np.stack([np.linspace(0, 1, 21), np.linspace(0, -2, 21)], axis=1)
MOTION = Motion(("a", "b"), 10.0, ROWS, 3)


def playing(branches: int = 3) -> Playback:
    tape = Playback(MOTION, branches)
    for cue in (Cue.RIG_SEEN, Cue.SERVED, Cue.SERVED):
        tape.go(cue)
    return tape


def play(tape: Playback, start: float) -> float:
    """Play one branch to its end; the time at its end."""
    assert tape.observe(Driver.ALIGNING, 5, start) is Phase.ALIGN
    assert tape.observe(Driver.HUMAN, 5, start) is Phase.PLAY
    now, last = start, tape.leader(start)
    while tape.observe(Driver.HUMAN, round(100 * (now - start)), now) is Phase.PLAY:
        now += 0.02
        moved = np.abs(tape.leader(now) - last)
        assert (moved <= np.array([0.011, 0.021])).all()
        last = tape.leader(now) if tape.phase is Phase.PLAY else last
    return now


def test_three_branches_then_the_episode_ends():
    tape = playing()
    now = play(tape, 10.0)
    assert now == pytest.approx(12.0, abs=0.03)
    assert tape.phase is Phase.BACK and tape.middle_snapshot == pytest.approx(100, abs=3)
    tape.go(Cue.SERVED)
    np.testing.assert_allclose(tape.leader(now), ROWS[10])
    now = play(tape, now + 1)
    assert tape.phase is Phase.BACK
    tape.go(Cue.SERVED)
    play(tape, now + 1)
    assert tape.phase is Phase.PAUSE
    assert [tape.go(Cue.SERVED), tape.go(Cue.SERVED)] == [Phase.END, Phase.DONE]


def test_a_rig_without_snapshots_gets_one_branch():
    tape = playing()
    tape.observe(Driver.HUMAN, -1, 0.0)
    for now in np.arange(0, 2.2, 0.05):
        tape.observe(Driver.HUMAN, -1, float(now))
    assert tape.phase is Phase.PAUSE


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("positions"),
        lambda r: r.update(positions=[[0.0, 1.0]]),
        lambda r: r.update(positions=[[0.0], [1.0]]),
        lambda r: r.update(positions=[[0.0, float("nan")], [0.0, 1.0]]),
        lambda r: r.update(rate_hz=0),
    ],
)
def test_a_file_without_a_motion_is_refused_by_name(tmp_path, change):
    raw = {"joint_names": ["a", "b"], "rate_hz": 10.0, "positions": ROWS.tolist(), "start": 0}
    path = tmp_path / "leader.json"
    path.write_text(json.dumps(raw))
    assert Motion.load(path).positions.shape == ROWS.shape
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(PlaybackError, match=r"leader\.json"):
        Motion.load(path)
