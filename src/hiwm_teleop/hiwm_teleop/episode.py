"""Which episode and which branch is running, as the arbiter announces them. No ROS."""

from __future__ import annotations

from dataclasses import dataclass, replace


class EpisodeError(RuntimeError):
    """A begin or end that does not fit what is running; the text says what to do."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode and its running branch.

    Attributes:
        episode_id: unique.
        task: name of the task.
        branch_id: the running branch; 0 is the root.
        parent_branch_id: -1 for the root.
        snapshot_id: where the branch started; -1 where the rig has none.
    """

    episode_id: str
    task: str
    branch_id: int = 0
    parent_branch_id: int = -1
    snapshot_id: int = -1


class EpisodeBook:
    """At most one running episode."""

    def __init__(self, default_task: str) -> None:
        """Args: default_task: of episodes that name none."""
        self._default_task = default_task
        self.running: EpisodeRecord | None = None

    def begin(self, episode_id: str, task: str = "") -> EpisodeRecord:
        """Begin an episode.

        Raises:
            EpisodeError: while another one is running.
        """
        if self.running is not None:
            raise EpisodeError(f"episode {self.running.episode_id} is running: end it first")
        self.running = EpisodeRecord(episode_id, task or self._default_task)
        return self.running

    def branched(self, branch_id: int, parent_branch_id: int, snapshot_id: int) -> None:
        """The rig started another branch of the running episode (ignored while none is running)."""
        if self.running is not None:
            self.running = replace(
                self.running, branch_id=branch_id, parent_branch_id=parent_branch_id, snapshot_id=snapshot_id
            )

    def end(self) -> EpisodeRecord:
        """End the running episode.

        Raises:
            EpisodeError: while none is running.
        """
        if self.running is None:
            raise EpisodeError("no episode is running")
        ended, self.running = self.running, None
        return ended
