"""The scripted operator: the loop of watching, going back, correcting and branching, and what it never does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from hiwm_rig.types import Driver, Outcome
from hiwm_teleop.lockstep import LockStep
from hiwm_teleop.operator import OperatorSettings, ScriptedOperator
from hiwm_teleop.operator_table import TABLE, AskControl, Cue, GoBack, Phase
from hiwm_teleop.skill import View
from toy import RIG, StandStill, ToySkill, ToyWorld

VMAX = np.array([j.max_velocity for j in RIG.joints])


def loop(skill: ToySkill | None = None, **settings: int) -> tuple[LockStep, ToyWorld]:
    world = ToyWorld()
    operator = ScriptedOperator(skill or ToySkill(), OperatorSettings(**settings))
    return LockStep(RIG, world, StandStill(), operator), world


def test_every_phase_can_be_left_and_every_cue_is_used() -> None:
    assert {phase for phase, _ in TABLE} == set(Phase)
    assert set(TABLE.values()) == set(Phase)
    assert {cue for _, cue in TABLE} == set(Cue)


def test_a_stalled_rollout_is_rolled_back_corrected_and_branched_again_from_the_same_snapshot() -> None:
    run, _ = loop(branches=3)
    branches, outcome = run.run(0)
    log = run.operator.log
    assert outcome is Outcome.SUCCESS
    assert (log.count("rollback"), log.count("branch"), log.count("takeover")) == (1, 2, 3)
    origins = {b.rows[0].place.snapshot_id for b in branches if b.corrected}
    assert len(origins) == 1, "all corrections start at the same snapshot"
    assert [b.solved for b in branches] == [False, True, True, True]


def test_a_correction_is_at_most_four_seconds_long() -> None:
    run, _ = loop(ToySkill(frames=500, step=0.001), branches=1, corrections_per_branch=1)
    branches, _ = run.run(0)
    driven = [sum(r.driver is Driver.HUMAN for r in b.rows) for b in branches]
    assert max(driven) * RIG.period_s == OperatorSettings().max_correction_s == 4.0


def _operator_with_a_long_correction() -> ScriptedOperator:
    operator, _ = _failing_operator()
    operator.on_went_back(True, 1)
    skill = ToySkill(frames=500, step=0.001)
    operator.on_thought(skill.plan(operator.glimpse, np.array(RIG.home), 0, np.random.default_rng(0)))  # type: ignore[arg-type]
    return operator


def test_a_hand_that_misses_frames_does_not_drive_longer() -> None:
    operator = _operator_with_a_long_correction()
    seconds = 0
    while operator.phase in (Phase.TAKEOVER, Phase.CORRECT):  # it sees one frame in ten
        operator.observe(replace(_view(Driver.HUMAN, branch=1), stamp_ns=seconds * 1_000_000_000))
        seconds += 1
    assert seconds == 1 + OperatorSettings().max_correction_s


def test_a_world_that_stands_still_while_the_operator_thinks_does_not_shorten_the_correction() -> None:
    operator = _operator_with_a_long_correction()
    frames = 0
    while operator.phase in (Phase.TAKEOVER, Phase.CORRECT):  # every frame is shown for a second
        view = replace(_view(Driver.HUMAN, branch=1), stamp_ns=frames * 1_000_000_000, time_s=frames * RIG.period_s)
        operator.observe(view)
        frames += 1
    assert frames == 1 + round(OperatorSettings().max_correction_s / RIG.period_s)


def test_takeovers_and_hand_backs_never_jump() -> None:
    run, _ = loop(branches=2)
    for branch in run.run(0)[0]:
        actions = np.stack([r.action for r in branch.rows])
        assert np.all(np.abs(np.diff(actions, axis=0)) <= VMAX * RIG.period_s + 1e-9)


def test_the_correction_starts_on_the_very_frame_of_the_snapshot() -> None:
    run, _ = loop(branches=1)
    corrected = [b for b in run.run(0)[0] if b.corrected]
    assert corrected[0].rows[0].driver is Driver.HUMAN
    assert corrected[0].rows[0].action[0] > corrected[0].rows[0].joints[0]


def test_the_policy_forgets_on_every_rollback_and_branch() -> None:
    world, policy = ToyWorld(), StandStill()
    LockStep(RIG, world, policy, ScriptedOperator(ToySkill(), OperatorSettings(branches=3))).run(0)
    assert policy.resets == 1 + 3


def test_a_rollout_that_succeeds_needs_no_correction() -> None:
    run, world = loop()
    world.reset = lambda seed: world._show(np.array([0.5, *RIG.home[1:]]))  # type: ignore[method-assign]
    world._branch = 0
    _, outcome = run.run(0)
    assert outcome is Outcome.SUCCESS
    assert run.operator.log.count("takeover") == 0


def test_an_operator_gives_up_when_no_correction_helps() -> None:
    run, _ = loop(ToySkill(step=0.0), branches=2, corrections_per_branch=2, max_corrections=4)
    _, outcome = run.run(0)
    assert outcome is Outcome.FAILURE
    assert run.operator.log.count("takeover") == 4


def _view(driver: Driver, branch: int = 0, snapshot: int = 0) -> View:
    image = np.full((128, 128, 3), 128, np.uint8)
    return View({"front": image}, np.array(RIG.home), snapshot, driver, branch, snapshot, snapshot)


def _failing_operator() -> tuple[ScriptedOperator, list[object]]:
    operator = ScriptedOperator(ToySkill())
    operator.begin()
    for k in range(10):
        actions = list(operator.observe(_view(Driver.POLICY, snapshot=k)))
    return operator, actions


def test_it_pauses_the_robot_before_it_goes_back() -> None:
    _, actions = _failing_operator()
    assert [type(a) for a in actions] == [AskControl, GoBack]
    assert actions[0].driver is Driver.PAUSED  # type: ignore[attr-defined]


def test_on_a_rig_without_snapshots_it_corrects_from_where_it_is() -> None:
    operator, _ = _failing_operator()
    operator.on_went_back(False, -1, "no such service")
    assert operator.phase is Phase.PLAN


def test_frames_of_the_branch_it_left_are_not_looked_at() -> None:
    operator, _ = _failing_operator()
    operator.on_went_back(True, 1)
    operator.on_thought(operator.skill.plan(operator.glimpse, np.array(RIG.home), 0, np.random.default_rng(0)))  # type: ignore[arg-type]
    assert operator.observe(_view(Driver.HUMAN, branch=0, snapshot=11)) == ()
    assert operator.phase is Phase.TAKEOVER
    operator.observe(_view(Driver.HUMAN, branch=1, snapshot=0))
    assert operator.phase is Phase.CORRECT


def test_an_arbiter_that_never_grants_does_not_hang_the_operator() -> None:
    operator, _ = _failing_operator()
    operator.on_went_back(True, 1)
    operator.on_thought(operator.skill.plan(operator.glimpse, np.array(RIG.home), 0, np.random.default_rng(0)))  # type: ignore[arg-type]
    for k in range(2 * OperatorSettings().control_patience + 1):
        operator.observe(_view(Driver.PAUSED, branch=1, snapshot=k))
    assert operator.phase is Phase.END


def test_the_leader_rests_on_the_follower_until_the_takeover_and_then_moves_steadily() -> None:
    operator, _ = _failing_operator()
    home = np.array(RIG.home)
    assert np.allclose(operator.leader(0.7), home)  # type: ignore[arg-type]
    operator.on_went_back(True, 1)
    operator.on_thought(operator.skill.plan(operator.glimpse, home, 0, np.random.default_rng(0)))  # type: ignore[arg-type]
    operator.observe(_view(Driver.HUMAN, branch=1, snapshot=0))
    waist = [operator.leader(p)[0] for p in (0.0, 0.5, 1.0, 3.0)]  # type: ignore[index]
    assert np.allclose(waist, [0.0, 0.025, 0.05, 0.05])


def test_the_log_says_stand_in_and_holds_times_counts_and_seconds(tmp_path) -> None:  # type: ignore[no-untyped-def]
    run, _ = loop(branches=2)
    run.run(0)
    run.operator.log.write(tmp_path / "log.json")
    text = json.loads((tmp_path / "log.json").read_text())
    assert "stand-in" in text["operator"]
    assert (text["corrections"], text["rollbacks"], text["branches"]) == (2, 1, 1)
    assert text["operator_seconds"] == 3.0
    assert all({"stamp_ns", "kind"} <= event.keys() for event in text["events"])
