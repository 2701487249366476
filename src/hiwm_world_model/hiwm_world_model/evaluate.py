"""Open-loop evaluation of a world model on held-out episodes: numbers, and the table for its card.

Every window is scored three times: the model's prediction, the last real frame repeated, and (objects only) the real
frame itself, which says how well the probe measures. Object measures count windows in which the object moves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_data.dataset import Dataset
from hiwm_rig.contract import RigFileError, load_rig
from hiwm_rig.probe import ObjectProbe, ObjectView
from hiwm_sim.tasks import make_task, task_names
from tqdm import tqdm

from hiwm_world_model import fidelity
from hiwm_world_model.interface import Images, StepResult, WorldModel
from hiwm_world_model.rollouts import (
    STATE_COLUMN,
    Prediction,
    Window,
    check_dataset,
    held_out,
    open_loop,
    real_images,
    windows_of,
)
from hiwm_world_model.trust import fold_of

HORIZONS = (1, 10, 30, 60)
STRIDE = 12
MAX_WINDOWS = 240
SUCCESS_COLUMN = "next.success"
LABEL_COLUMN = "observation.environment_state"
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Options:
    """What to evaluate.

    Attributes:
        horizons: steps after the last real frame.
        split: which episodes.
        stride: steps between the starts of windows.
        max_windows: at most so many, spread evenly.
        objects: measure the task's object as well.
    """

    horizons: tuple[int, ...] = HORIZONS
    split: str = "val"
    stride: int = STRIDE
    max_windows: int = MAX_WINDOWS
    objects: bool = True


@dataclass
class _Scores:
    """Scores gathered so far; per method and horizon one row for each window."""

    model: dict[int, Rows] = field(default_factory=dict)
    repeat: dict[int, Rows] = field(default_factory=dict)
    floor: dict[int, Rows] = field(default_factory=dict)
    moving: dict[int, int] = field(default_factory=dict)
    trust: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    fold: list[int] = field(default_factory=list)
    success: list[float] = field(default_factory=list)
    done: list[bool] = field(default_factory=list)


class Evaluation:
    """One run over a dataset."""

    def __init__(self, model: WorldModel, dataset: Dataset, options: Options) -> None:
        """Prepare.

        Raises:
            ModelError: if the dataset belongs to another rig or lacks the split.
        """
        check_dataset(model, dataset)
        self._model, self._dataset, self._options = model, dataset, options
        episodes = held_out(dataset, options.split)
        self._folds = fold_of(episodes)
        windows = windows_of(episodes, max(options.horizons), options.stride, least=min(options.horizons))
        self._windows: list[Window] = windows[:: max(1, -(-len(windows) // options.max_windows))]
        self._frames = real_images(dataset, [c.name for c in model.spec.cameras])
        self._joints = np.asarray(dataset.column(STATE_COLUMN), np.float32)
        self._labels = dataset.column(LABEL_COLUMN) if LABEL_COLUMN in dataset.features else None
        self._done = dataset.column(SUCCESS_COLUMN) if SUCCESS_COLUMN in dataset.features else None
        self._probe = probe_of(model) if options.objects else None
        self._views: dict[int, ObjectView | None] = {}
        self._scores = _Scores()

    def run(self) -> dict[str, Any]:
        """Predict, score, summarise; see :func:`markdown` for the table."""
        began = time.monotonic()
        total = sum(min(w.length, max(self._options.horizons)) for w in self._windows)
        with tqdm(total=total, desc="open loop", unit="frame") as bar:
            for prediction in open_loop(self._model, self._dataset, self._windows, max(self._options.horizons)):
                self._visit(prediction)
                bar.update(len(prediction.windows))
        return self._summary(time.monotonic() - began)

    # --- scoring ---------------------------------------------------------------------------------------------------
    def _visit(self, prediction: Prediction) -> None:
        scored = prediction.step in self._options.horizons
        for window, row, pick in zip(prediction.windows, prediction.rows, prediction.picks):
            start = self._windows[int(window)]
            if scored:
                self._score(prediction.step, start, int(row), prediction.result, int(pick))
            elif prediction.step % 5:
                continue
            self._note(prediction.result, int(pick), int(row), self._folds[start.episode])

    def _note(self, result: StepResult, pick: int, row: int, fold: int) -> None:
        s = self._scores
        s.trust.append(float(result.trust[pick]))
        s.error.append(max(fidelity.worst_block(v[pick], self._real(c, row)) for c, v in result.images.items()))
        s.fold.append(fold)
        if self._done is not None:
            s.success.append(float(result.success_probability[pick]))
            s.done.append(bool(self._done[row - 1]))

    def _score(self, step: int, window: Window, row: int, result: StepResult, pick: int) -> None:
        predicted = {c: v[pick] for c, v in result.images.items()}
        last = {c: self._real(c, window.row) for c in predicted}
        model = self._general(predicted, result.joints[pick], row)
        repeat = self._general(last, self._joints[window.row], row)
        if self._probe is not None:
            camera = next(iter(predicted))
            tips = np.asarray(self._probe.tip(np.stack([result.joints[pick], self._joints[window.row]])))
            self._tip(model, predicted[camera], tips[0], row)
            self._tip(repeat, last[camera], tips[1], row)
            self._objects(step, window, row, (model, predicted[camera]), (repeat, last[camera]))
        self._scores.model.setdefault(step, []).append(model)
        self._scores.repeat.setdefault(step, []).append(repeat)

    def _general(self, images: Mapping[str, Images], joints: npt.NDArray[Any], row: int) -> dict[str, float]:
        pairs = [(v, self._real(c, row)) for c, v in images.items()]
        return {
            "mae": float(np.mean([fidelity.mean_absolute_error(a, b) for a, b in pairs])),
            "psnr_db": float(np.mean([fidelity.psnr(a, b) for a, b in pairs])),
            "ssim": float(np.mean([fidelity.ssim(a, b) for a, b in pairs])),
            "worst_block": max(fidelity.worst_block(a, b) for a, b in pairs),
            "joints": float(np.abs(joints - self._joints[row]).max()),
        }

    def _tip(self, scores: dict[str, float], image: Images, tip: npt.NDArray[Any], row: int) -> None:
        assert self._probe is not None
        width, joints = image.shape[1], self._joints[row]
        real = np.asarray(self._probe.tip(joints))
        scores["tip_from_joints"] = float(np.linalg.norm(tip - real)) / width
        scores["tip"] = self._probe.tip_shift(image, self._real(next(iter(self._frames)), row), joints) / width

    def _objects(
        self,
        step: int,
        window: Window,
        row: int,
        model: tuple[dict[str, float], Images],
        repeat: tuple[dict[str, float], Images],
    ) -> None:
        assert self._probe is not None
        image = self._real(next(iter(self._frames)), row)
        width = image.shape[1]
        before, after = self._view(window.row), self._view(row)
        if before is None or after is None or not fidelity.moved(before, after, width):
            return
        self._scores.moving[step] = self._scores.moving.get(step, 0) + 1
        real_mask = self._probe.mask(image)
        for (scores, shown), near in ((model, after), (repeat, before)):
            scores.update(fidelity.object_errors(self._probe.measure(shown, near), after, width))
            scores["iou"] = fidelity.mask_iou(self._probe.mask(shown), real_mask)
        if self._labels is not None:
            floor = fidelity.object_errors(self._probe.measure(image, after), after, width)
            self._scores.floor.setdefault(step, []).append(floor)

    def _view(self, row: int) -> ObjectView | None:
        """The object in a real frame: the evaluation label where there is one, else measured."""
        assert self._probe is not None
        if row not in self._views:
            label = None if self._labels is None else self._probe.label(self._labels[row])
            self._views[row] = label or self._probe.measure(self._real(next(iter(self._frames)), row))
        return self._views[row]

    def _real(self, camera: str, row: int) -> Images:
        return np.asarray(self._frames[camera][row])

    # --- summary ---------------------------------------------------------------------------------------------------
    def _summary(self, seconds: float) -> dict[str, Any]:
        s = self._scores
        horizons = {
            str(h): {
                "windows": len(s.model[h]),
                "moving": s.moving.get(h, 0),
                "model": fidelity.summarise(s.model[h]),
                "repeat_last": fidelity.summarise(s.repeat[h]),
                "floor": fidelity.summarise(s.floor.get(h, [])),
            }
            for h in self._options.horizons
            if h in s.model
        }
        return {
            "model": self._model.identity,
            "data": str(self._dataset.root),
            "split": self._options.split,
            "episodes": len({w.episode for w in self._windows}),
            "windows": len(self._windows),
            "horizons": horizons,
            "trust": self._trust(),
            "success": self._success(),
            "wall_seconds": round(seconds, 1),
        }

    def _trust(self) -> dict[str, float]:
        """AUROC on the episodes the head was not fitted on (where this is the data it was fitted with)."""
        s, head = self._scores, self._model.trust_head
        if head is None:
            return {}
        test = np.array(s.fold) == 1
        right = np.array(s.error)[test] <= head.report.threshold
        trust = np.array(s.trust)[test]
        if not test.any():
            return {}
        return {
            "threshold": head.report.threshold,
            "auroc": fidelity.auroc(trust, right),
            "calibration_error": fidelity.calibration_error(trust, right),
            "right": float(right.mean()),
            "samples": int(test.sum()),
            "auroc_when_fitted": head.report.auroc,
        }

    def _success(self) -> dict[str, float]:
        if not self._scores.done:
            return {}
        done = np.array(self._scores.done)
        probability = np.array(self._scores.success)
        correct = (probability >= 0.5) == done
        return {
            "auroc": fidelity.auroc(probability, done),
            "accuracy": float(correct.mean()),
            "done": float(done.mean()),
            "samples": len(done),
        }


def probe_of(model: WorldModel) -> ObjectProbe | None:
    """The object probe of the model's rig's task; None where the rig or its task is not known here."""
    try:
        rig = load_rig(model.spec.rig)
    except RigFileError:
        return None
    return make_task(rig.task).probe(rig) if rig.task in task_names() else None


_COLUMNS: Sequence[tuple[str, str, float]] = (
    ("mae", "MAE %", 100),
    ("psnr_db", "PSNR dB", 1),
    ("ssim", "SSIM", 1),
    ("joints", "joints max, rad or m", 1),
    ("centroid", "object centroid, % of width", 100),
    ("angle_deg", "object angle, degrees", 1),
    ("iou", "object IoU", 1),
    ("tip", "arm tip, % of width", 100),
)


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table for a model card; each cell is median / mean."""
    shown = [c for c in _COLUMNS if any(c[0] in h["model"] for h in report["horizons"].values())]
    lines = [
        f"Open loop on {report['windows']} windows of {report['episodes']} held-out episodes; median / mean. "
        "Object columns: windows in which the object moves.",
        "",
        "| step | | " + " | ".join(title for _, title, _ in shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for horizon, part in report["horizons"].items():
        for name, title in (("model", "model"), ("repeat_last", "last frame repeated"), ("floor", "real frame")):
            if part[name]:
                cells = [_cell(part[name].get(key), scale) for key, _, scale in shown]
                lines.append(f"| {horizon} ({part['moving']} moving) | {title} | " + " | ".join(cells) + " |")
    if report["trust"]:
        t = report["trust"]
        lines += ["", f"Trust: AUROC {t['auroc']:.3f}, calibration error {t['calibration_error']:.3f} "]
        lines[-1] += f"({t['samples']} predictions, {100 * t['right']:.0f} % right at {t['threshold']:.3f})."
    if report["success"]:
        s = report["success"]
        lines += ["", f"Success probability: AUROC {s['auroc']:.3f}, accuracy {100 * s['accuracy']:.1f} % "]
        lines[-1] += f"({s['samples']} predictions, {100 * s['done']:.1f} % done)."
    return "\n".join(lines) + "\n"


def _cell(value: Mapping[str, float] | None, scale: float) -> str:
    return "" if value is None else f"{scale * value['median']:.3g} / {scale * value['mean']:.3g}"


def evaluate_world(model: WorldModel, data: str | Path, options: Options | None = None) -> dict[str, Any]:
    """Evaluate a model on a dataset.

    Raises:
        ModelError: if the dataset belongs to another rig or lacks the split.
    """
    return Evaluation(model, Dataset(data), options or Options()).run()
