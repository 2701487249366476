"""Datasets from the simulated rig: demonstrations, noisy demonstrations and play, generated in parallel.

Episodes are described first and generated in shards by worker processes; the shards are merged without re-encoding.
Every episode depends only on its own description, so the number of workers never changes the data.
"""

from __future__ import annotations

import multiprocessing
import queue
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_data.dataset import DatasetWriter, merge_datasets, rig_features
from hiwm_rig.contract import Rig
from tqdm import tqdm

from hiwm_sim.rig import SimRig
from hiwm_sim.tasks import make_task

DEMONSTRATION = "demonstration"
NOISY = "noisy_demonstration"
PLAY = "play"
RETRY_STRIDE = 1_000_000
"""Added to the seed of a demonstration that failed, for its next try."""


class GenerationError(RuntimeError):
    """Data that could not be generated as asked."""


@dataclass(frozen=True)
class EpisodePlan:
    """One episode to be generated.

    Attributes:
        source: ``demonstration`` (kept only if it succeeds), ``noisy_demonstration`` or ``play``.
        seed: decides the initial state and every random choice.
        split: ``train`` or ``val``.
        steps: length of a play episode, limit of a demonstration.
        noise: disturbance of the demonstrator's targets, standard deviation in m.
        visual: visual variation.
    """

    source: str
    seed: int
    split: str
    steps: int
    noise: float = 0.0
    visual: str = "default"


@dataclass(frozen=True)
class GenerateConfig:
    """How many episodes of which kind; val episodes of a mixed set share the kinds in the same proportion."""

    demos: int = 0
    noisy: int = 0
    play: int = 0
    val: int = 0
    play_steps: int = 100
    noise: float = 0.004
    seed: int = 0
    visual: str = "default"
    shard_episodes: int = 20


def plan_episodes(config: GenerateConfig, max_steps: int) -> list[EpisodePlan]:
    """The episodes of a dataset, train before val; seeds never repeat within a dataset, whatever its size.

    Raises:
        GenerationError: if nothing was asked for.
    """
    counts = {DEMONSTRATION: config.demos, NOISY: config.noisy, PLAY: config.play}
    total = sum(counts.values())
    if total == 0:
        raise GenerationError(
            "nothing to generate: give a number of demonstrations, noisy demonstrations or play episodes"
        )
    plans, before = [], 0
    for kind, (source, count) in enumerate(counts.items()):
        held_out = round(config.val * (before + count) / total) - round(config.val * before / total)
        before += count
        for i in range(count + held_out):
            split, steps = "train" if i < count else "val", config.play_steps if source == PLAY else max_steps
            # Held-out seeds have their own range, so that more training data never runs into them.
            number = i if split == "train" else 50_000 + i - count
            seed = config.seed * 10 * RETRY_STRIDE + kind * 100_000 + number
            noise = config.noise * (0.5 + i % 3 / 2) if source == NOISY else 0.0
            plans.append(EpisodePlan(source, seed, split, steps, noise, config.visual))
    return sorted(plans, key=lambda p: p.split != "train")


def record_episode(env: SimRig, plan: EpisodePlan) -> tuple[dict[str, np.ndarray], bool]:
    """Run one episode: column -> [T, ...] of what was seen and sent, and whether the task is done at its end.

    ``next.success`` of a frame is the outcome label of the state that frame shows.
    """
    rng = np.random.default_rng([plan.seed, 2])
    if plan.source == PLAY:
        observation = env.reset_play(plan.seed)
        script = env.task.play(env, rng)
    else:
        observation = env.reset(plan.seed)
        script = env.task.demonstrate(env, rng, plan.noise)
    rows: dict[str, list[np.ndarray]] = {"state": [], "environment": [], "action": [], "success": []}
    images: dict[str, list[np.ndarray]] = {c.name: [] for c in env.rig.cameras}
    for action in islice(script, plan.steps):
        for name, frame in observation.images.items():
            images[name].append(frame)
        rows["state"].append(observation.joints)
        rows["environment"].append(env.environment_state())
        rows["success"].append(np.array(env.succeeded()))
        observation = env.step(action)
        rows["action"].append(env.target)  # what was obeyed: the limits of the rig applied
    columns = {
        "observation.state": np.array(rows["state"], np.float32),
        "observation.environment_state": np.array(rows["environment"], np.float32),
        "action": np.array(rows["action"], np.float32),
        "next.success": np.array(rows["success"], bool),
    }
    columns |= {f"observation.images.{name}": np.array(frames, np.uint8) for name, frames in images.items()}
    return columns, env.succeeded()


