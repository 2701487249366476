"""Episodes of a dataset as a page: frames of all cameras, states, actions, who drove, trust (``hiwm data view``)."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_rig.types import Driver
from tqdm import tqdm

from hiwm_data import layout
from hiwm_data.dataset_info import describe_dataset
from hiwm_data.features import ACTION, IMAGE_PREFIX, STATE, DatasetError
from hiwm_data.reader import Dataset, Episode

_DEFAULT_EPISODES = 8
_SHOWN_FRAMES = 8
_COLOURS = {Driver.POLICY: "#2f6fb5", Driver.ALIGNING: "#b58900", Driver.HUMAN: "#c0392b", Driver.PAUSED: "#888888"}
_STYLE = "body{font-family:sans-serif;max-width:70em;margin:2em auto}pre{background:#f4f4f4;padding:1em;overflow:auto}"


def view_dataset(root: str | Path, out: str | Path, episodes: Sequence[int] | None = None) -> Path:
    """Write ``index.html`` and one picture per episode into a new folder; returns the page.

    Args:
        root: the dataset.
        out: folder to make.
        episodes: indices; default the first eight.

    Raises:
        DatasetError: if ``out`` exists, or an episode does not.
    """
    dataset = Dataset(root)
    chosen = list(range(min(_DEFAULT_EPISODES, dataset.num_episodes)) if episodes is None else episodes)
    outside = [i for i in chosen if not 0 <= i < dataset.num_episodes]
    if outside:
        raise DatasetError(f"{root}: no episode {outside}; it has {dataset.num_episodes}, counted from 0")
    folder = Path(out)
    partial = layout.prepare_partial(folder, overwrite=False)
    try:
        sections = []
        for index in tqdm(chosen, desc="drawing", unit="episode"):
            episode = dataset.episodes[index]
            picture = f"episode_{index:04d}.png"
            draw_episode(dataset, episode, partial / picture)
            sections.append(_section(episode, picture))
        page = f"<!doctype html><meta charset='utf-8'><title>{html.escape(str(root))}</title><style>{_STYLE}</style>"
        page += f"<h1>{html.escape(dataset.root.name)}</h1><pre>{html.escape(describe_dataset(root))}</pre>"
        (partial / "index.html").write_text(page + "".join(sections), encoding="utf-8")
        layout.commit_partial(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder / "index.html"


def _section(episode: Episode, picture: str) -> str:
    facts = ", ".join(f"{k} {v}" for k, v in episode.meta.items() if k != "checkpoints")
    title = f"Episode {episode.index}: {episode.task or '(no instruction)'}"
    return f"<h2>{html.escape(title)}</h2><p>{html.escape(facts)}</p><img src='{picture}' style='width:100%'>"


def draw_episode(dataset: Dataset, episode: Episode, path: Path) -> None:
    """One picture: frames of each camera; state and action of each joint over colours of who drove; trust."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows, seconds = episode.frames, np.arange(episode.length) / dataset.fps
    joints = dataset.features[STATE].names or tuple(map(str, range(dataset.features[STATE].shape[0])))
    has_trust = "trust" in dataset.features
    panels = len(joints) + has_trust
    heights = [1.6] * len(dataset.cameras) + [0.9] * panels
    figure, axes = plt.subplots(len(heights), 1, figsize=(11, sum(heights) + 0.6), height_ratios=heights, squeeze=False)
    for camera, axis in zip(dataset.cameras, axes[:, 0], strict=False):
        _strip(axis, dataset, camera, rows, seconds)
    plots = axes[len(dataset.cameras) :, 0]
    for i, name in enumerate(joints):
        plots[i].plot(seconds, dataset.column(STATE)[rows][:, i], color="0.5", lw=1, label="state")
        if ACTION in dataset.features and i < dataset.features[ACTION].shape[0]:
            plots[i].plot(seconds, dataset.column(ACTION)[rows][:, i], color="black", lw=1, label="action")
        plots[i].set_ylabel(name, fontsize=7, rotation=0, ha="right")
    if has_trust:
        plots[-1].plot(seconds, dataset.column("trust")[rows], color="#2e8b57", lw=1)
        plots[-1].set(ylim=(0, 1.05))
        plots[-1].set_ylabel("trust", fontsize=7, rotation=0, ha="right")
    for axis in plots:
        axis.tick_params(labelsize=6)
        axis.set_xlim(0, max(seconds[-1], 1 / dataset.fps))
        axis.spines[["top", "right"]].set_visible(False)
        _shade(axis, dataset, rows, seconds)
    plots[0].legend(fontsize=6, loc="upper right")
    plots[-1].set_xlabel(_caption(dataset), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _strip(axis: Any, dataset: Dataset, camera: str, rows: slice, seconds: np.ndarray) -> None:
    picks = np.unique(np.linspace(0, len(seconds) - 1, _SHOWN_FRAMES).round().astype(int))
    frames = dataset.images(IMAGE_PREFIX + camera)[rows.start + picks]
    axis.imshow(np.concatenate(list(frames), axis=1), aspect="equal")
    axis.set_title(f"{camera}: {', '.join(f'{seconds[p]:.1f}' for p in picks)} s", fontsize=7)
    axis.set_axis_off()


def _shade(axis: Any, dataset: Dataset, rows: slice, seconds: np.ndarray) -> None:
    if "driver" not in dataset.features:
        return
    driver = dataset.column("driver")[rows]
    for value, colour in _COLOURS.items():
        where = driver == int(value)
        if where.any():
            across = axis.get_xaxis_transform()
            axis.fill_between(seconds, 0, 1, where=where, step="post", transform=across, color=colour, alpha=0.12, lw=0)


def _caption(dataset: Dataset) -> str:
    if "driver" not in dataset.features:
        return "seconds"
    return "seconds; blue: the policy drives, red: a person, yellow: aligning, grey: paused"
