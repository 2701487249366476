"""Measuring a policy: paired seeds, one or several processes, success with its interval."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hiwm_rig.contract import Rig, load_rig
from hiwm_rig.types import RigEnv
from tqdm import tqdm

from hiwm_policy.policy import Policy, load_policy
from hiwm_policy.runner import ChunkedRunner
from hiwm_policy.statistics import wilson
from hiwm_policy.video import write_clip


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        seed: of the rig's initial state and of the policy's noise.
        success: as the rig judges it after the tool has retreated.
        steps: control periods the policy drove.
    """

    seed: int
    success: bool
    steps: int


@dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate.

    Attributes:
        max_steps: control periods per episode.
        settle: consecutive periods in which the rig must report success before the episode ends early.
        execute: steps of each chunk; None takes the policy's own number.
        video: folder of short clips, or None.
        clips: how many clips of successes and of failures at most.
    """

    max_steps: int = 150
    settle: int = 3
    execute: int | None = None
    video: Path | None = None
    clips: int = 4


def run_episode(
    env: RigEnv,
    runner: ChunkedRunner,
    seed: int,
    config: EvaluationConfig,
    frames: list[npt.NDArray[np.uint8]] | None = None,
) -> EpisodeResult:
    """One episode in lock-step; the seed fixes the initial state and the policy's noise, so methods can be paired."""
    runner.reset(seed)
    observation = env.reset(seed)
    held = step = 0
    while step < config.max_steps and held < config.settle:
        if frames is not None:
            frames.append(np.concatenate(list(observation.images.values()), axis=1))
        observation = env.step(runner.act(observation))
        held = held + 1 if env.succeeded() else 0
        step += 1
    return EpisodeResult(seed, bool(env.finish()), step)


