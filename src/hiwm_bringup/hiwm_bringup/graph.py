"""The node graph, described once: the launch file and ``hiwm up`` start what :func:`build_graph` returns. No ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hiwm_rig.contract import RigFileError, load_rig

Value = str | int | float | bool
_EMULATOR_STARTS_S = 60.0
"""How long a driver waits for its emulated arm, which starts at the same time."""


class GraphError(ValueError):
    """Options that describe no graph; the text says what was expected."""


@dataclass(frozen=True)
class Option:
    """One argument of the bringup: of the launch file and of ``hiwm up`` alike."""

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeSpec:
    """One process of the graph.

    Attributes:
        package: ROS package of the executable.
        executable: its name in that package's setup.py.
        name: node name.
        parameters: ROS parameters on top of the parameter file.
        remappings: (from, to) pairs.
        on_exit: ``fail``: any exit takes the graph down with an error; ``finish``: exit code 0 ends the graph well.
    """

    package: str
    executable: str
    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    on_exit: Literal["fail", "finish"] = "fail"


OPTIONS: tuple[Option, ...] = (
    Option("rig", "world", "what stands behind the topics of the rig", ("sim", "world", "physical", "replay")),
    Option("operator", "none", "who may take over", ("scripted", "leader", "playback", "none")),
    Option("task", "", "task to run; empty: the rig file's default"),
    Option("rig_file", "push_t", "name of a shipped rig file, or path of a .yaml file"),
    Option("policy", "", "directory of the policy; empty: models/<rig>_base; 'none': no policy node"),
    Option("world", "", "directory of the world model (rig:=world); empty: models/<rig>_world"),
    Option("device", "", "device of world model and policy, for example cuda; empty: as in config/hiwm.yaml (cpu)"),
    Option("journal", "", "snapshot database of the world rig; empty: a new temporary one; an existing one is resumed"),
    Option(
        "time",
        "wall",
        "wall: real time; lockstep: the world rig publishes /clock and advances on request",
        ("wall", "lockstep"),
    ),
    Option("bag", "", "bag to play as a rig (rig:=replay); what is commanded changes nothing then"),
    Option(
        "follower_ports",
        "",
        "serial port of each follower arm (rig:=physical), by commas; 'file': as in the rig file; empty: emulated arms",
    ),
    Option(
        "leader_ports",
        "",
        "serial port of each leader arm (operator:=leader), as follower_ports",
    ),
    Option(
        "cameras",
        "",
        "serial or recording of each camera (rig:=physical), by commas; 'file': as in the rig file; empty: a stand-in",
    ),
    Option("record", "", "directory to record a bag into (must not exist); empty: no recording"),
    Option("record_split", "session", "one bag for all, or a bag per episode", ("session", "episode")),
    Option("record_images", "raw", "how images are stored in the bag", ("raw", "jpeg", "png")),
    Option("playback", "", "file with a recorded leader motion (operator:=playback)"),
    Option("episodes", "0", "episodes after which the scripted operator stops the graph; 0: until Ctrl-C"),
    Option("variation", "", "visual variation of the sim rig, for example distractors; empty: as trained"),
    Option("seed", "0", "seed of the initial states and of every random choice"),
)


def default_options() -> dict[str, str]:
    """Every option at its default."""
    return {option.name: option.default for option in OPTIONS}


def parse_assignments(words: Sequence[str]) -> dict[str, str]:
    """``name:=value`` words, over the defaults.

    Raises:
        GraphError: a word that is no assignment, an unknown name, a value that is not a choice.
    """
    options = default_options()
    known = {option.name: option for option in OPTIONS}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator:
            raise GraphError(f"expected name:=value, got '{word}' (names: {', '.join(known)})")
        if name not in known:
            raise GraphError(f"unknown option '{name}'; known are {', '.join(known)}")
        options[name] = value
    for name, option in known.items():
        if option.choices and options[name] not in option.choices:
            raise GraphError(f"{name}:={options[name]}: expected one of {', '.join(option.choices)}")
    return options


@dataclass(frozen=True)
class _Setup:
    """Options after validation, with everything filled in."""

    options: Mapping[str, str]
    common: Mapping[str, Value]
    rig_name: str
    task: str
    seed: int
    root: Path

    @property
    def device(self) -> dict[str, Value]:
        """The parameter of nodes that hold a model; none where the parameter file decides."""
        return {"device": self.options["device"]} if self.options["device"] else {}

    def model(self, option: str, kind: str) -> str:
        path = Path(self.options[option]) if self.options[option] else self.root / "models" / f"{self.rig_name}_{kind}"
        if not (path / "config.json").is_file():
            raise GraphError(f"{option}:={path}: no model there (expected {path}/config.json)")
        return str(path)


def _integer(options: Mapping[str, str], name: str) -> int:
    try:
        return int(options[name])
    except ValueError:
        raise GraphError(f"{name}:={options[name]}: expected a whole number") from None


def _setup(options: Mapping[str, str], root: Path) -> _Setup:
    try:
        rig = load_rig(options["rig_file"])
    except RigFileError as error:
        raise GraphError(f"rig_file:={options['rig_file']}: {error}") from error
    task = options["task"] or rig.task
    common: dict[str, Value] = {"rig_file": options["rig_file"], "use_sim_time": options["time"] == "lockstep"}
    return _Setup(options, common, rig.name, task, _integer(options, "seed"), root)


def _sim_rig(setup: _Setup) -> list[NodeSpec]:
    parameters: dict[str, Value] = {"task": setup.task, "seed": setup.seed, "variation": setup.options["variation"]}
    return [NodeSpec("hiwm_sim", "sim_rig", "sim_rig", {**setup.common, **parameters})]


def _world_rig(setup: _Setup) -> list[NodeSpec]:
    parameters: dict[str, Value] = {
        "model": setup.model("world", "world"),
        "journal": setup.options["journal"],
        "time_mode": setup.options["time"],
        "seed": setup.seed,
        **setup.device,
    }
    # The world rig is the clock in lock-step: it must not wait for one.
    own = {**setup.common, **parameters, "use_sim_time": False}
    return [NodeSpec("hiwm_world_model", "world_rig", "world_rig", own)]


def _physical_rig(setup: _Setup) -> list[NodeSpec]:
    return [*_arms(setup, "follower"), *_cameras(setup)]


def _arms(setup: _Setup, part: Literal["follower", "leader"]) -> list[NodeSpec]:
    """The driver of all follower or leader arms, with emulated servos where no ports are given."""
    rig = load_rig(setup.options["rig_file"])
    without = [a.name for a in rig.arms if a.hardware is None or (part == "leader" and a.hardware.leader is None)]
    if without:
        raise GraphError(
            f"rig file '{setup.options['rig_file']}': no section hardware.{part} for the arms {without}: "
            "describe their servos as rigs/push_t.yaml does"
        )
    ports = setup.options[f"{part}_ports"]
    package = "hiwm_rig" if part == "follower" else "hiwm_teleop"
    if ports:
        own: dict[str, Value] = {"ports": "" if ports == "file" else ports}
        return [NodeSpec(package, f"{part}_arm", f"{part}_arm", {**setup.common, **own})]
    emulator = NodeSpec("hiwm_rig", "emulated_arm", f"emulated_{part}", {**setup.common, "part": part})
    patience: dict[str, Value] = {"ports": "emulated", "connect_s": _EMULATOR_STARTS_S}
    return [emulator, NodeSpec(package, f"{part}_arm", f"{part}_arm", {**setup.common, **patience})]


def _cameras(setup: _Setup) -> list[NodeSpec]:
    """The driver of each camera; a recorded stand-in where no serial or file is given."""
    rig, given = load_rig(setup.options["rig_file"]), setup.options["cameras"]
    sources = given.split(",") if given not in ("", "file") else [""] * len(rig.cameras)
    if len(sources) != len(rig.cameras):
        names = ", ".join(c.name for c in rig.cameras)
        raise GraphError(f"cameras:={given}: expected {len(rig.cameras)} serials or files, by commas (for {names})")
    nodes = []
    for camera, source in zip(rig.cameras, sources, strict=True):
        key = "recording" if "/" in source or source.endswith((".db3", ".bag")) else "serial"
        own: dict[str, Value] = {"camera": camera.name, key: source, "stand_in": not given}
        nodes.append(NodeSpec("hiwm_rig", "realsense_camera", f"{camera.name}_camera", {**setup.common, **own}))
    return nodes


def _replay_rig(setup: _Setup) -> list[NodeSpec]:
    bag = setup.options["bag"]
    if not bag or not Path(bag).exists():
        raise GraphError(f"rig:=replay needs bag:=DIR (a recording), got '{bag}'")
    parameters: dict[str, Value] = {"bag": bag, "as_rig": True, "time": "now", "wait_s": 60.0}
    # Its stamps are the wall clock's.
    own = {**setup.common, **parameters, "use_sim_time": False}
    return [NodeSpec("hiwm_data", "replay", "replay_rig", own, on_exit="finish")]


_RIGS = {"sim": _sim_rig, "world": _world_rig, "physical": _physical_rig, "replay": _replay_rig}


def _scripted(setup: _Setup) -> list[NodeSpec]:
    parameters: dict[str, Value] = {
        "task": setup.task,
        "seed": setup.seed,
        "episodes": _integer(setup.options, "episodes"),
    }
    node = "scripted_operator"
    return [NodeSpec("hiwm_teleop", node, node, {**setup.common, **parameters}, on_exit="finish")]


def _leader(setup: _Setup) -> list[NodeSpec]:
    return _arms(setup, "leader")


def _playback(setup: _Setup) -> list[NodeSpec]:
    source = setup.options["playback"]
    if not Path(source).is_file():
        raise GraphError(f"operator:=playback needs playback:=FILE (a recorded leader motion), got '{source}'")
    own: dict[str, Value] = {**setup.common, "source": source}
    return [NodeSpec("hiwm_teleop", "leader_playback", "leader_playback", own, on_exit="finish")]


_OPERATORS = {"scripted": _scripted, "leader": _leader, "playback": _playback}


def _checkpoints(nodes: Sequence[NodeSpec]) -> str:
    """The models that run, for the bag's metadata: ``role=folder,role=folder``."""
    roles = {"world": "model", "policy": "policy"}
    found = {role: n.parameters[key] for n in nodes for role, key in roles.items() if key in n.parameters}
    return ",".join(f"{role}={folder}" for role, folder in found.items())


