"""Open-loop picture error on held-out episodes, per pixel and beside repeating the last real frame.

Knows no task and looks at recorded images and joints only; measures of a task's object are in
:mod:`hiwm_world_model.evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hiwm_data.dataset import STATE, CameraFrames, Dataset

from hiwm_world_model.interface import Images, WorldModel
from hiwm_world_model.rollouts import held_out, open_loop, real_images, windows_of

CHANGED_LEVELS = 13  # grey levels by which a real pixel must differ from the last seen frame to count as changed
STRIDE, MAX_WINDOWS = 6, 40
Row = dict[str, Any]


def open_loop_errors(
    model: WorldModel, dataset: Dataset, horizons: Sequence[int], max_windows: int = MAX_WINDOWS
) -> dict[str, Any]:
    """Errors after each horizon: the model's, those of the repeated frame, and how often the model is the closer one.

    Returns:
        ``windows`` and ``horizons``: per horizon ``windows``; ``mae`` and ``mse`` (grey levels, whole frames),
        ``changed_mae`` (only pixels that really changed) and ``joints`` (mean absolute rad or m), each
        ``{"model", "repeat"}``; ``closer``, the share of windows in which the model's MSE is the lower one;
        ``per_camera``, the MSE pair of each camera.

    Raises:
        ModelError: if the dataset has no held-out episodes.
    """
    windows = windows_of(held_out(dataset), max(horizons), STRIDE, first=1, least=min(horizons))
    windows = windows[:: max(1, -(-len(windows) // max_windows))]
    frames = real_images(dataset, [c.name for c in model.spec.cameras])
    joints = dataset.column(STATE)
    rows: dict[int, list[Row]] = {h: [] for h in horizons}
    for prediction in open_loop(model, dataset, windows, max(horizons), batch=8):
        if prediction.step not in rows:
            continue
        for index, row, pick in zip(prediction.windows, prediction.rows, prediction.picks):
            shown = {c: v[pick] for c, v in prediction.result.images.items()}
            last = windows[int(index)].row
            guess = np.asarray(prediction.result.joints[pick])
            rows[prediction.step].append(_compare(shown, guess, frames, joints, last, int(row)))
    return {"windows": len(windows), "horizons": {str(h): _summary(r, list(frames)) for h, r in rows.items() if r}}


def _compare(
    shown: Mapping[str, Images],
    guess: np.ndarray,
    frames: Mapping[str, CameraFrames],
    joints: np.ndarray,
    last: int,
    now: int,
) -> Row:
    """Errors of the model and of the repeated frame for one window."""
    real = {c: v[now].astype(np.int16) for c, v in frames.items()}
    seen = {c: v[last].astype(np.int16) for c, v in frames.items()}
    pair = {
        "model": _errors({c: v.astype(np.int16) for c, v in shown.items()}, real, seen),
        "repeat": _errors(seen, real, seen),
    }
    pair["model"]["joints"] = float(np.abs(guess - joints[now]).mean())
    pair["repeat"]["joints"] = float(np.abs(joints[last] - joints[now]).mean())
    return pair


def _errors(shown: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray], last: Mapping[str, np.ndarray]) -> Row:
    differences = {c: np.abs(shown[c] - real[c]).astype(np.float64) for c in real}
    changed = [differences[c][np.abs(real[c] - last[c]).max(-1) > CHANGED_LEVELS].reshape(-1) for c in real]
    moved = np.concatenate(changed)
    return {
        "mae": float(np.mean([d.mean() for d in differences.values()])),
        "mse": float(np.mean([np.square(d).mean() for d in differences.values()])),
        "changed_mae": float(moved.mean()) if moved.size else float("nan"),
        "cameras": {c: float(np.square(d).mean()) for c, d in differences.items()},
    }


def _summary(rows: Sequence[Row], cameras: Sequence[str]) -> dict[str, Any]:
    def mean(who: str, key: str) -> float:
        values = np.array([r[who][key] for r in rows], float)
        values = values[np.isfinite(values)]
        return round(float(values.mean()), 4) if values.size else 0.0

    summary: dict[str, Any] = {"windows": len(rows)}
    for key in ("mae", "mse", "changed_mae", "joints"):
        summary[key] = {who: mean(who, key) for who in ("model", "repeat")}
    closer = [r["model"]["mse"] < r["repeat"]["mse"] for r in rows]
    summary["closer"] = round(float(np.mean(closer)), 3)
    summary["per_camera"] = {
        c: {who: round(float(np.mean([r[who]["cameras"][c] for r in rows])), 2) for who in ("model", "repeat")}
        for c in cameras
    }
    return summary


def describe(evaluation: Mapping[str, Any]) -> str:
    """The errors as a Markdown table."""
    lines = [
        f"Open loop on {evaluation['windows']} windows of held-out episodes; grey levels, means.",
        "",
        "| steps | windows | MSE model | MSE repeat | changed pixels, MAE model | repeat | model closer |",
        "|" + "---|" * 7,
    ]
    for horizon, row in evaluation["horizons"].items():
        cells = [row[k][who] for k in ("mse", "changed_mae") for who in ("model", "repeat")]
        numbers = " | ".join(f"{c:.3g}" for c in cells)
        lines.append(f"| {horizon} | {row['windows']} | {numbers} | {row['closer']:.0%} |")
    return "\n".join(lines) + "\n"
