"""What a world model costs on this machine: each function measures one thing and returns a JSON value. No ROS.

The latency from a rollback *service call* to the first published frame is measured by ``hiwm bench`` on a running
graph; :func:`rollback_to_frame_ms` is the share of it that is spent here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from hiwm_rig.contract import Rig

from hiwm_world_model.env import WorldRigEnv
from hiwm_world_model.snapshots import SnapshotStore

WARM_UP = 10


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """``{"p50", "p99"}`` in ms."""
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def world_step_ms(env: WorldRigEnv, steps: int = 300) -> dict[str, float]:
    """One step at batch 1: action in, decoded frame out, state handed to the journal."""
    actions = _wander(env, steps + WARM_UP)
    env.reset(0)
    return percentiles(_timed(lambda i: env.step(actions[i]), steps))


def rollback_to_frame_ms(env: WorldRigEnv, jumps: int = 100) -> dict[str, float]:
    """From the request to go back to the decoded frame, over an episode of 100 steps."""
    actions = _wander(env, 100)
    env.reset(0)
    for action in actions:
        env.step(action)
    last = env.moment.snapshot.id
    targets = last - np.random.default_rng(0).integers(0, 100, jumps + WARM_UP)
    return percentiles(_timed(lambda i: env.branch(int(targets[i])), jumps))


def world_batch16_frames_per_s(env: WorldRigEnv, steps: int = 30, batch: int = 16) -> float:
    """Decoded frames a second at batch 16, without a journal."""
    actions = _wander(env, steps + 3)
    env.reset(0)
    state = env.moment.result.state.repeat(batch)
    for action in actions[:3]:
        state = env.model.step(state, np.tile(action, (batch, 1))).state
    began = time.perf_counter()
    for action in actions[3:]:
        state = env.model.step(state, np.tile(action, (batch, 1))).state
    return round(steps * batch / (time.perf_counter() - began), 1)


def snapshot_bytes(env: WorldRigEnv, steps: int = 200) -> dict[str, int]:
    """A cached step: serialised, and on disk per step (database and its journal, the episode's context included)."""
    env.reset(0)
    for action in _wander(env, steps):
        env.step(action)
    store = env.session.store
    store.flush()
    files = store.path.parent.glob(store.path.name + "*")
    disk = sum(f.stat().st_size for f in files if not f.name.endswith("-shm"))
    return {"state": len(env.moment.result.state.to_bytes()), "disk": disk // store.count()}


def matmul_gflops(size: int = 1024, repeats: int = 20) -> float:
    """A square float32 product in the same process: what the other figures are to be read against."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = _timed(lambda _: torch.mm(a, b), repeats)
    return round(2 * size**3 / float(np.median(seconds)) / 1e9, 1)


def bench_world(directory: str | Path, rig: Rig, threads: int = 1) -> dict[str, object]:
    """All of the above for a model directory, on ``threads`` CPU threads."""
    torch.set_num_threads(threads)
    with WorldRigEnv.from_directory(directory, rig) as env:
        return {
            "world_step_ms": world_step_ms(env),
            "rollback_to_frame_ms": rollback_to_frame_ms(env),
            "world_batch16_frames_per_s": world_batch16_frames_per_s(env),
            "snapshot_bytes": snapshot_bytes(_fresh(env)),
            "matmul_gflops": matmul_gflops(),
        }


def _fresh(env: WorldRigEnv) -> WorldRigEnv:
    """The same world with an empty journal."""
    return WorldRigEnv(env.model, env.rig, env.library, SnapshotStore.temporary())


def _timed(act: Callable[[int], object], count: int) -> list[float]:
    """Seconds of each call after a warm-up."""
    seconds = []
    for i in range(count + WARM_UP):
        began = time.perf_counter()
        act(i)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


def _wander(env: WorldRigEnv, steps: int) -> np.ndarray:
    """(steps, D) smooth joint targets around home, inside the limits."""
    lower, upper = (np.array([getattr(j, k) for j in env.rig.joints]) for k in ("lower", "upper"))
    noise = np.random.default_rng(0).normal(0, 0.03, (steps, len(lower))) * (upper - lower)
    smooth = np.apply_along_axis(lambda x: np.convolve(x, np.full(8, 1 / 8), "same"), 0, noise)
    return np.clip(np.array(env.rig.home) + smooth, lower, upper)
