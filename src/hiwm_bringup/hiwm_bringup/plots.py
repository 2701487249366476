"""Plots of the report. Colours: red a person, blue the policy, grey the base policy, yellow the world model's trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from hiwm_bringup.report import BASE_COLOUR, HUMAN_COLOUR, POLICY_COLOUR, TRUST_COLOUR

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_HUMAN = 2


@dataclass(frozen=True)
class Branch:
    """One branch of an episode.

    Attributes:
        branch_id, parent_id: of the tree; the root's parent is -1.
        first_step, last_step: control steps since the root.
        human: (N,) whether a person drove, frame by frame.
    """

    branch_id: int
    parent_id: int
    first_step: int
    last_step: int
    human: Sequence[bool]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def success_plot(methods: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Success rates with their 95 % intervals; ``methods``: name -> success, ci95, episodes (fractions)."""
    figure, axes = plt.subplots(figsize=(6, 0.8 + 0.6 * len(methods)))
    names = list(methods)[::-1]
    for i, name in enumerate(names):
        success, (low, high) = methods[name]["success"], methods[name]["ci95"]
        axes.barh(i, 100 * success, color=BASE_COLOUR if name == "base" else POLICY_COLOUR, height=0.6)
        errors = [[100 * max(0.0, success - low)], [100 * max(0.0, high - success)]]
        axes.errorbar(100 * success, i, xerr=errors, color="black", capsize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("success on the physics rig, % (bars: 95 % interval)")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def timeline_plot(
    world: Sequence[tuple[float, float, float]], drivers: Sequence[tuple[float, int]], path: Path
) -> None:
    """Success probability and trust over time, and when a person drove.

    Args:
        world: (time s, success probability, trust).
        drivers: (time s, driver) at each change of driver.
        path: of the image.
    """
    figure, axes = plt.subplots(figsize=(9, 2.8))
    times = np.array([w[0] for w in world])
    start = times[0] if times.size else 0.0
    axes.plot(times - start, [w[1] for w in world], color=POLICY_COLOUR, lw=1.2, label="success probability (learned)")
    axes.plot(times - start, [w[2] for w in world], color=TRUST_COLOUR, lw=1.2, label="trust")
    ends = [t for t, _ in drivers[1:]] + [times[-1] if times.size else 0.0]
    label: str | None = "operator drives"
    for (begin, driver), end in zip(drivers, ends, strict=False):
        if driver == _HUMAN:
            axes.axvspan(begin - start, end - start, color=HUMAN_COLOUR, alpha=0.35, lw=0, label=label)
            label = None
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("seconds")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def tree_plot(branches: Sequence[Branch], path: Path) -> None:
    """The snapshot tree of one episode: one line per branch, from the snapshot where it begins."""
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.32 * len(branches)))
    rows = {branch.branch_id: row for row, branch in enumerate(branches)}
    for branch in branches:
        row = rows[branch.branch_id]
        axes.plot([branch.first_step, branch.last_step], [row, row], color=POLICY_COLOUR, lw=2, solid_capstyle="butt")
        steps = np.linspace(branch.first_step, branch.last_step, max(1, len(branch.human)))
        human = steps[np.asarray(branch.human, dtype=bool)] if len(branch.human) else steps[:0]
        axes.plot(human, np.full(len(human), row), "s", color=HUMAN_COLOUR, ms=3.5)
        if branch.parent_id in rows:
            axes.plot([branch.first_step] * 2, [rows[branch.parent_id], row], color="0.6", lw=0.8, ls=":")
    axes.set_yticks(range(len(branches)), [f"branch {b.branch_id}" for b in branches], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("control steps since the first frame (red: the operator drives)")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def curves_plot(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], labels: tuple[str, str], path: Path
) -> None:
    """Named (x, y) curves; ``labels``: of the two axes."""
    figure, axes = plt.subplots(figsize=(6.5, 3.2))
    for name, (x, y) in curves.items():
        axes.plot(x, y, marker="o", ms=3, label=name)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)
