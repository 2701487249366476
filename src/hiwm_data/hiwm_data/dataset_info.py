"""What a dataset holds, in words: for ``hiwm data info``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hiwm_rig.types import Driver

from hiwm_data.paths import branch_paths
from hiwm_data.reader import Dataset

_EPISODE_KEYS = ("split", "source", "outcome")


def describe_dataset(root: str | Path) -> str:
    """Size, columns, tasks, outcomes, drivers, trust and branches of a dataset.

    Raises:
        DatasetError: naming the file, if it is not a readable dataset.
    """
    dataset = Dataset(root)
    seconds = dataset.num_frames / dataset.fps
    size = sum(p.stat().st_size for p in dataset.root.rglob("*") if p.is_file())
    lines = [
        f"{root}: {dataset.num_episodes} episodes, {dataset.num_frames} frames at {dataset.fps:g} Hz "
        f"({seconds / 60:.1f} min), robot {dataset.info.get('robot_type')}, {size / 1e6:.1f} MB"
    ]
    for name, feature in dataset.features.items():
        names = f"  {', '.join(feature.names)}" if feature.names and not feature.is_video else ""
        lines.append(f"  {name:<32}{feature.dtype:<9}{list(feature.shape)}{names}")
    lines += [_counted("task", Counter(e.task or "(no instruction)" for e in dataset.episodes))]
    for key in _EPISODE_KEYS:
        counts = Counter(str(e.meta[key]) for e in dataset.episodes if key in e.meta)
        lines += [_counted(key, counts)] if counts else []
    lines += _frames(dataset) + _branches(dataset)
    return "\n".join(lines)


def _counted(key: str, counts: Counter[str]) -> str:
    return f"  episodes by {key}: {', '.join(f'{value} {count}' for value, count in counts.most_common())}"


def _frames(dataset: Dataset) -> list[str]:
    lines = []
    if "driver" in dataset.features:
        names = {int(d): d.name.lower() for d in Driver}
        values, counts = np.unique(dataset.column("driver"), return_counts=True)
        drivers = [f"{names.get(int(v), 'not recorded')} {n}" for v, n in zip(values, counts, strict=True)]
        lines.append(f"  frames by driver: {', '.join(drivers)}")
    if "trust" in dataset.features:
        low, median = np.quantile(dataset.column("trust"), [0.0, 0.5])
        lines.append(f"  trust: lowest {low:.2f}, median {median:.2f}")
    return lines


def _branches(dataset: Dataset) -> list[str]:
    if not any(int(e.meta.get("parent_id", -1)) >= 0 for e in dataset.episodes):
        return []
    paths = branch_paths(dataset)
    whole = [p for p in paths if p.complete]
    shown = sum(p.length for p in whole)
    return [
        f"  branches: {len(paths)} root-to-leaf paths, {len(whole)} without a gap ({shown} frames when each is "
        f"written out; hiwm data paths)"
    ]
