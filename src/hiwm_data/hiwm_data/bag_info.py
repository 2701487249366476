"""What a bag holds, in words: topics, where it comes from, and its tree of branches. No ROS."""

from __future__ import annotations

from pathlib import Path

from hiwm_rig.contract import RigFileError

from hiwm_data.bag_reader import Bag, BagError, find_bags
from hiwm_data.bag_tree import bag_trees, tree_text

_HIDDEN = ("rig",)


def describe_bags(path: str | Path) -> str:
    """Description of a bag, or of every bag in a folder (one bag per episode).

    Raises:
        BagError: there is no bag, or a file of it is none.
    """
    return "\n\n".join(describe_bag(bag) for bag in find_bags([path]))


def describe_bag(path: str | Path) -> str:
    """Topics, files, texts kept by the recorder, and the branches of each episode.

    Raises:
        BagError: there is no bag, or a file of it is none.
    """
    bag = Bag(path)
    summary = bag.summary()
    seconds = (summary.end_ns - summary.start_ns) / 1e9
    files = f" in {len(bag.files)} files" if len(bag.files) > 1 else ""
    lines = [f"{path}: {sum(summary.counts.values())} messages{files}, {seconds:.1f} s"]
    if not summary.complete:
        lines += ["  a file lacks its end or is damaged (was the recorder killed?): hiwm record --repair"]
    lines += [f"  {t:<40}{summary.counts[t]:>8}  {summary.types[t]}" for t in sorted(summary.types)]
    lines += [f"  {k}: {v.strip()}" for k, v in summary.metadata.items() if k not in _HIDDEN]
    return "\n".join([*lines, *(f"  {line}" for line in _branches(bag))])


def _branches(bag: Bag) -> list[str]:
    try:
        trees, counters = bag_trees(bag)
    except (BagError, RigFileError) as error:
        return [f"no branches can be told: {error}"]
    lines = [line for tree in trees for line in tree_text(tree).splitlines()]
    return lines + [f"{name}: {count}" for name, count in sorted(counters.items())]
