"""Command line of this package: record, replay, convert, inspect, import-droid, merge, recover."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from hiwm_rig.contract import RigFileError, load_rig

from hiwm_data.bag_reader import Bag, BagError
from hiwm_data.bag_writer import RecordingError
from hiwm_data.convert import ConvertOptions, convert_bags
from hiwm_data.dataset import Dataset, DatasetError, merge_datasets
from hiwm_data.droid import import_droid
from hiwm_data.layout import INFO
from hiwm_data.recover import recover_bag

EXIT_USAGE = 2


def _guarded(action: Callable[[], str]) -> int:
    """Print what the action says; input that cannot be used is one line and exit code 2."""
    try:
        print(action())
    except (BagError, DatasetError, RecordingError, RigFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm record``."""
    parser.add_argument("out", help="folder of the bag; must not exist")
    parser.add_argument("--rig", default="push_t", help="shipped rig file or path of one")
    parser.add_argument("--checkpoints", default="", help="role=folder,role=folder of the models that run")


def run_record(args: argparse.Namespace) -> int:
    """Run ``hiwm record``: the recorder node until Ctrl-C."""
    from hiwm_rig.rig_node import run_node

    from hiwm_data.recorder_node import RecorderNode

    values = {"output": args.out, "rig_file": args.rig, "checkpoints": args.checkpoints}
    return int(run_node(RecorderNode, _ros_arguments(values)))


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm replay``."""
    parser.add_argument("bag", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 2 plays twice as fast")
    parser.add_argument("--loop", action="store_true", help="play again and again")
    parser.add_argument("--topics", nargs="*", default=[], help="only these topics")


def run_replay(args: argparse.Namespace) -> int:
    """Run ``hiwm replay``: the replay node until the bag ends."""
    from hiwm_rig.rig_node import run_node

    from hiwm_data.replay_node import ReplayNode

    values: dict[str, str] = {"bag": args.bag, "rate": str(float(args.rate)), "loop": str(args.loop).lower()}
    return int(run_node(ReplayNode, _ros_arguments({**values, "topics": ",".join(args.topics)})))


def _ros_arguments(values: dict[str, str]) -> list[str]:
    given = [f"{name}:={value}" for name, value in values.items() if value]
    return ["--ros-args", *(word for pair in given for word in ("-p", pair))]


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data convert``."""
    parser.add_argument("bags", nargs="+", help="rosbag2 folders, .mcap or .db3 files")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument("--rig", default=None, help="rig file; default: the one kept with the bags")
    parser.add_argument("--split", default="train", choices=("train", "val"))
    parser.add_argument("--min-frames", type=int, default=2, help="leave out shorter branch segments")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run_convert(args: argparse.Namespace) -> int:
    """Run ``hiwm data convert``."""

    def convert() -> str:
        rig = None if args.rig is None else load_rig(args.rig)
        options = ConvertOptions(split=args.split, min_frames=args.min_frames)
        report = convert_bags(args.bags, args.out, rig=rig, options=options, overwrite=args.overwrite)
        lines = [
            f"wrote {args.out}: {report.episodes} episodes, {report.frames} frames, "
            f"{report.intervention_frames} of them driven by a person"
        ]
        lines += [f"  {name}: {count}" for name, count in sorted(report.counters.items()) if count]
        lines += [f"  {bag}: ends without its index (the recorder was killed)" for bag in report.incomplete]
        return "\n".join(lines)

    return _guarded(convert)


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data inspect``."""
    parser.add_argument("path", help="dataset folder or bag")


def run_inspect(args: argparse.Namespace) -> int:
    """Run ``hiwm data inspect``."""
    path = Path(args.path)
    return _guarded(lambda: _dataset_text(path) if (path / INFO).is_file() else _bag_text(path))


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


def _bag_text(path: Path) -> str:
    summary = Bag(path).summary()
    seconds = (summary.end_ns - summary.start_ns) / 1e9
    state = "" if summary.complete else ", ends without its index (the recorder was killed)"
    lines = [f"{path}: {sum(summary.counts.values())} messages in {seconds:.1f} s{state}"]
    lines += [f"  {t:<40}{summary.counts[t]:>8}  {summary.types[t]}" for t in sorted(summary.types)]
    lines += [f"  {k}: {v.strip()}" for k, v in summary.metadata.items() if k != "rig"]
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

    return _guarded(droid)


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data merge``."""
    parser.add_argument("datasets", nargs="+", help="datasets with the same columns and rate")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run_merge(args: argparse.Namespace) -> int:
    """Run ``hiwm data merge``."""
    return _guarded(lambda: f"wrote {merge_datasets(args.datasets, args.out, overwrite=args.overwrite)}")


def add_recover_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data recover``."""
    parser.add_argument("bag", help="bag whose recorder was killed")
    parser.add_argument("--out", required=True, help="folder of the new, complete bag")


def run_recover(args: argparse.Namespace) -> int:
    """Run ``hiwm data recover``."""
    return _guarded(lambda: f"wrote {args.out}: {recover_bag(args.bag, args.out)} messages")
