"""``hiwm evaluate open-loop``: a policy against a recording; table, JSON and a plot with one panel per joint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_rig.files import write_json, written_aside

from hiwm_policy.open_loop import METHODS, OpenLoopResult, open_loop, recordings_of_bags, recordings_of_dataset
from hiwm_policy.policy import PolicyError, load_policy

EXIT_USAGE = 2
_TITLES = {"policy": "policy", "hold": "hold still", "repeat": "repeat last action"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm evaluate open-loop``."""
    parser.add_argument("--policy", type=Path, required=True, help="directory of the policy")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bag", type=Path, nargs="+", help="bags, or folders of bags")
    source.add_argument("--data", type=Path, help="dataset (LeRobotDataset v3)")
    parser.add_argument("--split", default=None, help="of --data: only episodes of this split, for example val")
    parser.add_argument("--rig-file", default=None, help="rig that was recorded; default: what the recording names")
    parser.add_argument("--seed", type=int, default=0, help="of the policy's noise")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--out", type=Path, default=None, help="JSON file of the result; the plot lies beside it (.png)"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``hiwm evaluate open-loop``; 2 for input that cannot be used."""
    from hiwm_data.bag_reader import BagError
    from hiwm_data.dataset import DatasetError
    from hiwm_rig.contract import RigFileError

    try:
        result = _measure(args)
        report = {"policy": str(args.policy), "source": [str(p) for p in args.bag or [args.data]], **result.to_json()}
        print(table(report))
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.out, report)
            plot(result, args.out.with_suffix(".png"))
            print(f"wrote {args.out} and {args.out.with_suffix('.png')}")
    except (PolicyError, BagError, DatasetError, RigFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _measure(args: argparse.Namespace) -> OpenLoopResult:
    from hiwm_data.dataset import Dataset
    from hiwm_rig.contract import load_rig

    rig = None if args.rig_file is None else load_rig(args.rig_file)
    policy = load_policy(args.policy, args.device)
    if args.bag:
        rig, recordings = recordings_of_bags(args.bag, rig)
    else:
        rig = rig or load_rig(str(Dataset(args.data).info.get("robot_type")))
        recordings = recordings_of_dataset(args.data, rig, args.split)
    return open_loop(policy, rig, recordings, args.seed)


def table(report: dict[str, Any]) -> str:
    """The errors as text."""
    columns = [*METHODS, "recorded_policy"]
    titles = [*(_TITLES[m] for m in METHODS), "recorded policy"]
    lines = [
        f"{report['recordings']} recordings, {report['frames']} frames; mean absolute error to what was done",
        f"{'joint':<24}{'':<5}" + "".join(f"{t:>20}" for t in titles),
    ]
    for name, row in report["joints"].items():
        cells = "".join(f"{'-' if row[c] is None else format(row[c], '.4f'):>20}" for c in columns)
        lines.append(f"{name:<24}{row['unit']:<5}{cells}")
    for group, label in (("by_driver", "driven by"), ("by_step", "steps after asking")):
        for name, row in report[group].items():
            cells = "".join(f"{row[m]:>20.4f}" for m in METHODS)
            lines.append(f"{label + ' ' + name:<24}{'rad':<5}{cells}{row['frames']:>14} frames")
    return "\n".join(lines)


def plot(result: OpenLoopResult, path: Path) -> None:
    """One panel per joint: what was done and what the policy proposes, over the longest recording."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = max(result.predictions, key=lambda p: len(p.step))
    recorded, frames = shown.recorded, np.arange(len(shown.step))
    names = result.joint_names
    figure, grid = plt.subplots(len(names), 1, figsize=(9, 1.4 * len(names) + 0.6), sharex=True, squeeze=False)
    starts = [int(i) for i in np.flatnonzero(shown.step == 0)]
    for i, axes in enumerate(grid[:, 0]):
        axes.plot(frames, recorded.actions[:, i], color="black", lw=1.4, label="recorded action")
        axes.plot(frames, recorded.joints[:, i], color="0.6", lw=0.9, label="joint")
        for number, start in enumerate(starts):
            end = starts[number + 1] if number + 1 < len(starts) else len(frames)
            label = "policy, from where it was asked (dot)" if number == 0 else None
            rows = slice(start, end)
            axes.plot(frames[rows], shown.by_method["policy"][rows, i], color="#2f6fb5", lw=1.2, label=label)
            axes.plot(start, shown.by_method["policy"][start, i], "o", color="#2f6fb5", ms=2.5)
        human = recorded.driver == 2
        axes.fill_between(frames, 0, 1, where=human, transform=axes.get_xaxis_transform(), color="#c0392b", alpha=0.12)
        axes.set_ylabel(f"{names[i]}, {result.units[i]}", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].legend(fontsize=7, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    grid[-1, 0].set_xlabel(f"control steps of {recorded.name} (red: a person drives)", fontsize=8)
    figure.tight_layout()
    with written_aside(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)
