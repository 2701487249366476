"""From recorded episodes to a virtual robot: train a small general model, measure it, give it real first frames.

This is what ``hiwm demo --droid`` runs before it starts the node graph. Nothing in it knows DROID but the import.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_data.dataset import ACTION, STATE, Dataset, DatasetError
from hiwm_data.droid import import_droid
from hiwm_rig.contract import load_rig

from hiwm_world_model.general.open_loop import held_out, make_windows, open_loop
from hiwm_world_model.general.training import train
from hiwm_world_model.interface import ModelError, TrainOptions, WorldModel, write_aside
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.registry import load_world_model

log = logging.getLogger(__name__)

DATASET_DIR, MODEL_DIR = "dataset", "model"
EVALUATION_FILE, LEADER_FILE = "evaluation.json", "leader.json"
HORIZONS = (1, 5, 10, 30)
EVALUATION_WINDOWS = 40


@dataclass(frozen=True)
class LeaderMotion:
    """A recorded motion of the leader arm, to be played back for a takeover.

    Attributes:
        joint_names: in the rig's order.
        period_s: seconds between rows.
        positions: [T, D] recorded joint targets, rad or m (the unit of the rig file).
        measured: [T, D] where the follower was at the same times.
        start: index in the start library of the real frame at which the motion begins; also the reset seed.
        episode: index in the dataset.
    """

    joint_names: tuple[str, ...]
    period_s: float
    positions: npt.NDArray[np.float32]
    measured: npt.NDArray[np.float32]
    start: int
    episode: int

    def save(self, path: Path) -> None:
        """Write as JSON."""
        values = {
            "joint_names": list(self.joint_names),
            "period_s": self.period_s,
            "positions": self.positions.astype(float).round(6).tolist(),
            "measured": self.measured.astype(float).round(6).tolist(),
            "start": self.start,
            "episode": self.episode,
        }
        write_aside(path, (json.dumps(values) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> LeaderMotion:
        """Read what :meth:`save` wrote.

        Raises:
            ModelError: naming the file and what was expected.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = [np.asarray(raw[k], np.float32) for k in ("positions", "measured")]
            names = tuple(str(n) for n in raw["joint_names"])
            motion = cls(names, float(raw["period_s"]), rows[0], rows[1], int(raw["start"]), int(raw["episode"]))
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: not a recorded leader motion ({error})") from error
        if motion.positions.ndim != 2 or motion.positions.shape[1] != len(names):
            raise ModelError(f"{path}: expected positions [T, {len(names)}], got {motion.positions.shape}")
        return motion


@dataclass(frozen=True)
class Preparation:
    """What :func:`prepare_world` made.

    Attributes:
        dataset: the episodes it was made from.
        model: model directory with weights, card and start library: the ``model`` parameter of the world rig node.
        leader: the recorded motion (:class:`LeaderMotion`), in JSON.
        evaluation: open-loop errors on the held-out split by horizon (:func:`open_loop`), and the training's time.
    """

    dataset: Path
    model: Path
    leader: Path
    evaluation: dict[str, Any]


def prepare_droid(
    source: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float | None = None,
    device: str = "cpu",
) -> Preparation:
    """Import DROID episodes (``annotation/`` and ``videos/``) and make a virtual robot of them under ``out``.

    The splits of the source are kept: training reads ``train`` only, starts, motion and errors come from ``val``.
    A second call with the same ``out`` takes up what is there.

    Args:
        source: folder of DROID episodes.
        out: receives ``dataset/``, ``model/``, ``evaluation.json`` and ``leader.json``.
        seed: of the training and of the evaluation windows.
        minutes: training time; default that of the ``droid`` preset.
        device: torch device.

    Raises:
        hiwm_data.DatasetError: if no episode can be used.
    """
    dataset = Path(out) / DATASET_DIR
    if not dataset.is_dir():
        report = import_droid(source, dataset)
        for name, reason in report.skipped.items():
            log.warning("left out %s: %s", name, reason)
    return prepare_world(dataset, "droid", out, seed=seed, minutes=minutes, device=device)


def prepare_world(
    dataset: str | Path,
    rig: str,
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float | None = None,
    device: str = "cpu",
) -> Preparation:
    """Train a general model on a dataset's ``train`` split and measure it on its ``val`` split.

    Args:
        dataset: recorded with the cameras and joints of ``rig``.
        rig: name or file of the rig.
        out: receives ``model/``, ``evaluation.json`` and ``leader.json``.
        seed: of the training and of the evaluation windows.
        minutes: training time; default that of the rig's preset.
        device: torch device.

    Raises:
        hiwm_data.DatasetError: if there is no held-out episode, or the data does not fit the rig.
    """
    out, dataset = Path(out), Path(dataset)
    directory = out / MODEL_DIR
    began = time.monotonic()
    overrides = {} if minutes is None else {"minutes": str(minutes)}
    train(TrainOptions(data=(dataset,), out=directory, rig=rig, seed=seed, device=device, overrides=overrides))
    seconds = time.monotonic() - began
    model, recorded = load_world_model(directory), Dataset(dataset)
    cameras = tuple(c.name for c in model.spec.cameras)
    held_out(recorded)
    library = StartLibrary.from_dataset(recorded, cameras, split="val")
    library.save(directory)
    leader = leader_motion(recorded, library, load_rig(rig).joint_names)
    leader.save(out / LEADER_FILE)
    evaluation = evaluate_open_loop(model, recorded, seed)
    evaluation["train_seconds"] = round(seconds, 1)
    write_aside(out / EVALUATION_FILE, (json.dumps(evaluation, indent=2) + "\n").encode())
    return Preparation(dataset, directory, out / LEADER_FILE, evaluation)


def evaluate_open_loop(model: WorldModel, dataset: Dataset, seed: int = 0) -> dict[str, Any]:
    """Open-loop errors on the held-out split at 1, 5, 10 and 30 periods, beside the repeated last frame."""
    windows = make_windows(held_out(dataset), max(HORIZONS), EVALUATION_WINDOWS, seed)
    return {"windows": len(windows), "seed": seed, "horizons": open_loop(model, dataset, windows, HORIZONS)}


def leader_motion(dataset: Dataset, library: StartLibrary, joint_names: tuple[str, ...]) -> LeaderMotion:
    """The recorded motion of the start that moves most, from its first frame on.

    Raises:
        DatasetError: if the dataset has other joints.
    """
    states, actions = dataset.column(STATE), dataset.column(ACTION)
    if states.shape[1] != len(joint_names):
        raise DatasetError(f"{dataset.root}: {states.shape[1]} joints, the rig has {len(joint_names)}")
    rows = [dataset.episode_slice(int(i)) for i in library.episodes]
    travel = [float(np.abs(np.diff(states[r], axis=0)).sum()) for r in rows]
    best = int(np.argmax(travel))
    chosen = rows[best]
    return LeaderMotion(
        joint_names, 1 / dataset.fps, actions[chosen], states[chosen], best, int(library.episodes[best])
    )


def describe(evaluation: dict[str, Any]) -> str:
    """The open-loop errors as a Markdown table, the model's beside those of the repeated frame."""
    lines = [
        "| periods | windows | MSE model | MSE repeat | changed MAE model | repeat | model closer |",
        "|--" * 7 + "|",
    ]
    for horizon, row in evaluation["horizons"].items():
        mse, changed = row["mse"], row["changed_mae"]
        cells = [horizon, row["windows"], mse["model"], mse["repeat"], changed["model"], changed["repeat"]]
        lines.append("| " + " | ".join(str(c) for c in cells) + f" | {row['closer']:.0%} |")
    return "\n".join(lines)
