"""Command line of bags: ``hiwm record``, ``hiwm replay``, ``hiwm data convert``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from hiwm_rig.contract import RigFileError, load_rig

from hiwm_data.bag_reader import BagError, find_bags
from hiwm_data.bag_writer import RecordingError
from hiwm_data.convert import ConvertOptions, convert_bags
from hiwm_data.features import DatasetError
from hiwm_data.images import FORMATS
from hiwm_data.player import ReplayTime
from hiwm_data.repair import repair_bag

EXIT_USAGE = 2


def guarded(action: Callable[[], str]) -> int:
    """Print what the action says; input that cannot be used, and a disk that refuses, are one line and exit code 2."""
    try:
        print(action())
    except (BagError, DatasetError, RecordingError, RigFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm record``."""
    parser.add_argument("out", nargs="?", help="folder of the bag; must not exist")
    parser.add_argument(
        "--repair",
        nargs="+",
        metavar="BAG",
        help="record nothing: give bags whose recorder was killed their index back, in place",
    )
    parser.add_argument("--rig", default="push_t", help="shipped rig file or path of one")
    parser.add_argument("--checkpoints", default="", help="role=folder,role=folder of the models that run")
    parser.add_argument(
        "--split",
        choices=("session", "episode"),
        default="session",
        help="session: one bag until Ctrl-C; episode: a bag OUT/episode_NNNN from begin to end of each episode",
    )
    parser.add_argument(
        "--images", choices=FORMATS, default="raw", help="as they come; jpeg: small, lossy; png: lossless, slower"
    )
    parser.add_argument(
        "--max-file-minutes", type=float, default=5.0, help="a new file inside the bag after so long; 0: never"
    )


def run_record(args: argparse.Namespace) -> int:
    """Run ``hiwm record``: the recorder node until Ctrl-C, or a repair."""
    if bool(args.out) == bool(args.repair):
        print("error: name the folder to record into, or --repair BAG", file=sys.stderr)
        return EXIT_USAGE
    if args.repair:
        return guarded(lambda: "\n".join(_repair(bag) for bag in find_bags(args.repair)))
    from hiwm_rig.rig_node import run_node

    from hiwm_data.recorder_node import RecorderNode

    values = {"output": args.out, "rig_file": args.rig, "checkpoints": args.checkpoints}
    values |= {"split": args.split, "images": args.images, "max_file_s": str(60 * float(args.max_file_minutes))}
    return int(run_node(RecorderNode, _ros_arguments(values)))


def _repair(bag: Path) -> str:
    report = repair_bag(bag)
    if not report.repaired and not report.set_aside:
        return f"{bag}: complete, {report.messages} messages; nothing to do"
    lines = [f"{bag}: repaired, {report.messages} messages"]
    lines += [f"  {file.name}: index written" for file in report.repaired]
    lines += [f"  {file.name}: holds nothing that can be read, set aside" for file in report.set_aside]
    lines += [f"  {report.damaged_chunks} damaged chunks left out"] if report.damaged_chunks else []
    return "\n".join(lines)


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm replay``."""
    parser.add_argument("bag", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 2 plays twice as fast")
    parser.add_argument("--loop", action="store_true", help="play again and again")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin S seconds after the first message")
    parser.add_argument("--topics", nargs="*", default=[], help="only these topics")
    parser.add_argument(
        "--as-rig",
        action="store_true",
        help="only what a rig publishes (cameras, joint and world states, episode events): run a policy against it",
    )
    parser.add_argument(
        "--time",
        choices=[t.value for t in ReplayTime],
        default=ReplayTime.ORIGINAL.value,
        help="original: stamps as recorded; clock: and /clock, for nodes with use_sim_time; now: stamps of today",
    )


def run_replay(args: argparse.Namespace) -> int:
    """Run ``hiwm replay``: the replay node until the bag ends."""
    from hiwm_rig.rig_node import run_node

    from hiwm_data.replay_node import ReplayNode

    values: dict[str, str] = {"bag": args.bag, "rate": str(float(args.rate)), "loop": str(args.loop).lower()}
    values |= {"start_s": str(float(args.start)), "as_rig": str(args.as_rig).lower(), "time": args.time}
    return int(run_node(ReplayNode, _ros_arguments({**values, "topics": ",".join(args.topics)})))


def _ros_arguments(values: dict[str, str]) -> list[str]:
    given = [f"{name}:={value}" for name, value in values.items() if value]
    return ["--ros-args", *(word for pair in given for word in ("-p", pair))]


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm data convert``."""
    parser.add_argument("bags", nargs="+", help="bags (rosbag2 folders, .mcap or .db3 files), or folders of bags")
    parser.add_argument("--out", required=True, help="folder of the new dataset")
    parser.add_argument("--rig", default=None, help="rig file; default: the one kept with the bags")
    parser.add_argument("--split", default="train", choices=("train", "val"))
    parser.add_argument("--min-frames", type=int, default=2, help="leave out shorter branch segments")
    parser.add_argument(
        "--max-dropped",
        type=float,
        default=ConvertOptions().max_dropped,
        metavar="SHARE",
        help="refuse a bag with a larger share of lost or unusable messages on a topic (1: take everything)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run_convert(args: argparse.Namespace) -> int:
    """Run ``hiwm data convert``."""

    def convert() -> str:
        rig = None if args.rig is None else load_rig(args.rig)
        options = ConvertOptions(split=args.split, min_frames=args.min_frames, max_dropped=args.max_dropped)
        report = convert_bags(args.bags, args.out, rig=rig, options=options, overwrite=args.overwrite)
        lines = [
            f"wrote {args.out}: {report.episodes} episodes, {report.frames} frames, "
            f"{report.intervention_frames} of them driven by a person"
        ]
        lines += [f"  {name}: {count}" for name, count in sorted(report.counters.items()) if count]
        lines += [
            f"  {bag}: cut off or damaged (was the recorder killed?); what it holds was converted"
            for bag in report.incomplete
        ]
        return "\n".join(lines)

    return guarded(convert)
