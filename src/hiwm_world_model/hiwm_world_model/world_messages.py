"""Values of the world session as messages of ``hiwm_msgs``. Needs ROS."""

from __future__ import annotations

from dataclasses import dataclass

from hiwm_rig.codecs import ns_to_stamp

from hiwm_msgs.msg import EpisodeEvent, Snapshot, WorldState
from hiwm_world_model.session import Moment
from hiwm_world_model.snapshots import SnapshotInfo


@dataclass(frozen=True)
class EpisodeName:
    """The episode that runs, as the arbiter announced it; empty where none does."""

    episode_id: str = ""
    task: str = ""


def snapshot_message(info: SnapshotInfo) -> Snapshot:
    """A cached step."""
    return Snapshot(
        id=info.id,
        parent_id=info.parent_id,
        branch_id=info.branch_id,
        step=info.step,
        stamp=ns_to_stamp(info.stamp_ns),
        success_probability=info.success_probability,
        trust=info.trust,
    )


def world_state_message(moment: Moment, episode: EpisodeName, model: str, stamp_ns: int, paused: bool) -> WorldState:
    """Where the session stands."""
    message = WorldState(episode_id=episode.episode_id, model=model, paused=paused)
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.step, message.snapshot_id = moment.snapshot.step, moment.snapshot.id
    message.branch_id = moment.branch.id
    message.success_probability = float(moment.result.success_probability[0])
    message.trust = float(moment.result.trust[0])
    return message


def jump_message(kind: int, moment: Moment, episode: EpisodeName, stamp_ns: int) -> EpisodeEvent:
    """A rollback or branch (``EpisodeEvent.ROLLBACK`` or ``BRANCH``) to the moment."""
    message = EpisodeEvent(type=kind, episode_id=episode.episode_id, task=episode.task)
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.branch_id, message.parent_branch_id = moment.branch.id, moment.branch.parent_id
    message.snapshot_id = moment.snapshot.id
    return message
