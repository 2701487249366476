"""From recorded episodes to a virtual robot: train a small general model, measure it, give it real first frames.

This is what ``hiwm demo --droid`` runs before it starts the node graph. Nothing in it knows DROID but the import.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_data.dataset import ACTION, STATE, Dataset, DatasetError
from hiwm_data.droid import import_droid
from hiwm_rig.contract import Rig, load_rig
from hiwm_rig.files import write_json, write_text

from hiwm_world_model.general.card import CARD_FILE, card
from hiwm_world_model.general.open_loop import describe, open_loop_errors
from hiwm_world_model.general.training import train
from hiwm_world_model.interface import ModelError, TrainOptions
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.registry import load_world_model
from hiwm_world_model.rollouts import held_out
from hiwm_world_model.trust import collect_samples, fit

log = logging.getLogger(__name__)

DATASET_DIR, MODEL_DIR = "dataset", "model"
EVALUATION_FILE, LEADER_FILE = "evaluation.json", "leader.json"
HORIZONS = (1, 5, 10, 30)
TRUST_HORIZON = 30


@dataclass(frozen=True)
class LeaderMotion:
    """A recorded motion of the leader arm, to be played back for a takeover.

    Attributes:
        joint_names: in the rig's order.
        rate_hz: rows per second.
        positions: [T, D] recorded joint targets, rad or m (the unit of the rig file), within the rig's limits.
        start: index in the start library of the real frame at which the motion begins; also the reset seed.
        episode: index in the dataset.
    """

    joint_names: tuple[str, ...]
    rate_hz: float
    positions: npt.NDArray[np.float32]
    start: int
    episode: int

    def save(self, path: Path) -> None:
        """Write as JSON; the leader playback of ``hiwm_teleop`` reads the first three keys."""
        values = {
            "joint_names": list(self.joint_names),
            "rate_hz": self.rate_hz,
            "positions": self.positions.astype(float).round(6).tolist(),
            "start": self.start,
            "episode": self.episode,
        }
        write_json(path, values)


@dataclass(frozen=True)
class Preparation:
    """What :func:`prepare_world` made.

    Attributes:
        dataset: the episodes it was made from.
        model: model directory with weights, card and start library: the ``model`` parameter of the world rig node.
        leader: the recorded motion (:class:`LeaderMotion`), in JSON.
        start: the reset seed with which the virtual robot stands where the recorded motion begins.
        evaluation: :func:`open_loop_errors` of the held-out split, and ``train_seconds``.
    """

    dataset: Path
    model: Path
    leader: Path
    start: int
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
    recorded = Dataset(dataset)
    held_out(recorded)  # before anything is written from it: a dataset without the split has nothing to start from
    model = load_world_model(directory, device)
    library = StartLibrary.from_dataset(recorded, tuple(c.name for c in model.spec.cameras), split="val")
    library.save(directory)
    motion = leader_motion(recorded, library, load_rig(rig))
    motion.save(out / LEADER_FILE)
    try:
        model.trust_head = fit(collect_samples(model, recorded, horizon=TRUST_HORIZON))
        model.trust_head.save(directory)
    except ModelError as error:
        log.warning("no trust head: %s", error)
    evaluation = open_loop_errors(model, recorded, HORIZONS)
    evaluation["train_seconds"] = round(seconds, 1)
    write_json(out / EVALUATION_FILE, evaluation)
    write_text(directory / CARD_FILE, card(directory, describe(evaluation)))
    return Preparation(dataset, directory, out / LEADER_FILE, motion.start, evaluation)


def leader_motion(dataset: Dataset, library: StartLibrary, rig: Rig) -> LeaderMotion:
    """The recorded motion of the start that moves most, from its first frame on.

    Raises:
        DatasetError: if the dataset has other joints.
    """
    states, actions = dataset.column(STATE), dataset.column(ACTION)
    if states.shape[1] != len(rig.joints):
        raise DatasetError(f"{dataset.root}: {states.shape[1]} joints, rig '{rig.name}' has {len(rig.joints)}")
    rows = [dataset.episode_slice(int(i)) for i in library.episodes]
    travel = [float(np.abs(np.diff(states[r], axis=0)).sum()) for r in rows]
    best = int(np.argmax(travel))
    lower, upper = (np.array([getattr(j, k) for j in rig.joints], np.float32) for k in ("lower", "upper"))
    positions = np.clip(actions[rows[best]], lower, upper)
    return LeaderMotion(rig.joint_names, dataset.fps, positions, best, int(library.episodes[best]))
