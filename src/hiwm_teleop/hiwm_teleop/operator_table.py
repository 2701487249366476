"""What the scripted operator does and what follows what; and what it may ask for. No ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from hiwm_rig.types import Driver, FloatArray, Outcome

from hiwm_teleop.skill import Glimpse


class Phase(StrEnum):
    """What the operator is doing."""

    IDLE = "idle"
    WATCH = "watch"
    ROLLBACK = "rollback"
    PLAN = "plan"
    TAKEOVER = "takeover"
    CORRECT = "correct"
    HAND_BACK = "hand back"
    BRANCH = "branch"
    END = "end"


class Cue(StrEnum):
    """What makes the operator do something else."""

    BEGUN = "episode begun"
    FAILING = "rollout is failing"
    WENT_BACK = "the rig is at the snapshot"
    REFUSED = "request refused"
    PLANNED = "correction planned"
    NO_PLAN = "no correction found"
    HUMAN_DRIVES = "the leader is followed"
    LOST_CONTROL = "the leader is no longer followed"
    CORRECTED = "correction finished"
    POLICY_DRIVES = "the policy drives"
    BRANCH_OVER = "branch over, another one to try"
    EPISODE_OVER = "nothing left to try"
    ENDED = "episode ended"


TABLE: Mapping[tuple[Phase, Cue], Phase] = MappingProxyType(
    {
        (Phase.IDLE, Cue.BEGUN): Phase.WATCH,
        (Phase.WATCH, Cue.FAILING): Phase.ROLLBACK,
        (Phase.WATCH, Cue.BRANCH_OVER): Phase.BRANCH,
        (Phase.WATCH, Cue.EPISODE_OVER): Phase.END,
        (Phase.ROLLBACK, Cue.WENT_BACK): Phase.PLAN,
        # A rig without snapshots (a real robot) cannot go back: correct from here.
        (Phase.ROLLBACK, Cue.REFUSED): Phase.PLAN,
        (Phase.PLAN, Cue.PLANNED): Phase.TAKEOVER,
        (Phase.PLAN, Cue.NO_PLAN): Phase.HAND_BACK,
        (Phase.TAKEOVER, Cue.HUMAN_DRIVES): Phase.CORRECT,
        (Phase.TAKEOVER, Cue.REFUSED): Phase.HAND_BACK,
        (Phase.CORRECT, Cue.CORRECTED): Phase.HAND_BACK,
        (Phase.CORRECT, Cue.LOST_CONTROL): Phase.HAND_BACK,
        (Phase.HAND_BACK, Cue.POLICY_DRIVES): Phase.WATCH,
        (Phase.HAND_BACK, Cue.REFUSED): Phase.END,
        (Phase.BRANCH, Cue.WENT_BACK): Phase.PLAN,
        (Phase.BRANCH, Cue.REFUSED): Phase.END,
        (Phase.END, Cue.ENDED): Phase.IDLE,
        (Phase.END, Cue.REFUSED): Phase.IDLE,
    }
)


@dataclass(frozen=True)
class GoBack:
    """Ask the rig for an earlier snapshot of the running branch (``/hiwm/rollback``)."""

    snapshot_id: int


@dataclass(frozen=True)
class BranchAt:
    """Ask the rig for a new branch at a snapshot (``/hiwm/branch``)."""

    snapshot_id: int


@dataclass(frozen=True)
class AskControl:
    """Ask the arbiter for a driver (``/hiwm/request_control``)."""

    driver: Driver
    reason: str


@dataclass(frozen=True)
class Think:
    """Work out a correction from what was seen; may take a second, so it is done beside the control loop."""

    glimpse: Glimpse
    joints: FloatArray
    attempt: int
    seed: int


@dataclass(frozen=True)
class EndEpisode:
    """End the episode (``/hiwm/end_episode``)."""

    outcome: Outcome
    note: str


Action = GoBack | BranchAt | AskControl | Think | EndEpisode
