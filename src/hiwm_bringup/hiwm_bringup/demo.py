"""``hiwm demo``: the whole loop, from a failing policy to a measured comparison.

It has no logic of its own: every step is a command or a graph that a person can run as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from hiwm_rig.files import write_json

from hiwm_bringup.graph import GraphError
from hiwm_bringup.paths import project_root
from hiwm_bringup.processes import NodeDiedError
from hiwm_bringup.steps import StepError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm demo``."""
    parser.add_argument("--out", type=Path, help="folder of everything the demo makes (default: runs/demo-<time>)")
    parser.add_argument("--seed", type=int, default=0, help="of initial states, training and evaluation")
    parser.add_argument("--droid", type=Path, metavar="DIR", help="the loop on real robot episodes (DROID layout)")
    parser.add_argument("--minutes", type=float, default=3.0, help="length of the session with the operator")
    parser.add_argument("--train-minutes", type=float, default=4.0, help="training time of the DROID world model")
    parser.add_argument("--train-steps", type=int, default=1600, help="optimiser steps of the post-training")
    parser.add_argument("--episodes", type=int, default=40, help="evaluation episodes of each policy")


def _interrupted_by_term() -> None:
    """SIGTERM ends a demo as Ctrl-C does: every process it has started is stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0, 1 where a step failed, 2 for input that cannot be used.
    """
    from hiwm_bringup.demo_droid import run_droid
    from hiwm_bringup.demo_push_t import run_push_t

    started = time.monotonic()
    out: Path = args.out or project_root() / "runs" / time.strftime("demo-%Y%m%d-%H%M%S")
    if out.exists() and any(out.iterdir()):
        print(f"error: --out {out} is not empty; choose another folder", file=sys.stderr)
        return EXIT_USAGE
    if args.droid is not None and not (args.droid / "annotation").is_dir():
        print(f"error: --droid {args.droid}: expected a folder with annotation/ and videos/", file=sys.stderr)
        return EXIT_USAGE
    out.mkdir(parents=True, exist_ok=True)
    _interrupted_by_term()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    job = run_push_t if args.droid is None else run_droid
    try:
        results, summary = job(args, out)
    except (GraphError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (NodeDiedError, StepError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    results["wall_seconds"] = round(time.monotonic() - started, 1)
    write_json(out / "results.json", results)
    print(f"\n{summary}\n\nreport:  {out / 'report.html'}\nresults: {out / 'results.json'}")
    return EXIT_OK
