"""Executing chunks, and measuring: what is dropped when, which seeds are paired, what the intervals are."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from pathlib import Path

import numpy as np
import pytest
from hiwm_policy.evaluation import EpisodeResult, EvaluationConfig, evaluate, summarize
from hiwm_policy.policy import Policy, PolicyError, PolicyObservation
from hiwm_policy.runner import ChunkedRunner
from hiwm_policy.statistics import paired_difference, wilson
from hiwm_policy.testing import TINY_SPEC, TinyEnv
from hiwm_policy.worker import LatestWorker
from hiwm_rig.contract import Rig
from hiwm_rig.types import Observation


class CountingPolicy(Policy):
    """Row j of its n-th chunk is n + j / 100 in the first joint."""

    spec = TINY_SPEC

    def __init__(self) -> None:
        self.calls: list[PolicyObservation] = []
        self.seeds: list[int | None] = []

    def predict_action(self, observation: PolicyObservation) -> np.ndarray:
        self.check(observation)
        self.calls.append(observation)
        chunk = np.zeros((1, 6, 3), np.float32)
        chunk[0, :, 0] = len(self.calls) / 10 + np.arange(6) / 100
        return chunk

    def reset(self, seed: int | None = None) -> None:
        self.seeds.append(seed)

    def save(self, directory: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> CountingPolicy:
        raise NotImplementedError


def frame(step: int) -> Observation:
    return Observation({"front": np.full((32, 32, 3), step, np.uint8)}, np.array([step / 10, 0.0, 0.0]), step)


def test_a_chunk_is_executed_for_as_many_steps_as_agreed(tiny_rig: Rig) -> None:
    runner = ChunkedRunner(CountingPolicy(), tiny_rig.joints)
    taken = [float(runner.act(frame(step))[0]) for step in range(7)]
    np.testing.assert_allclose(taken, [0.1, 0.11, 0.12, 0.2, 0.21, 0.22, 0.3], atol=1e-6)


def test_a_reset_drops_the_chunk_and_the_history(tiny_rig: Rig) -> None:
    policy = CountingPolicy()
    runner = ChunkedRunner(policy, tiny_rig.joints)
    for step in range(2):
        runner.act(frame(step))
    runner.reset(seed=9)
    assert float(runner.act(frame(50))[0]) == pytest.approx(0.2)
    assert policy.calls[-1].joints[0, :, 0].tolist() == [5.0, 5.0]  # nothing from before the reset
    assert policy.seeds[-1] == 9


def test_a_chunk_requested_before_a_reset_is_not_accepted_after_it(tiny_rig: Rig) -> None:
    runner = ChunkedRunner(CountingPolicy(), tiny_rig.joints)
    runner.observe(frame(0))
    request = runner.snapshot()
    assert runner.accept(request)
    runner.reset()
    assert not runner.accept(request)
    assert not runner.due()  # there is nothing to look at yet
    runner.observe(frame(1))
    assert runner.due()


def test_targets_stay_inside_the_joint_limits(tiny_rig: Rig) -> None:
    class Wild(CountingPolicy):
        def predict_action(self, observation: PolicyObservation) -> np.ndarray:
            return np.full((1, 6, 3), 99.0, np.float32)

    assert ChunkedRunner(Wild(), tiny_rig.joints).act(frame(0)).tolist() == [1.0, 1.0, 0.03]


def test_more_steps_than_the_horizon_cannot_be_executed(tiny_rig: Rig) -> None:
    with pytest.raises(ValueError, match=r"1\.\.6"):
        ChunkedRunner(CountingPolicy(), tiny_rig.joints, execute=7)


class SeedPolicy(CountingPolicy):
    """Drives to the place where the environment of its seed has the goal, for even seeds only."""

    def predict_action(self, observation: PolicyObservation) -> np.ndarray:
        seed = self.seeds[-1]
        assert seed is not None
        goal = np.random.default_rng(seed).uniform(-0.9, 0.9, 2) if seed % 2 == 0 else np.zeros(2)
        chunk = np.zeros((1, 6, 3), np.float32)
        chunk[0, :, :2] = goal
        return chunk


def test_the_seed_of_an_episode_reaches_both_the_rig_and_the_policy(tiny_rig: Rig) -> None:
    seeds = [s for s in range(100, 140) if np.abs(np.random.default_rng(s).uniform(-0.9, 0.9, 2)).max() > 0.2]
    result = evaluate(SeedPolicy(), TinyEnv(tiny_rig), seeds, tiny_rig, EvaluationConfig(max_steps=5), progress=False)
    assert [e["seed"] for e in result["per_episode"]] == seeds
    assert all(e["success"] == (e["seed"] % 2 == 0) for e in result["per_episode"])


def test_an_evaluation_on_another_rig_is_refused(tiny_rig: Rig) -> None:
    other = tiny_rig.model_copy(update={"control_rate_hz": 5.0})
    with pytest.raises(PolicyError, match=r"5\.0 Hz"):
        evaluate(SeedPolicy(), TinyEnv(other), [1], other, progress=False)


def test_results_are_ordered_by_seed_whoever_finished_first() -> None:
    result = summarize([EpisodeResult(2, True, 10), EpisodeResult(1, False, 20)])
    assert [e["seed"] for e in result["per_episode"]] == [1, 2]
    assert result["success"] == 0.5 and result["episodes"] == 2
    assert set(result) == {"success", "ci95", "episodes", "per_episode"}


def test_an_evaluation_process_that_dies_is_an_error_and_not_a_wait_for_ever() -> None:
    from hiwm_policy.evaluation import _next_item

    dead = multiprocessing.get_context("spawn").Process(target=os._exit, args=(9,))
    dead.start()
    dead.join(60)
    with pytest.raises(RuntimeError, match="exit code 9"):
        _next_item(queue.Queue(), [dead])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (40, 100, 0.3094, 0.4980), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_has_its_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_paired_difference_is_narrower_than_the_unpaired_one() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(100) < 0.4
    better = base | (rng.random(100) < 0.3)
    difference, (low, high) = paired_difference(base.tolist(), better.tolist())
    assert difference == pytest.approx(better.mean() - base.mean())
    assert 0 < low < difference < high and high - low < 0.25
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([True], [True, False])


def test_the_worker_takes_the_newest_item_and_never_blocks_the_caller() -> None:
    entered, release, done = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        entered.set()
        release.wait(5)
        done.append(item)

    worker = LatestWorker(work, failed=lambda error: None)
    assert worker.submit(1)
    assert entered.wait(5)
    assert worker.submit(2)
    assert not worker.submit(3)  # 2 was never started, and is dropped
    release.set()
    deadline = threading.Event()
    for _ in range(100):
        if done == [1, 3]:
            break
        deadline.wait(0.02)
    worker.close()
    assert done == [1, 3]


def test_an_error_in_the_worker_reaches_its_owner() -> None:
    errors: list[Exception] = []
    told = threading.Event()

    def fail(item: int) -> None:
        raise ZeroDivisionError

    def failed(error: Exception) -> None:
        errors.append(error)
        told.set()

    LatestWorker(fail, failed).submit(1)
    assert told.wait(5) and isinstance(errors[0], ZeroDivisionError)