def evaluate(
    policy: Policy,
    env: RigEnv,
    seeds: Sequence[int],
    rig: Rig,
    config: EvaluationConfig | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate in this process; see :func:`summarize` for the result."""
    policy.spec.check_rig(rig)
    runner = ChunkedRunner(policy, rig.joints, (config or EvaluationConfig()).execute)
    results = _episodes(env, runner, seeds, config or EvaluationConfig())
    return summarize(list(tqdm(results, total=len(seeds), desc="evaluating", unit="episode", disable=not progress)))


def summarize(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """``success`` (rate), ``ci95`` (Wilson), ``episodes`` and ``per_episode``, in the order of seeds."""
    ordered = sorted(results, key=lambda r: r.seed)
    wins = sum(r.success for r in ordered)
    return {
        "success": wins / len(ordered) if ordered else 0.0,
        "ci95": list(wilson(wins, len(ordered))),
        "episodes": len(ordered),
        "per_episode": [asdict(r) for r in ordered],
    }


def evaluate_checkpoint(
    checkpoint: Path,
    rig_name: str,
    env: str,
    seeds: Sequence[int],
    config: EvaluationConfig | None = None,
    *,
    env_options: dict[str, Any] | None = None,
    workers: int = 2,
) -> dict[str, Any]:
    """Evaluate a checkpoint over several processes.

    Args:
        checkpoint: directory of the policy.
        rig_name: shipped rig file, or path of one.
        env: registered rig (``sim``, ``world``).
        seeds: one episode each.
        config: see :class:`EvaluationConfig`.
        env_options: passed to the rig's factory.
        workers: processes; the result does not depend on their number.

    Raises:
        PolicyError: if the checkpoint cannot be used on this rig.
        KeyError: for an unknown rig.
    """
    config = config or EvaluationConfig()
    rig = load_rig(rig_name)
    load_policy(checkpoint).spec.check_rig(rig)  # a wrong checkpoint is reported here, once, not by each worker
    env_factory(env)
    share = [list(seeds[i::workers]) for i in range(workers)]
    jobs = [(checkpoint, rig_name, env, env_options or {}, part, config) for part in share if part]
    results: list[EpisodeResult] = []
    with tqdm(total=len(seeds), desc=f"evaluating on the {env} rig", unit="episode") as bar:
        for result in _run_jobs(jobs):
            results.append(result)
            bar.update()
            bar.set_postfix(success=f"{sum(r.success for r in results)}/{len(results)}")
    return summarize(results)


def _run_jobs(jobs: Sequence[tuple[Any, ...]]) -> Iterator[EpisodeResult]:
    if len(jobs) <= 1:
        for job in jobs:
            yield from _work(*job)
        return
    # spawn: a forked child would share the parent's OpenGL context and thread pools
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    processes = [context.Process(target=_work_into, args=(queue, *job), daemon=True) for job in jobs]
    for process in processes:
        process.start()
    try:
        running = len(processes)
        while running:
            item = _next_item(queue, processes)
            if isinstance(item, EpisodeResult):
                yield item
            elif item is None:
                running -= 1
            else:
                raise RuntimeError(f"an evaluation process failed: {item}")
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _next_item(queue: Any, processes: Sequence[Any]) -> Any:
    """The next message; a process that died without one (killed, out of memory) is an error, not a wait for ever."""
    while True:
        dead = [p.exitcode for p in processes if p.exitcode not in (None, 0)]
        try:
            return queue.get(timeout=1.0)
        except Empty:
            if dead:
                raise RuntimeError(f"an evaluation process died with exit code {dead[0]}") from None
            if all(p.exitcode == 0 for p in processes):
                raise RuntimeError("the evaluation processes ended without a result") from None


def _work_into(queue: Any, *job: Any) -> None:
    try:
        for result in _work(*job):
            queue.put(result)
        queue.put(None)
    except Exception as error:  # handed to the parent, which raises it
        queue.put(f"{type(error).__name__}: {error}")


def _work(
    checkpoint: Path, rig_name: str, env: str, options: dict[str, Any], seeds: Sequence[int], config: EvaluationConfig
) -> Iterator[EpisodeResult]:
    torch.set_num_threads(1)
    rig = load_rig(rig_name)
    runner = ChunkedRunner(load_policy(checkpoint), rig.joints, config.execute)
    with _opened(env_factory(env)(rig, **options)) as rig_env:
        yield from _episodes(rig_env, runner, seeds, config)


@contextmanager
def _opened(env: RigEnv) -> Iterator[RigEnv]:
    try:
        yield env
    finally:
        close = getattr(env, "close", None)
        if callable(close):
            close()


def _episodes(
    env: RigEnv, runner: ChunkedRunner, seeds: Sequence[int], config: EvaluationConfig
) -> Iterator[EpisodeResult]:
    kept = {True: 0, False: 0}
    for seed in seeds:
        frames: list[npt.NDArray[np.uint8]] | None = None
        if config.video is not None and min(kept.values()) < config.clips:
            frames = []
        result = run_episode(env, runner, seed, config, frames)
        if frames and config.video is not None and kept[result.success] < config.clips:
            kept[result.success] += 1
            outcome = "success" if result.success else "failure"
            write_clip(config.video / f"{seed:06d}-{outcome}.mp4", np.stack(frames), runner.policy.spec.rate_hz)
        yield result


_ENVS: dict[str, Callable[..., RigEnv]] = {}


def register_env(name: str) -> Callable[[Callable[..., RigEnv]], Callable[..., RigEnv]]:
    """Decorator: make a rig available to ``evaluate policy --rig NAME``; called with the rig file and its options."""

    def add(factory: Callable[..., RigEnv]) -> Callable[..., RigEnv]:
        _ENVS[name] = factory
        return factory

    return add


def env_factory(name: str) -> Callable[..., RigEnv]:
    """The registered factory of that name.

    Raises:
        KeyError: naming those there are.
    """
    if name not in _ENVS:
        raise KeyError(f"no rig '{name}' to evaluate on; expected one of {sorted(_ENVS)}")
    return _ENVS[name]


@register_env("sim")
def _sim_rig(rig: Rig, **options: Any) -> RigEnv:
    from hiwm_sim.rig import SimRig  # needs MuJoCo, which a training server may lack

    return SimRig(rig, **options)


@register_env("world")
def _world_rig(rig: Rig, **options: Any) -> RigEnv:
    from hiwm_world_model.env import WorldRigEnv

    return WorldRigEnv.from_directory(options["model"], rig)
