"""Command line of datasets: info, view, merge, filter, split, paths, import-droid. That of bags: ``bag_commands``."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiwm_rig.contract import load_rig

from hiwm_data import selection
from hiwm_data.bag_commands import guarded
from hiwm_data.bag_info import describe_bags
from hiwm_data.dataset import Dataset, DatasetError, append_datasets, merge_datasets
from hiwm_data.dataset_info import describe_dataset
from hiwm_data.droid import import_droid
from hiwm_data.layout import INFO
from hiwm_data.paths import branch_paths, write_paths


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data info``."""
    parser.add_argument("path", help="dataset folder or bag")


def run_info(args: argparse.Namespace) -> int:
    """Run ``hiwm data info``."""
    path = Path(args.path)
    return guarded(lambda: describe_dataset(path) if (path / INFO).is_file() else describe_bags(path))


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data view``."""
    parser.add_argument("path", help="dataset folder")
    parser.add_argument("--out", required=True, help="folder for index.html and its pictures")
    parser.add_argument("--episodes", type=int, nargs="+", default=None, help="indices; default: the first eight")


def run_view(args: argparse.Namespace) -> int:
    """Run ``hiwm data view``."""

    def view() -> str:
        from hiwm_data.view import view_dataset

        return f"wrote {view_dataset(args.path, args.out, args.episodes)}"

    return guarded(view)


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data merge``."""
    parser.add_argument("datasets", nargs="+", help="datasets of one robot, with the same columns and rate")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", help="folder of the new dataset")
    target.add_argument("--append-to", metavar="DATASET", help="add the episodes to the end of this dataset")
    _add_overwrite(parser)


def run_merge(args: argparse.Namespace) -> int:
    """Run ``hiwm data merge``."""

    def merge() -> str:
        if args.append_to:
            root = append_datasets(args.append_to, args.datasets)
            return f"{root} now holds {Dataset(root).num_episodes} episodes"
        return f"wrote {merge_datasets(args.datasets, args.out, overwrite=args.overwrite)}"

    return guarded(merge)


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data filter``."""
    parser.add_argument("path", help="dataset folder")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument(
        "--driver",
        nargs="+",
        choices=selection.DRIVERS,
        default=[],
        help="who drove the episode: a person in every frame, the policy in every frame, or both",
    )
    parser.add_argument("--outcome", nargs="+", choices=selection.OUTCOMES, default=[])
    parser.add_argument("--task", nargs="+", default=[], help="instruction; * and ? match as in file names")
    parser.add_argument("--source", nargs="+", default=[], help="demonstration, rollout, correction, play, ...")
    parser.add_argument("--split", nargs="+", default=[], help="train, val, ...")
    parser.add_argument("--min-trust", type=float, default=0.0, help="lowest trust of an episode's frames, 0..1")
    parser.add_argument("--min-frames", type=int, default=0, help="leave out shorter episodes")
    _add_overwrite(parser)


def run_filter(args: argparse.Namespace) -> int:
    """Run ``hiwm data filter``; all criteria given must hold."""

    def choose() -> str:
        criteria = selection.Criteria(
            driver=args.driver,
            outcome=args.outcome,
            task=args.task,
            source=args.source,
            split=args.split,
            min_trust=args.min_trust,
            min_frames=args.min_frames,
        )
        chosen = selection.filter_dataset(args.path, args.out, criteria, overwrite=args.overwrite)
        return f"wrote {args.out}: {len(chosen)} of {Dataset(args.path).num_episodes} episodes"

    return guarded(choose)


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data split``."""
    parser.add_argument("path", help="dataset folder")
    parser.add_argument("--out", required=True, help="each part becomes the dataset OUT/<name>")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--by", choices=selection.GROUPS, help="one dataset per value")
    how.add_argument(
        "--shares", nargs="+", metavar="NAME=SHARE", help="at random, for example train=0.9 val=0.1; marks the split"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --shares")
    _add_overwrite(parser)


def run_split(args: argparse.Namespace) -> int:
    """Run ``hiwm data split``."""

    def split() -> str:
        dataset = Dataset(args.path)
        if args.by:
            groups = selection.group_by(dataset, args.by)
        else:
            groups = selection.split_by_share(dataset, _shares(args.shares), args.seed)
        mark = not args.by
        folders = selection.write_groups(dataset, groups, args.out, mark=mark, overwrite=args.overwrite)
        return "\n".join(f"wrote {folder}: {len(groups[name])} episodes" for name, folder in folders.items())

    return guarded(split)


def _shares(words: list[str]) -> dict[str, float]:
    shares = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            shares[name] = float(number)
        except ValueError as error:
            raise DatasetError(f"--shares: expected NAME=SHARE as train=0.9, got '{word}'") from error
    return shares


def add_paths_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data paths``."""
    parser.add_argument("path", help="dataset of recordings with branches")
    parser.add_argument("--out", default=None, help="write each path as one linear episode of a new dataset")
    _add_overwrite(parser)


def run_paths(args: argparse.Namespace) -> int:
    """Run ``hiwm data paths``."""

    def show() -> str:
        dataset = Dataset(args.path)
        if args.out is not None:
            paths = write_paths(dataset, args.out, overwrite=args.overwrite)
            return f"wrote {args.out}: {len(paths)} paths, {sum(p.length for p in paths)} frames"
        lines = []
        for path in branch_paths(dataset):
            pieces = ", ".join(f"{p.episode}[{p.start}:{p.stop}]" for p in path.pieces)
            note = "" if path.complete else "  (frames are missing on the way)"
            outcome = dataset.episodes[path.leaf].meta.get("outcome", "unknown")
            lines.append(f"{outcome:<9}{path.length:>6} frames  episode[frames]: {pieces}{note}")
        return "\n".join(lines)

    return guarded(show)


def add_import_droid_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data import-droid``."""
    parser.add_argument("source", help="folder with annotation/ and videos/")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument("--bags", default=None, help="also write every episode as a bag, BAGS/<split>/<id>")
    parser.add_argument("--rig", default="droid", help="rig file that names joints and cameras")
    _add_overwrite(parser)


def run_import_droid(args: argparse.Namespace) -> int:
    """Run ``hiwm data import-droid``."""

    def droid() -> str:
        from hiwm_data.droid_bags import export_droid_bags

        rig = load_rig(args.rig)
        report = import_droid(args.source, args.out, rig=rig, overwrite=args.overwrite)
        lines = [f"wrote {args.out}: episodes {report.episodes}, frames {report.frames}"]
        lines += [f"  left out {name}: {reason}" for name, reason in report.skipped.items()]
        lines += [f"  cut {count} frames of {name}" for name, count in report.trimmed.items()]
        if args.bags:
            bags = export_droid_bags(args.source, args.bags, rig=rig)
            lines.append(f"wrote {len(bags)} bags into {args.bags}; hiwm data convert reads them")
        return "\n".join(lines)

    return guarded(droid)
