"""Collecting corrections inside a world model, without nodes: failing rollouts in, a dataset of corrections out.

Lock-step of the cores that the nodes run (:mod:`hiwm_teleop.lockstep`). What is kept is decided by what the operator
sees, never by the state of a simulator: a correction is kept if the task looks nearer to done after it, or if its
branch ended done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from hiwm_data.dataset import DatasetWriter
from hiwm_data.features import ACTION, IMAGE_PREFIX, STATE, SUCCESS, rig_features
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, Outcome

from hiwm_teleop.lockstep import BranchRecord, LockStep, Proposer, Rewindable
from hiwm_teleop.operator import OperatorSettings, ScriptedOperator
from hiwm_teleop.skill import Skill, make_skill

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CollectSettings:
    """What to collect.

    Attributes:
        corrections: stop after so many kept ones.
        max_rollouts: stop after so many episodes.
        seed: of the first episode's start; the next ones count on.
        min_gain: a correction is kept if the distance the operator sees shrank by this (unit of the skill).
        settle_frames: frames after a correction that count for its gain.
        low_trust: a correction whose mean trust is below this is marked ``low_trust``.
        operator: how the operator works.
    """

    corrections: int = 60
    max_rollouts: int = 200
    seed: int = 0
    min_gain: float = 0.003
    settle_frames: int = 5
    low_trust: float = 0.2
    operator: OperatorSettings = field(default_factory=OperatorSettings)


@dataclass
class CollectReport:
    """What was collected; plain numbers for JSON.

    Attributes:
        rollouts: episodes run.
        solved_alone: episodes that the policy finished without help.
        takeovers: corrections made, kept or not.
        corrections: kept.
        low_trust: of the kept, marked.
        solved_after: kept corrections whose branch ended with the task done.
        rollbacks, branches: requests granted.
        operator_seconds: time in which the operator drove, all takeovers.
        wall_seconds: of the whole collection.
    """

    rollouts: int = 0
    solved_alone: int = 0
    takeovers: int = 0
    corrections: int = 0
    low_trust: int = 0
    solved_after: int = 0
    rollbacks: int = 0
    branches: int = 0
    operator_seconds: float = 0.0
    wall_seconds: float = 0.0


class Collector:
    """Runs rollouts and writes the corrections worth keeping."""

    def __init__(
        self, rig: Rig, world: Rewindable, policy: Proposer, settings: CollectSettings, skill: Skill | None = None
    ) -> None:
        """Args: rig: the contract; world: what is driven; policy: that fails; settings; skill: by the task's name."""
        self._rig = rig
        self._settings = settings
        self.operator = ScriptedOperator(skill or make_skill(rig.task, rig), settings.operator, settings.seed)
        self._loop = LockStep(rig, world, policy, self.operator)
        self.report = CollectReport()

    def run(self, writer: DatasetWriter, progress: Progress | None = None) -> CollectReport:
        """Collect until there are enough corrections or rollouts; each kept branch becomes one episode."""
        began = time.monotonic()
        while self.report.corrections < self._settings.corrections:
            if self.report.rollouts >= self._settings.max_rollouts:
                break
            self._rollout(writer, self._settings.seed + self.report.rollouts)
            self.report.wall_seconds = round(time.monotonic() - began, 3)
            if progress is not None:
                progress(self.report.corrections, self._settings.corrections)
        return self.report

    def _rollout(self, writer: DatasetWriter, seed: int) -> None:
        report = self.report
        branches, outcome = self._loop.run(seed)
        report.rollouts += 1
        report.solved_alone += outcome is Outcome.SUCCESS and len(branches) == 1
        log = self.operator.log
        report.takeovers, report.rollbacks, report.branches = (log.count(k) for k in ("takeover", "rollback", "branch"))
        report.operator_seconds = round(log.seconds(), 3)
        for branch in branches:
            if report.corrections >= self._settings.corrections or not self._worth_keeping(branch):
                continue
            low = mean_trust(branch) < self._settings.low_trust
            meta: dict[str, int | str | bool] = {
                "source": "correction",
                "split": "train",
                "seed": seed,
                "outcome": "success" if branch.solved else "unfinished",
                "branch_id": branch.branch_id,
                "operator_frames": sum(r.driver is Driver.HUMAN for r in branch.rows),
                "low_trust": bool(low),
                "operator": "scripted",
            }
            writer.add_episode(branch_columns(branch), task=self._rig.task, meta=meta)
            report.corrections += 1
            report.low_trust += bool(low)
            report.solved_after += branch.solved

    def _worth_keeping(self, branch: BranchRecord) -> bool:
        return branch.corrected and (
            branch.solved or gain(branch, self._settings.settle_frames) >= self._settings.min_gain
        )


