"""Command line of this package: ``hiwm collect``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hiwm_rig.contract import Rig, RigFileError, load_rig

if TYPE_CHECKING:
    from hiwm_world_model.env import WorldRigEnv


def add_collect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm collect``."""
    parser.add_argument("--world", type=Path, required=True, help="world model directory")
    parser.add_argument("--policy", type=Path, required=True, help="directory of the policy to correct")
    parser.add_argument("--rig-file", default="push_t", help="shipped rig file or path of one")
    parser.add_argument("--out", type=Path, required=True, help="directory of the dataset of corrections")
    parser.add_argument("--corrections", type=int, default=60, help="stop after so many kept corrections")
    parser.add_argument("--rollouts", type=int, default=200, help="stop after so many episodes")
    parser.add_argument("--branches", type=int, default=1, help="corrections tried from each first failure")
    parser.add_argument("--seed", type=int, default=0, help="of the first start; the next ones count on")
    parser.add_argument("--execute", type=int, default=None, help="steps of each chunk; default: the policy's own")
    parser.add_argument(
        "--starts", type=Path, default=None, help="dataset whose real first frames to start from; default: the model's"
    )
    parser.add_argument("--max-distance", type=float, default=0.11, help="of a start, as the operator sees it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is there")


def run_collect(args: argparse.Namespace) -> int:
    """Run ``hiwm collect``; 2 for input that cannot be used."""
    from hiwm_data.dataset import DatasetError
    from hiwm_policy.policy import PolicyError
    from hiwm_world_model.interface import ModelError
    from hiwm_world_model.session import SessionError

    try:
        return _collect(args)
    except (RigFileError, DatasetError, PolicyError, ModelError, SessionError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _collect(args: argparse.Namespace) -> int:
    from hiwm_policy.policy import load_policy
    from hiwm_policy.runner import ChunkedRunner

    from hiwm_teleop.adapters import RunnerProposer, WorldRewindable
    from hiwm_teleop.collect import CollectSettings, collect_corrections
    from hiwm_teleop.operator import OperatorSettings

    rig = load_rig(args.rig_file)
    policy = load_policy(args.policy, args.device)
    policy.spec.check_rig(rig)
    settings = CollectSettings(
        corrections=args.corrections,
        max_rollouts=args.rollouts,
        seed=args.seed,
        operator=OperatorSettings(branches=args.branches),
    )
    runner = RunnerProposer(ChunkedRunner(policy, rig.joints, args.execute), rig.period_s)
    with _world(args, rig) as env:
        report = collect_corrections(
            rig, WorldRewindable(env), runner, args.out, settings, overwrite=args.overwrite, progress=_show
        )
    print(json.dumps(asdict(report), indent=1))
    return 0 if report.corrections else 1


def _world(args: argparse.Namespace, rig: Rig) -> WorldRigEnv:
    from hiwm_data.dataset import Dataset
    from hiwm_world_model.env import WorldRigEnv
    from hiwm_world_model.registry import load_world_model

    from hiwm_teleop.skill import make_skill
    from hiwm_teleop.starts import fitting_starts

    if args.starts is None:
        return WorldRigEnv.from_directory(args.world, rig, args.device)
    starts = fitting_starts(Dataset(args.starts), rig, make_skill(rig.task, rig), args.max_distance)
    print(f"{len(starts)} starts from {args.starts}", file=sys.stderr)
    return WorldRigEnv(load_world_model(args.world, args.device), rig, starts)


def _show(kept: int, wanted: int) -> None:
    print(f"corrections {kept}/{wanted}", file=sys.stderr, flush=True)