def build_rig(options: Mapping[str, str], root: Path) -> list[NodeSpec]:
    """The nodes of the rig alone: cameras and follower arms, nobody who commands them; see :func:`build_graph`."""
    return _RIGS[options["rig"]](_setup(options, root))


def build_graph(options: Mapping[str, str], root: Path) -> list[NodeSpec]:
    """The nodes for these options.

    Args:
        options: a value for each of :data:`OPTIONS`, see :func:`parse_assignments`.
        root: project directory, where ``models/`` lies.

    Raises:
        GraphError: missing models, unknown rigs, arms that the rig file describes no servos for.
    """
    setup = _setup(options, root)
    nodes = build_rig(options, root)
    if options["policy"] != "none":
        policy: dict[str, Value] = {"policy": setup.model("policy", "base"), "seed": setup.seed, **setup.device}
        nodes.append(NodeSpec("hiwm_policy", "policy", "policy", {**setup.common, **policy}))
    first = "paused" if options["policy"] == "none" else "policy"
    nodes.append(NodeSpec("hiwm_teleop", "arbiter", "arbiter", {**setup.common, "first_driver": first}))
    if options["record"]:
        record: dict[str, Value] = {"output": options["record"], "checkpoints": _checkpoints(nodes)}
        record |= {"split": options["record_split"], "images": options["record_images"]}
        nodes.append(NodeSpec("hiwm_data", "recorder", "recorder", {**setup.common, **record}))
    if options["operator"] != "none":
        nodes += _OPERATORS[options["operator"]](setup)
    return nodes
