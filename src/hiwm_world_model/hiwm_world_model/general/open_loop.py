"""Open-loop picture error of a world model on held-out episodes, beside that of repeating the last real frame.

Works for every model behind the interface and for any cameras and joints; it looks at recorded images and joints only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_data.dataset import ACTION, STATE, Dataset, DatasetError, Episode

from hiwm_world_model.interface import WorldModel

Images = Mapping[str, npt.NDArray[np.uint8]]
BATCH = 8
CHANGED_LEVELS = 13  # grey levels by which a real pixel must differ from the last seen frame to count as changed


@dataclass(frozen=True)
class Window:
    """A rollout: starts at dataset row ``start``, compared ``horizon`` rows later at most."""

    episode: int
    start: int
    horizon: int


def held_out(dataset: Dataset, split: str = "val") -> list[Episode]:
    """Episodes of the split.

    Raises:
        DatasetError: if it has none.
    """
    chosen = [e for e in dataset.episodes if e.meta.get("split") == split]
    if not chosen:
        raise DatasetError(f"{dataset.root}: no episode of split '{split}' to evaluate on")
    return chosen


def make_windows(episodes: Sequence[Episode], horizon: int, count: int, seed: int) -> list[Window]:
    """At most ``count`` starts spread over the episodes; an episode that is too short gives a shorter window."""
    rng = np.random.default_rng(seed)
    windows = []
    per_episode = max(1, count // len(episodes))
    for episode in episodes:
        reach = min(horizon, episode.length - 2)
        if reach < 1:
            continue
        last = episode.length - 1 - reach
        starts = np.unique(np.linspace(1, max(1, last), per_episode).round().astype(int))
        windows += [Window(episode.index, episode.start + int(s), reach) for s in starts]
    order = rng.permutation(len(windows))[:count]
    return [windows[i] for i in sorted(order)]


def open_loop(
    model: WorldModel, dataset: Dataset, windows: Sequence[Window], horizons: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Errors after each horizon: the model's, those of the repeated frame, and how often the model is the closer one.

    Returns:
        horizon -> ``windows``; per metric ``mae`` and ``mse`` (grey levels, whole frames), ``changed_mae`` (only pixels
        that really changed) and ``joints`` (mean absolute rad or m) ``{"model", "repeat"}``; ``closer``, the share of
        windows in which the model's MSE is the lower one; ``per_camera`` the MSE pair of each camera.
    """
    cameras = [c.name for c in model.spec.cameras]
    images = {c: dataset.images(c) for c in cameras}
    rows: dict[int, list[dict[str, Any]]] = {h: [] for h in horizons}
    for first in range(0, len(windows), BATCH):
        part = windows[first : first + BATCH]
        _roll(model, dataset, images, part, rows)
    return {str(h): _summary(r, cameras) for h, r in rows.items() if r}


def _roll(
    model: WorldModel, dataset: Dataset, images: Images, part: Sequence[Window], rows: dict[int, list[dict[str, Any]]]
) -> None:
    starts = np.array([w.start for w in part])
    joints, actions = dataset.column(STATE), dataset.column(ACTION)
    context = starts[:, None] + np.arange(-1, 1)
    state = model.encode({c: np.asarray(v[context]) for c, v in images.items()}, joints[context])
    for k in range(1, max(rows) + 1):
        reach = np.array([w.horizon for w in part])
        now = np.minimum(starts + k, starts + reach)
        result = model.step(state, actions[now - 1])
        state = result.state
        if k not in rows:
            continue
        for i in np.flatnonzero(reach >= k):
            real = {c: v[now[i]].astype(np.int16) for c, v in images.items()}
            shown = {c: result.images[c][i].astype(np.int16) for c in images}
            last = {c: v[starts[i]].astype(np.int16) for c, v in images.items()}
            pair = {"model": _errors(shown, real, last), "repeat": _errors(last, real, last)}
            pair["model"]["joints"] = float(np.abs(result.joints[i] - joints[now[i]]).mean())
            pair["repeat"]["joints"] = float(np.abs(joints[starts[i]] - joints[now[i]]).mean())
            rows[k].append(pair)


def _errors(
    shown: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray], last: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    differences = {c: np.abs(shown[c] - real[c]).astype(np.float64) for c in real}
    changed = [differences[c][np.abs(real[c] - last[c]).max(-1) > CHANGED_LEVELS] for c in real]
    moved = np.concatenate([c.reshape(-1) for c in changed])
    return {
        "mae": float(np.mean([d.mean() for d in differences.values()])),
        "mse": float(np.mean([np.square(d).mean() for d in differences.values()])),
        "changed_mae": float(moved.mean()) if moved.size else float("nan"),
        "cameras": {c: float(np.square(d).mean()) for c, d in differences.items()},
    }


def _summary(rows: Sequence[Mapping[str, Any]], cameras: Sequence[str]) -> dict[str, Any]:
    def mean(who: str, key: str) -> float:
        values = np.array([r[who][key] for r in rows], float)
        return round(float(np.nanmean(values)), 4) if np.isfinite(values).any() else float("nan")

    summary: dict[str, Any] = {"windows": len(rows)}
    for key in ("mae", "mse", "changed_mae", "joints"):
        summary[key] = {who: mean(who, key) for who in ("model", "repeat")}
    closer = [r["model"]["mse"] < r["repeat"]["mse"] for r in rows]
    summary["closer"] = round(float(np.mean(closer)), 3)
    summary["per_camera"] = {
        c: {who: round(float(np.mean([r[who]["cameras"][c] for r in rows])), 3) for who in ("model", "repeat")}
        for c in cameras
    }
    return summary
