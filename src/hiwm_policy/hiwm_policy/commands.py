"""Command line of this package: ``hiwm train policy``, ``hiwm posttrain`` and ``hiwm evaluate policy``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hiwm_rig.files import write_json

from hiwm_policy.card import add_measurement, write_card
from hiwm_policy.policy import PolicyError


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm train policy``."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="demonstration datasets (LeRobotDataset v3)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="directory of the policy; a training there is continued"
    )
    parser.add_argument("--steps", type=int, default=10_000, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--demos", type=int, default=None, help="use only the first so many demonstrations")
    parser.add_argument("--model", type=json.loads, default={}, help="JSON overrides of the network's configuration")
    _add_common(parser)


def add_posttrain_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm posttrain``."""
    parser.add_argument("--base", type=Path, required=True, help="policy to start from")
    parser.add_argument("--demos", type=Path, nargs="+", required=True, help="demonstration datasets")
    parser.add_argument(
        "--corrections", type=Path, nargs="+", required=True, help="datasets with the column 'intervention'"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the post-trained policy")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--share", type=float, default=0.5, help="share of corrections in each batch")
    parser.add_argument("--handback", type=int, default=4, help="frames after a correction whose targets still count")
    parser.add_argument("--min-trust", type=float, default=0.0, help="leave out correction frames below this trust")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16", help="autocast of the networks")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches ahead of the training step")
    parser.add_argument("--save-every", type=int, default=1000, help="steps between checkpoints")
    parser.add_argument("--keep-snapshots", action="store_true", help="keep the policy of every checkpoint")
    parser.add_argument("--restart", action="store_true", help="begin anew where --out holds an unfinished training")


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm evaluate policy``."""
    parser.add_argument("--policy", type=Path, required=True, help="directory of the policy")
    parser.add_argument("--rig", choices=("sim", "world"), default="sim", help="physics rig or learned world model")
    parser.add_argument("--rig-file", default="push_t", help="shipped rig file or path of one")
    parser.add_argument(
        "--model", type=Path, default=None, help="world model (--rig world); default: models/<rig>_world"
    )
    parser.add_argument("--task", default=None, help="task of the sim rig; default: the rig file's")
    parser.add_argument("--visual", default="default", help="visual variation of the sim rig")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=10_000, help="first seed; episode i uses seed + i")
    parser.add_argument("--max-steps", type=int, default=150, help="control periods per episode")
    parser.add_argument("--execute", type=int, default=None, help="steps of each chunk; default: the policy's own")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=None, help="JSON file of the result")
    parser.add_argument("--video", type=Path, default=None, help="folder for a few clips")
    parser.add_argument("--card", action="store_true", help="add the result to the policy's README.md")


def run_train(args: argparse.Namespace) -> int:
    """Run ``hiwm train policy``; 2 for input that cannot be used."""
    return _guarded(_train, args)


def run_posttrain(args: argparse.Namespace) -> int:
    """Run ``hiwm posttrain``; 2 for input that cannot be used."""
    return _guarded(_posttrain, args)


def run_evaluate(args: argparse.Namespace) -> int:
    """Run ``hiwm evaluate policy``; 2 for input that cannot be used."""
    return _guarded(_evaluate, args)


def _guarded(action: Any, args: argparse.Namespace) -> int:
    from hiwm_data.dataset import DatasetError
    from hiwm_rig.contract import RigFileError
    from pydantic import ValidationError

    from hiwm_policy.data import DataError

    try:
        action(args)
    except (PolicyError, DataError, DatasetError, RigFileError, ValidationError, KeyError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    return 0


def _common(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    names = ["steps", "batch_size", "learning_rate", "seed", "device", "precision", "save_every", "keep_snapshots"]
    names += ["workers"]
    return {name: getattr(args, name) for name in names}


def _train(args: argparse.Namespace) -> None:
    from hiwm_policy.training import TrainConfig, train_policy

    config = TrainConfig(**_common(args))
    facts = train_policy(args.data, args.out, config, model=args.model, demos=args.demos, restart=args.restart)
    write_card(args.out, "Base policy", facts)
    print(f"wrote {args.out}")


def _posttrain(args: argparse.Namespace) -> None:
    from hiwm_policy.posttraining import PosttrainConfig, posttrain_policy

    config = PosttrainConfig(
        **_common(args), correction_share=args.share, handback=args.handback, min_trust=args.min_trust
    )
    facts = posttrain_policy(args.base, args.demos, args.corrections, args.out, config, restart=args.restart)
    write_card(args.out, "Post-trained policy", facts)
    print(f"wrote {args.out}")


def _shipped_world(rig_file: str) -> Path:
    """The world model that ships for a rig."""
    from hiwm_rig.contract import load_rig

    path = Path(os.environ.get("HIWM_ROOT", ".")) / "models" / f"{load_rig(rig_file).name}_world"
    if not path.is_dir():
        raise PolicyError(f"{path}: no world model ships for this rig; --rig world needs --model DIR")
    return path


def _evaluate(args: argparse.Namespace) -> None:
    from hiwm_policy.evaluation import EvaluationConfig, evaluate_checkpoint

    config = EvaluationConfig(max_steps=args.max_steps, execute=args.execute, video=args.video)
    options: dict[str, Any] = {"task": args.task, "visual": args.visual}
    if args.rig == "world":
        options = {"model": args.model or _shipped_world(args.rig_file)}
    seeds = range(args.seed, args.seed + args.episodes)
    started = time.monotonic()
    result = evaluate_checkpoint(
        args.policy, args.rig_file, args.rig, seeds, config, env_options=options, workers=args.workers
    )
    result["wall_seconds"] = round(time.monotonic() - started, 1)
    low, high = result["ci95"]
    print(f"success {result['success']:.1%} (95 % interval {low:.1%} to {high:.1%}, {result['episodes']} episodes)")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, result)
    if args.card:
        add_measurement(args.policy, args.rig, args.seed, result)
