"""Command line of datasets: inspect, import-droid, merge. That of bags is in :mod:`hiwm_data.bag_commands`."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiwm_rig.contract import load_rig

from hiwm_data.bag_commands import guarded
from hiwm_data.bag_info import describe_bags
from hiwm_data.dataset import Dataset, merge_datasets
from hiwm_data.droid import import_droid
from hiwm_data.layout import INFO


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data inspect``."""
    parser.add_argument("path", help="dataset folder or bag")


def run_inspect(args: argparse.Namespace) -> int:
    """Run ``hiwm data inspect``."""
    path = Path(args.path)
    return guarded(lambda: _dataset_text(path) if (path / INFO).is_file() else describe_bags(path))


def _dataset_text(path: Path) -> str:
    dataset = Dataset(path)
    lines = [
        f"{path}: {dataset.num_episodes} episodes, {dataset.num_frames} frames at {dataset.fps:g} Hz, "
        f"robot {dataset.info.get('robot_type')}"
    ]
    lines += [f"  {name:<32}{f.dtype:<9}{list(f.shape)}" for name, f in dataset.features.items()]
    for key in ("split", "source", "outcome"):
        values = [e.meta.get(key) for e in dataset.episodes if key in e.meta]
        counts = {str(v): values.count(v) for v in dict.fromkeys(values)}
        lines += [f"  episodes by {key}: {', '.join(f'{v} {n}' for v, n in counts.items())}"] if counts else []
    return "\n".join(lines)


def add_import_droid_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data import-droid``."""
    parser.add_argument("source", help="folder with annotation/ and videos/")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument("--rig", default="droid", help="rig file that names joints and cameras")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run_import_droid(args: argparse.Namespace) -> int:
    """Run ``hiwm data import-droid``."""

    def droid() -> str:
        report = import_droid(args.source, args.out, rig=load_rig(args.rig), overwrite=args.overwrite)
        lines = [f"wrote {args.out}: episodes {report.episodes}, frames {report.frames}"]
        lines += [f"  left out {name}: {reason}" for name, reason in report.skipped.items()]
        lines += [f"  cut {count} frames of {name}" for name, count in report.trimmed.items()]
        return "\n".join(lines)

    return guarded(droid)


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data merge``."""
    parser.add_argument("datasets", nargs="+", help="datasets with the same columns and rate")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run_merge(args: argparse.Namespace) -> int:
    """Run ``hiwm data merge``."""
    return guarded(lambda: f"wrote {merge_datasets(args.datasets, args.out, overwrite=args.overwrite)}")
