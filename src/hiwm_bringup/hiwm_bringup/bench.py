"""``hiwm bench``: speed, latency and memory, measured; JSON with one key per figure."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_rig.contract import load_rig
from hiwm_rig.files import write_json

from hiwm_bringup.graph import GraphError
from hiwm_bringup.paths import project_root
from hiwm_bringup.processes import NodeDiedError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


@dataclass(frozen=True)
class BenchOptions:
    """What to measure with.

    Attributes:
        world, policy: model directories.
        rig_file: shipped rig file or path of one.
        minutes: length of the run behind ``ticks_on_time`` and ``rss_growth_mib``.
        repeats: of each short measurement.
    """

    world: Path
    policy: Path
    rig_file: str = "push_t"
    minutes: float = 10.0
    repeats: int = 100


Figures = dict[str, Any]
Measurement = Callable[[BenchOptions], Figures]


def percentiles(values: list[float], digits: int = 3) -> dict[str, float]:
    """``p50`` and ``p99``."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), digits), "p99": round(float(p99), digits)}


def matmul(options: BenchOptions) -> Figures:
    """Speed of this machine now, on one thread."""
    from hiwm_world_model.bench import matmul_gflops

    return {"matmul_gflops": matmul_gflops()}


def world_core(options: BenchOptions) -> Figures:
    """Step time, throughput and snapshot size (the larger of memory and disk) of the world model, without ROS."""
    from hiwm_world_model.bench import bench_world

    figures = bench_world(options.world, load_rig(options.rig_file))
    sizes: Any = figures["snapshot_bytes"]
    kept = {name: figures[name] for name in ("world_step_ms", "world_batch16_frames_per_s")}
    return {**kept, "snapshot_bytes": max(sizes.values())}


def policy_core(options: BenchOptions) -> Figures:
    """Inference time of the policy: one observation in, one chunk out."""
    from hiwm_policy.policy import PolicyObservation, load_policy

    policy = load_policy(options.policy)
    spec = policy.spec
    rng = np.random.default_rng(0)
    images = {
        c.name: rng.integers(0, 256, (1, spec.history, c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras
    }
    observation = PolicyObservation(images, np.zeros((1, spec.history, len(spec.joint_names)), np.float32))
    policy.reset(0)
    for _ in range(3):
        policy.predict_action(observation)
    return {
        "policy_ms": percentiles(
            [1e3 * _timed(lambda: policy.predict_action(observation)) for _ in range(options.repeats)]
        )
    }


def graph_latency(options: BenchOptions) -> Figures:
    """Rollback and leader latency of the running graph."""
    from hiwm_bringup.bench_graph import measure_latency

    return measure_latency(options)


def graph_endurance(options: BenchOptions) -> Figures:
    """Ticks and memory of the running graph."""
    from hiwm_bringup.bench_graph import measure_endurance

    return measure_endurance(options)


def recorder_effect(options: BenchOptions) -> Figures:
    """Ticks of the running graph without and with the recorder."""
    from hiwm_bringup.bench_recorder import measure_recorder

    return measure_recorder(options)


def dataset_reading(options: BenchOptions) -> Figures:
    """Speed and memory of reading a converted dataset for training."""
    from hiwm_bringup.bench_dataset import measure_reading

    return measure_reading(options)


def servo_cycle(options: BenchOptions) -> Figures:
    """Read and write cycle of the emulated follower's servos, without ROS."""
    from hiwm_bringup.bench_arms import measure_cycle

    return measure_cycle(options)


def leader_delay(options: BenchOptions) -> Figures:
    """Delay from the emulated leader to the emulated follower, through the running graph."""
    from hiwm_bringup.bench_arms import measure_leader

    return measure_leader(options)


def fault_report(options: BenchOptions) -> Figures:
    """Delay from a bus fault to diagnostics and to the operator."""
    from hiwm_bringup.bench_arms import measure_faults

    return measure_faults(options)


MEASUREMENTS: Mapping[str, Measurement] = {
    "matmul_gflops": matmul,
    "world_step_ms": world_core,
    "world_batch16_frames_per_s": world_core,
    "snapshot_bytes": world_core,
    "policy_ms": policy_core,
    "rollback_to_frame_ms": graph_latency,
    "leader_to_frame_periods": graph_latency,
    "ticks_on_time": graph_endurance,
    "rss_growth_mib": graph_endurance,
    "recorder_effect": recorder_effect,
    "dataset_frames_per_s": dataset_reading,
    "dataset_rss_mib": dataset_reading,
    "dxl_cycle_hz": servo_cycle,
    "dxl_cycle_ms": servo_cycle,
    "leader_to_follower_ms": leader_delay,
    "fault_report_ms": fault_report,
}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm bench``."""
    root = project_root()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures to measure: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--out", type=Path, help="JSON file to write (default: stdout only)")
    parser.add_argument("--world", type=Path, default=root / "models" / "push_t_world", help="world model directory")
    parser.add_argument("--policy", type=Path, default=root / "models" / "push_t_base", help="policy directory")
    parser.add_argument("--rig-file", default="push_t", help="shipped rig file or path of one")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the endurance run")
    parser.add_argument("--repeats", type=int, default=100, help="repeats of the short measurements")
    parser.add_argument(
        "--soak",
        type=float,
        metavar="MINUTES",
        help="instead: the physical rig on emulated servos under random faults; exit code 1 where it found something",
    )


def measure(names: list[str], options: BenchOptions) -> Figures:
    """The figures of these names; ``matmul_gflops`` always, so that other machines can compare."""
    wanted = list(dict.fromkeys(["matmul_gflops", *(names or MEASUREMENTS)]))
    figures: Figures = {}
    done: set[Measurement] = set()
    for name in wanted:
        function = MEASUREMENTS[name]
        if function not in done:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            done.add(function)
            figures.update(function(options))
    return {name: figures[name] for name in wanted}


def soak(options: BenchOptions, minutes: float) -> Figures:
    """What a soak of so many minutes counts."""
    from hiwm_bringup.soak import run_soak

    return run_soak(options, minutes)


def run(args: argparse.Namespace) -> int:
    """Measure and write JSON.

    Returns:
        0, 1 where a node died or does not answer or a soak found something, 2 for unknown names or missing models.
    """
    import torch

    torch.set_num_threads(1)
    unknown = [name for name in args.names if name not in MEASUREMENTS]
    if unknown:
        print(f"error: no figure {unknown}; expected some of {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return EXIT_USAGE
    options = BenchOptions(args.world, args.policy, args.rig_file, args.minutes, args.repeats)
    try:
        figures = measure(args.names, options) if args.soak is None else soak(options, args.soak)
    except (NodeDiedError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except (GraphError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    _write(figures, args.out)
    return EXIT_OK if args.soak is None else _judge_soak(figures)


def _judge_soak(figures: Figures) -> int:
    from hiwm_bringup.soak import found

    wrong = found(figures)
    for text in wrong:
        print(f"error: soak: {text}", file=sys.stderr)
    return EXIT_FAILED if wrong else EXIT_OK


def _write(figures: Figures, path: Path | None) -> None:
    print(json.dumps(figures, indent=2))
    if path is not None:
        write_json(path, figures)
