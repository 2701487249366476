"""The demo on real robot episodes: a small general world model, a recorded leader, branches, a bag, errors."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from hiwm_data.dataset import Dataset
from hiwm_rig.types import Driver

from hiwm_bringup import plots
from hiwm_bringup.demo_push_t import session_branches
from hiwm_bringup.processes import node_environment
from hiwm_bringup.report import (
    HUMAN_COLOUR,
    POLICY_COLOUR,
    Figure,
    Report,
    Section,
    Table,
    frame_border,
    text_table,
    write_report,
    write_video,
)
from hiwm_bringup.session import Session, run_session
from hiwm_bringup.steps import StepError, heading, hiwm, note

STEPS = 4
SESSION_S = 150.0
_VIDEOS = 4


def run_droid(args: argparse.Namespace, out: Path) -> tuple[dict[str, Any], str]:
    """All steps; (results, table for the terminal).

    Raises:
        StepError: the episodes cannot be used.
    """
    heading(1, STEPS, "Real episodes become a small general world model")
    note(f"importing {args.droid}; training on the train split for about {args.train_minutes:g} min")
    prepared = _prepare(args, out)
    heading(2, STEPS, "The virtual robot starts from a real held-out frame; a recorded leader takes over")
    words = ["rig:=world", "rig_file:=droid", f"world:={prepared.model}", "policy:=none"]
    words += ["operator:=playback", f"playback:={prepared.leader}", f"seed:={prepared.start}"]
    session = run_session(words, out / "session", SESSION_S)
    note(session.counts.line())
    heading(3, STEPS, "The bag becomes a data set")
    converted = out / "recorded"
    hiwm(["data", "convert", str(session.bag), "--out", str(converted)], node_environment(os.environ))
    heading(4, STEPS, "Report")
    table = error_table(prepared.evaluation)
    _report(out, prepared.evaluation, session, converted, table, args)
    return _results(prepared.evaluation, session), text_table(table)


def _prepare(args: argparse.Namespace, out: Path) -> Any:
    from hiwm_data.dataset import DatasetError
    from hiwm_world_model.general.prepare import prepare_droid
    from hiwm_world_model.interface import ModelError

    try:
        return prepare_droid(args.droid, out, seed=args.seed, minutes=args.train_minutes)
    except (DatasetError, ModelError) as error:
        raise StepError(str(error)) from error


def _results(evaluation: dict[str, Any], session: Session) -> dict[str, Any]:
    counts = session.counts
    return {
        "task": "droid",
        "rig": "world",
        "methods": {},
        "open_loop": evaluation["horizons"],
        "open_loop_windows": evaluation["windows"],
        "train_seconds": evaluation["train_seconds"],
        "corrections": counts.corrections,
        "rollbacks": counts.rollbacks,
        "branches": counts.branches,
        "operator_seconds": round(counts.operator_seconds, 1),
        "wall_seconds": 0.0,
        "bags": [str(session.bag)],
    }


def error_table(evaluation: dict[str, Any]) -> Table:
    """Open-loop errors on the held-out episodes, beside repeating the last frame."""
    rows = []
    for horizon, row in evaluation["horizons"].items():
        cells = [row[k][m] for k in ("mse", "changed_mae", "joints") for m in ("model", "repeat")]
        rows.append((str(horizon), str(row["windows"]), *map(_three_digits, cells), f"{row['closer']:.0%}"))
    header = (
        "steps",
        "windows",
        "MSE model",
        "MSE repeat",
        "changed-pixel MAE model",
        "repeat",
        "joint error model, rad",
        "repeat",
        "model closer",
    )
    return Table(header, rows)


def camera_table(evaluation: dict[str, Any]) -> Table:
    """The picture error camera by camera: the sum over all hides where the model is worse than a still picture."""
    horizons = evaluation["horizons"]
    cameras = list(next(iter(horizons.values()))["per_camera"])
    rows = [
        (str(h), *(_three_digits(row["per_camera"][c][m]) for c in cameras for m in ("model", "repeat")))
        for h, row in horizons.items()
    ]
    return Table(("steps", *(title for c in cameras for title in (f"MSE {c}: model", "repeat"))), rows)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _report(
    out: Path, evaluation: dict[str, Any], session: Session, converted: Path, table: Table, args: argparse.Namespace
) -> None:
    horizons = [int(h) for h in evaluation["horizons"]]
    curves = {
        name: (horizons, [row["mse"][key] for row in evaluation["horizons"].values()])
        for name, key in (("world model", "model"), ("repeat the last frame", "repeat"))
    }
    plots.curves_plot(curves, ("steps ahead, open loop", "MSE, grey levels squared"), out / "plots" / "open_loop.png")
    data = Dataset(converted)
    plots.tree_plot(session_branches(data), out / "plots" / "tree.png")
    errors = Section(
        "Open-loop error on held-out episodes",
        [
            "Given a real first frame and the recorded targets, the model predicts all cameras and joints. Seven "
            "episodes are few: this shows that the loop works on real data, not that the model is good. There is no "
            "success to measure.",
            f"Training took {evaluation['train_seconds']:.0f} s on the train split; {evaluation['windows']} windows.",
        ],
        table,
        [Figure("plots/open_loop.png", "Errors grow with the horizon; repeating the last frame is the row to beat.")],
    )
    cameras = Section(
        "Camera by camera",
        ["Whether the gain is everywhere, or in one camera only."],
        camera_table(evaluation),
    )
    loop = Section(
        "The session",
        [f"{session.counts.line()}. The leader is a recorded motion of the real operator, played back."],
        plots=[Figure("plots/tree.png", "Branches: the first is the whole motion, the others start in its middle.")],
        videos=_videos(out, data),
    )
    commands = Section("Run it again", code=f"./hiwm demo --droid {args.droid} --seed {args.seed} --out {out}")
    lead = "Real robot episodes become a virtual robot with three cameras and eight joints on ROS 2 topics."
    write_report(Report("Hi-WM on real episodes", lead, [errors, cameras, loop, commands]), out)


def _videos(out: Path, data: Dataset) -> list[Figure]:
    figures = []
    human = data.column("driver") == int(Driver.HUMAN)
    for episode in data.episodes[:_VIDEOS]:
        rows = data.episode_slice(episode.index)
        images = np.concatenate([data.images(c)[rows] for c in data.cameras], axis=1)
        colours = [HUMAN_COLOUR if h else POLICY_COLOUR for h in human[rows]]
        file = f"videos/session/branch_{episode.index}.mp4"
        write_video(frame_border(images, colours), out / file, data.fps)
        figures.append(Figure(file, f"Branch {episode.meta.get('branch_id')}: three cameras, the leader drives (red)."))
    return figures