def _record_kept(env: SimRig, plan: EpisodePlan, tries: int = 5) -> tuple[dict[str, np.ndarray], bool, EpisodePlan]:
    """As :func:`record_episode`; a failed demonstration is tried again from another start."""
    for k in range(tries):
        attempt = replace(plan, seed=plan.seed + k * RETRY_STRIDE)
        columns, success = record_episode(env, attempt)
        if success or plan.source != DEMONSTRATION:
            return columns, success, attempt
    raise GenerationError(f"{tries} demonstrations in a row failed, the first with seed {plan.seed}")


@dataclass(frozen=True)
class _Shard:
    rig: Rig
    task: str
    root: Path
    plans: tuple[EpisodePlan, ...]


def _write_shard(shard: _Shard, done: queue.Queue[int]) -> None:
    """Generate the episodes of one shard; each finished episode is told to ``done``, for the progress bar."""
    with SimRig(shard.rig, shard.task, visual=shard.plans[0].visual) as env:
        features = rig_features(env.rig, environment_state=env.environment_state_names)
        with DatasetWriter(
            shard.root, fps=env.rig.control_rate_hz, features=features, robot_type=env.rig.name, overwrite=True
        ) as writer:
            for plan in shard.plans:
                columns, success, kept = _record_kept(env, plan)
                meta: dict[str, int | float | str | bool] = {
                    "source": kept.source,
                    "seed": kept.seed,
                    "split": kept.split,
                    "outcome": "success" if success else "failure",
                }
                writer.add_episode(columns, task=env.task.instruction, meta=meta)
                done.put(1)


def _write_shards(shards: Sequence[_Shard], workers: int, bar: tqdm[Any]) -> None:
    # Processes are spawned: a forked child would share the parent's OpenGL state.
    # They leave Ctrl-C to the parent, which ends them and clears the shards away.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        done = manager.Queue()
        jobs = [pool.apply_async(_write_shard, (shard, done)) for shard in shards]
        while jobs:
            finished, jobs = [j for j in jobs if j.ready()], [j for j in jobs if not j.ready()]
            for job in finished:
                job.get()  # raises what went wrong in a worker
            try:
                bar.update(done.get(timeout=0.2))
            except queue.Empty:
                continue
        bar.update(done.qsize())


def generate_dataset(
    out: str | Path,
    rig: Rig,
    config: GenerateConfig,
    *,
    task: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Generate a dataset of the simulated rig into the folder ``out``.

    Args:
        out: appears when everything is done; until then the shards lie in ``<out>.shards``.
        rig: the contract.
        config: what to generate.
        task: a registered task; None takes the rig file's.
        workers: processes.
        overwrite: replace an existing dataset.
        progress: show a bar.

    Raises:
        GenerationError: if nothing was asked for, ``out`` exists, or the demonstrator keeps failing.
    """
    out, name = Path(out), task or rig.task
    if out.exists() and not overwrite:
        raise GenerationError(f"{out} exists; choose another folder or ask to overwrite")
    plans = plan_episodes(config, make_task(name).max_steps)
    shards_root = out.with_name(out.name + ".shards")
    size = max(1, min(config.shard_episodes, -(-len(plans) // workers)))
    shards = [
        _Shard(rig, name, shards_root / f"{k:04d}", tuple(plans[i : i + size]))
        for k, i in enumerate(range(0, len(plans), size))
    ]
    try:
        with tqdm(total=len(plans), desc=f"generate {out.name}", unit="episode", disable=not progress) as bar:
            _write_shards(shards, workers, bar)
        return merge_datasets([s.root for s in shards], out, overwrite=overwrite)
    finally:
        shutil.rmtree(shards_root, ignore_errors=True)
