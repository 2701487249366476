"""The ``hiwm`` command line: a table of commands, each imported only when it is used."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        words: what the user types, ``("train", "world")``.
        module: where it lives.
        verb: the module has ``add_<verb>_arguments`` and ``run_<verb>``; empty: ``add_arguments`` and ``run``.
        help: one line.
        example: printed under the command's own help.
    """

    words: tuple[str, ...]
    module: str
    verb: str
    help: str
    example: str


COMMANDS: tuple[Command, ...] = (
    Command(
        ("demo",),
        "hiwm_bringup.demo",
        "",
        "the whole loop: failure, takeover, branches, post-training, comparison",
        "hiwm demo --out /tmp/demo --seed 1\n  hiwm demo --droid shared/data/droid_subset",
    ),
    Command(
        ("test",), "hiwm_bringup.run_tests", "", "all tests and checks", "hiwm test\n  hiwm test hiwm_rig -k codecs"
    ),
    Command(
        ("up",),
        "hiwm_bringup.up",
        "",
        "bring the node graph up",
        "hiwm up rig:=world operator:=scripted record:=/tmp/bag",
    ),
    Command(
        ("check",),
        "hiwm_bringup.check",
        "",
        "prove that a rig is a drop-in: the conformance suite",
        "hiwm check\n  hiwm check --rig sim --json sim.json",
    ),
    Command(
        ("data", "generate"),
        "hiwm_sim.commands",
        "generate",
        "generate a dataset on the physics rig",
        "hiwm data generate --help",
    ),
    Command(
        ("data", "convert"),
        "hiwm_data.bag_commands",
        "convert",
        "convert bags to a training dataset",
        "hiwm data convert BAG... --out data/corrections",
    ),
    Command(
        ("data", "info"),
        "hiwm_data.commands",
        "info",
        "what is in a dataset or bag",
        "hiwm data info data/push_t_demos",
    ),
    Command(
        ("data", "view"),
        "hiwm_data.commands",
        "view",
        "episodes of a dataset as a page of pictures and plots",
        "hiwm data view data/push_t_corrections --out /tmp/view",
    ),
    Command(
        ("data", "merge"),
        "hiwm_data.commands",
        "merge",
        "several datasets as one",
        "hiwm data merge a b --out c\n  hiwm data merge today --append-to all",
    ),
    Command(
        ("data", "filter"),
        "hiwm_data.commands",
        "filter",
        "the episodes of a dataset that fulfil all criteria",
        "hiwm data filter data/corrections --driver human mixed --outcome success --min-trust 0.5 --out data/good",
    ),
    Command(
        ("data", "split"),
        "hiwm_data.commands",
        "split",
        "one dataset as several",
        "hiwm data split data/demos --shares train=0.9 val=0.1 --out data/parts\n"
        "  hiwm data split data/demos --by task --out data/by_task",
    ),
    Command(
        ("data", "paths"),
        "hiwm_data.commands",
        "paths",
        "root-to-leaf paths through recorded branches, for tools that know linear episodes only",
        "hiwm data paths data/corrections --out data/corrections_linear",
    ),
    Command(
        ("data", "import-droid"),
        "hiwm_data.commands",
        "import_droid",
        "import DROID robot episodes, as a dataset and as bags",
        "hiwm data import-droid DIR --out data/droid --bags bags/droid",
    ),
    Command(("train", "world"), "hiwm_world_model.commands", "train", "train a world model", "hiwm train world --help"),
    Command(("train", "policy"), "hiwm_policy.commands", "train", "train a policy", "hiwm train policy --help"),
    Command(
        ("posttrain",),
        "hiwm_policy.commands",
        "posttrain",
        "post-train a policy on demonstrations and corrections",
        "hiwm posttrain --help",
    ),
    Command(
        ("evaluate", "policy"),
        "hiwm_policy.commands",
        "evaluate",
        "success rate of a policy on a rig",
        "hiwm evaluate policy --policy models/push_t_hiwm --rig sim --episodes 100 --seed 0 --out result.json",
    ),
    Command(
        ("evaluate", "open-loop"),
        "hiwm_policy.open_loop_command",
        "",
        "what a policy proposes on a recording, beside what was done",
        "hiwm evaluate open-loop --policy models/push_t_base --bag /tmp/bag --out result.json",
    ),
    Command(
        ("evaluate", "world"),
        "hiwm_world_model.commands",
        "evaluate",
        "open-loop fidelity of a world model on held-out episodes",
        "hiwm evaluate world --model models/push_t_world --data data/push_t_play --out result.json",
    ),
    Command(
        ("collect",), "hiwm_teleop.commands", "collect", "collect corrections in a world model", "hiwm collect --help"
    ),
    Command(
        ("record",),
        "hiwm_data.bag_commands",
        "record",
        "record the topics of a running graph, or repair a bag",
        "hiwm record /tmp/bag --split episode\n  hiwm record --repair /tmp/bag",
    ),
    Command(
        ("episode",),
        "hiwm_bringup.episode",
        "",
        "begin or end an episode of a running graph",
        "hiwm episode start --task push_t\n  hiwm episode success",
    ),
    Command(
        ("replay",),
        "hiwm_data.bag_commands",
        "replay",
        "replay a bag onto the topics, or as a rig",
        "hiwm replay /tmp/bag --rate 2 --start 30\n  hiwm replay /tmp/bag --as-rig --time now --loop",
    ),
    Command(
        ("emulate", "arm"),
        "hiwm_rig.dynamixel.commands",
        "emulate",
        "an emulated Dynamixel arm on a pseudo-terminal, for people without one",
        "hiwm emulate arm --part leader",
    ),
    Command(
        ("emulate", "order"),
        "hiwm_rig.dynamixel.commands",
        "order",
        "order a running emulated arm a fault, or a hand that moves it",
        "hiwm emulate order --link /tmp/arm missing 3",
    ),
    Command(
        ("calibrate",),
        "hiwm_rig.dynamixel.commands",
        "calibrate",
        "measure zeros and ends of an arm's joints, and write them into a rig file",
        "hiwm calibrate --rig-file my_rig.yaml --part leader --out my_calibrated_rig.yaml",
    ),
    Command(
        ("bench",),
        "hiwm_bringup.bench",
        "",
        "measure speed, latency and memory",
        "hiwm bench world_step_ms --out b.json",
    ),
)

