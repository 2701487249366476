"""The tree of branches that a bag holds: what happened in it, episode by episode. No ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver

from hiwm_data.align import RigStreams
from hiwm_data.bag_reader import Bag, BagError, rig_of_bag
from hiwm_data.convert import read_streams, recorded_segments, step_times
from hiwm_data.segments import Segment


@dataclass
class BranchNode:
    """One branch of an episode.

    Attributes:
        branch_id, parent_id, snapshot_id: -1 where there is none.
        start_step: control steps since the root; -1 where the rig counts none.
        frames: recorded in it.
        drivers: frames by who drove.
        outcome: in words.
        trust_min: lowest trust, 1 where no world model is involved.
        children: branches that start from this one.
    """

    branch_id: int
    parent_id: int
    snapshot_id: int
    start_step: int
    frames: int
    drivers: Counter[str]
    outcome: str
    trust_min: float
    children: list[BranchNode] = field(default_factory=list)


@dataclass
class EpisodeTree:
    """One episode with its branches; ``seconds`` from its first to its last frame, ``outcome`` of its last branch."""

    episode_id: str
    task: str
    seconds: float = 0.0
    outcome: str = ""
    roots: list[BranchNode] = field(default_factory=list)

    def branches(self) -> Iterator[BranchNode]:
        """All branches, parents first."""
        pending = list(self.roots)
        while pending:
            node = pending.pop(0)
            yield node
            pending = node.children + pending


def bag_trees(bag: Bag, rig: Rig | None = None) -> tuple[list[EpisodeTree], Counter[str]]:
    """The episodes of a bag, cut exactly as a conversion cuts them, and what was left out or lost, by reason.

    Args:
        bag: to read.
        rig: that was recorded; default: the one kept with the bag.

    Raises:
        BagError: no rig is known, or the bag lacks topics.
    """
    rig = rig or rig_of_bag(bag)
    if rig is None:
        raise BagError(f"{bag.path}: no rig file is kept with this bag")
    counters: Counter[str] = Counter()
    streams = read_streams(bag, rig, lambda camera, image: None)
    segments = recorded_segments(str(bag.path), streams, max_dropped=float("inf"), counters=counters, discarded=True)
    trees: dict[str, EpisodeTree] = {}
    starts_ns: dict[str, int] = {}
    for segment in segments:
        tree = trees.setdefault(segment.episode_id, EpisodeTree(segment.episode_id, segment.task))
        _add(tree, segment, streams)
        start_ns = starts_ns.setdefault(segment.episode_id, segment.frames[0].stamp_ns)
        tree.outcome = segment.outcome.name.lower()
        tree.seconds = (segment.frames[-1].stamp_ns - start_ns) / NS_PER_S
    return list(trees.values()), +counters


def tree_text(tree: EpisodeTree) -> str:
    """The tree as lines of text, one branch a line."""
    name = f"episode {tree.episode_id}" if tree.episode_id else "one episode (none is announced)"
    lines = [f"{name}: task {tree.task or '(none)'}, {tree.seconds:.1f} s, {tree.outcome}"]
    for i, root in enumerate(tree.roots):
        lines += _lines(root, "", last=i == len(tree.roots) - 1)
    return "\n".join(lines)


def _add(tree: EpisodeTree, segment: Segment, streams: RigStreams) -> None:
    """Hang a segment into the tree; the pieces of a branch with lost frames are one branch."""
    drivers = _drivers(segment, streams)
    trust = min((f.world.trust for f in segment.frames if f.world is not None), default=1.0)
    known = {node.branch_id: node for node in tree.branches()}
    if segment.part and segment.branch_id in known:
        node = known[segment.branch_id]
        node.frames += len(segment.frames)
        node.drivers += drivers
        node.trust_min = min(node.trust_min, trust)
        return
    world = segment.frames[0].world
    node = BranchNode(
        segment.branch_id,
        segment.parent_id,
        segment.snapshot_id,
        -1 if world is None else world.step,
        len(segment.frames),
        drivers,
        segment.outcome.name.lower(),
        trust,
    )
    parent = known.get(segment.parent_id)
    (tree.roots if parent is None else parent.children).append(node)


def _drivers(segment: Segment, streams: RigStreams) -> Counter[str]:
    controls = [streams.control(step) for step in step_times(segment, streams.rig)]
    return Counter("nobody" if c is None else Driver(c.driver).name.lower() for c in controls)


def _lines(node: BranchNode, indent: str, last: bool) -> list[str]:
    start = f" from step {node.start_step}" if node.start_step > 0 else ""
    driven = ", ".join(f"{who} {count}" for who, count in node.drivers.items())
    text = f"branch {node.branch_id}{start}: {node.frames} frames ({driven}), {node.outcome}"
    text += f", trust at least {node.trust_min:.2f}" if node.trust_min < 1 else ""
    lines = [f"{indent}{'└─ ' if last else '├─ '}{text}"]
    for i, child in enumerate(node.children):
        lines += _lines(child, indent + ("   " if last else "│  "), last=i == len(node.children) - 1)
    return lines
