"""Command line of this package: ``hiwm data generate``."""

from __future__ import annotations

import argparse
import sys

from hiwm_rig.contract import RigFileError, load_rig

from hiwm_sim.generate import GenerateConfig, GenerationError, generate_dataset

DEFAULTS = GenerateConfig()


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data generate``."""
    parser.add_argument("--out", required=True, help="folder of the new dataset (LeRobotDataset v3)")
    parser.add_argument("--rig", default="push_t", help="shipped rig file or path of one")
    parser.add_argument("--task", default=None, help="registered task; default: the rig file's")
    parser.add_argument("--demos", type=int, default=0, help="successful demonstrations")
    parser.add_argument("--noisy", type=int, default=0, help="demonstrations with disturbed targets, kept as they end")
    parser.add_argument("--play", type=int, default=0, help="episodes of undirected play")
    parser.add_argument("--val", type=int, default=0, help="further episodes of the same mixture with split 'val'")
    parser.add_argument("--play-steps", type=int, default=DEFAULTS.play_steps, help="control steps per play episode")
    parser.add_argument("--noise", type=float, default=DEFAULTS.noise, help="disturbance of noisy demonstrations, m")
    parser.add_argument("--visual", default=DEFAULTS.visual, help="visual variation, several joined with '+'")
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run_generate(args: argparse.Namespace) -> int:
    """Run ``hiwm data generate``; 2 for input that cannot be used."""
    config = GenerateConfig(
        demos=args.demos,
        noisy=args.noisy,
        play=args.play,
        val=args.val,
        play_steps=args.play_steps,
        noise=args.noise,
        seed=args.seed,
        visual=args.visual,
    )
    try:
        out = generate_dataset(
            args.out, load_rig(args.rig), config, task=args.task, workers=args.workers, overwrite=args.overwrite
        )
    except (RigFileError, GenerationError, KeyError) as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    print(f"wrote {out}")
    return 0


add_arguments, run = add_generate_arguments, run_generate