def gain(branch: BranchRecord, settle_frames: int) -> float:
    """How much nearer to done the task looked after the correction of a branch than before it; NaN if unseen."""
    human = [i for i, r in enumerate(branch.rows) if r.driver is Driver.HUMAN]
    seen = [np.nan if r.glimpse is None else r.glimpse.distance for r in branch.rows]
    before = [d for d in seen[human[0] : human[0] + settle_frames] if np.isfinite(d)]
    after = [d for d in seen[human[-1] : human[-1] + settle_frames] if np.isfinite(d)]
    return float(before[0] - after[-1]) if before and after else float("nan")


def mean_trust(branch: BranchRecord) -> float:
    """Mean trust of the frames the operator drove; 1 where the model has no trust."""
    values = np.array([r.place.trust for r in branch.rows if r.driver is Driver.HUMAN])
    return float(np.nanmean(values)) if np.isfinite(values).any() else 1.0


def branch_columns(branch: BranchRecord) -> dict[str, np.ndarray]:
    """A branch as the columns of a dataset episode. Without a proposal ``policy_action`` holds the action itself."""
    rows = branch.rows
    proposed = [r.proposal is not None for r in rows]
    solved = np.array([branch.solved and r.glimpse is not None and r.glimpse.solved for r in rows])
    columns = {f"{IMAGE_PREFIX}{name}": np.stack([r.image[name] for r in rows]) for name in rows[0].image}
    columns |= {
        STATE: np.stack([r.joints for r in rows]).astype(np.float32),
        ACTION: np.stack([r.action for r in rows]).astype(np.float32),
        SUCCESS: solved,
        "driver": np.array([int(r.driver) for r in rows]),
        "intervention": np.array([r.driver is Driver.HUMAN for r in rows]),
        "policy_action": np.stack([r.action if r.proposal is None else r.proposal for r in rows]).astype(np.float32),
        "policy_proposed": np.array(proposed),
        "branch_id": np.array([r.place.branch_id for r in rows]),
        "parent_id": np.array([r.place.parent_branch_id for r in rows]),
        "trust": np.nan_to_num(np.array([r.place.trust for r in rows], np.float32), nan=1.0),
        "stamp_ns": np.array([r.stamp_ns for r in rows]),
    }
    return columns


def collect_corrections(
    rig: Rig,
    world: Rewindable,
    policy: Proposer,
    out: str | Path,
    settings: CollectSettings | None = None,
    *,
    skill: Skill | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CollectReport:
    """Let ``policy`` fail in ``world``, let the scripted operator correct it, and write what helped as a dataset.

    Args:
        rig: the contract.
        world: a rig that can go back (:class:`hiwm_teleop.adapters.WorldRewindable`).
        policy: see :class:`hiwm_teleop.adapters.RunnerProposer`.
        out: directory of the dataset; ``OUT.operator.json`` beside it says what the operator did.
        settings: see :class:`CollectSettings`.
        skill: what the operator knows; None: the one registered for the rig's task.
        overwrite: replace a dataset that is there.
        progress: called with (kept, wanted) after each rollout.

    Returns:
        What was collected.

    Raises:
        DatasetError: if ``out`` cannot be written, or no correction was worth keeping.
        KeyError: if there is no operator skill for the rig's task.
    """
    settings = settings or CollectSettings()
    collector = Collector(rig, world, policy, settings, skill)
    features = rig_features(rig, provenance=True)
    with DatasetWriter(
        out, fps=rig.control_rate_hz, features=features, robot_type=rig.name, overwrite=overwrite
    ) as writer:
        report = collector.run(writer, progress)
    target = Path(out)
    collector.operator.log.write(
        target.with_name(target.name + ".operator.json"), collected=asdict(report), seed=settings.seed
    )
    return report