_EPILOG = """examples:
  hiwm demo                    the whole loop in at most 15 minutes, with a report at the end
  hiwm test                    all tests
  hiwm up operator:=scripted   the running system, until Ctrl-C
"""
_GROUPS = {"emulate": "emulators", "data": "datasets", "train": "training", "evaluate": "evaluation"}


def _overview() -> str:
    width = max(len(" ".join(c.words)) for c in COMMANDS) + 2
    lines = [f"  {' '.join(c.words):<{width}}{c.help}" for c in COMMANDS]
    return "commands:\n" + "\n".join(lines) + "\n\n" + _EPILOG


def _find(argv: Sequence[str]) -> Command | None:
    matches = [c for c in COMMANDS if tuple(argv[: len(c.words)]) == c.words]
    return matches[0] if matches else None


def _fail(argv: Sequence[str]) -> int:
    group = [c for c in COMMANDS if argv and c.words[0] == argv[0]]
    if group:
        typed = " ".join(argv[:2])
        print(f"hiwm {typed}: expected one of", file=sys.stderr)
        for command in group:
            print(f"  hiwm {' '.join(command.words):<20}{command.help}", file=sys.stderr)
    else:
        print(f"hiwm: no command '{argv[0]}'\n\n{_overview()}", file=sys.stderr)
    return EXIT_USAGE


def _run(command: Command, argv: Sequence[str]) -> int:
    name = " ".join(command.words)
    parser = argparse.ArgumentParser(
        prog=f"hiwm {name}",
        description=command.help[0].upper() + command.help[1:] + ".",
        epilog=f"example:\n  {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module = import_module(command.module)
    suffix = f"_{command.verb}" if command.verb else ""
    getattr(module, f"add{suffix}_arguments")(parser)
    return int(getattr(module, f"run{suffix}")(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(f"usage: hiwm COMMAND [...]\n\nHuman-in-the-World-Model on ROS 2.\n\n{_overview()}")
        return 0 if words else EXIT_USAGE
    command = _find(words)
    if command is None:
        wants_help = words[0] in _GROUPS and set(words[1:]) & {"-h", "--help"}
        return 0 if _fail(words) and wants_help else EXIT_USAGE
    # A script that starts this in its background has Ctrl-C ignored; what stops a command must still stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _run(command, words[len(command.words) :])
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
