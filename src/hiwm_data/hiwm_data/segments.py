"""From a recording's frames and events to branch segments: runs of consecutive frames of one branch. No ROS, no files.

A segment is what one branch shows from where it starts (the restored state is its first frame) to where it is left.
Every recorded control step is in exactly one segment; the path from the root to a leaf is found by ``parent_id`` and
``snapshot_id``. Frames that a paused rig shows again are one frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from hiwm_rig.types import Outcome

from hiwm_data.align import AlignedFrame, Event

_GAP_PERIODS = 1.5


class EventType(IntEnum):
    """Values of ``EpisodeEvent.type``."""

    BEGIN = 0
    END = 1
    ROLLBACK = 2
    BRANCH = 3


@dataclass
class Segment:
    """Consecutive frames of one branch of one episode.

    Attributes:
        episode_id: of the recording; empty where it announces no episodes.
        task: as announced.
        branch_id: of the frames.
        parent_id: branch that made the snapshot it starts from, -1 for a root. (In recordings made before November 2026
            the event names the branch that was left instead; the frames know better.)
        snapshot_id: snapshot it started from, -1 where the rig has none.
        jump_ns: stamp of the jump that started it; commands before that are forgotten. 0 for a root.
        end_ns: stamp of the event that ended it (None: the recording or a gap did); commands after that are not its.
        outcome: how the branch ended.
        part: number of the piece, where frames are missing in between.
        frames: in order.
    """

    episode_id: str
    task: str
    branch_id: int
    parent_id: int = -1
    snapshot_id: int = -1
    jump_ns: int = 0
    end_ns: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    part: int = 0
    frames: list[AlignedFrame] = field(default_factory=list)


@dataclass
class _Running:
    """The episode and branch that events have announced."""

    episode_id: str
    task: str
    jump: Event | None = None
    opened: list[Segment] = field(default_factory=list)


class Segmenter:
    """Cuts a recording into segments.

    Args:
        events: in order of their stamps; none means that the whole recording is one episode.
        period_ns: control period.
        task: of episodes that announce none.
    """

    def __init__(self, events: Sequence[Event], period_ns: int, task: str) -> None:
        self._events = list(events)
        self._period_ns = period_ns
        self._gap_ns = round(_GAP_PERIODS * period_ns)
        self._task = task
        self.counters: Counter[str] = Counter()
        self.segments: list[Segment] = []
        self._running = _Running("", task) if not self._announced() else None

    def _announced(self) -> bool:
        return any(e.type == EventType.BEGIN for e in self._events)

    def run(self, frames: Sequence[AlignedFrame]) -> list[Segment]:
        """The segments, without those whose outcome says to discard them (counted ``discarded_segments``)."""
        pending = list(self._events)
        for frame in frames:
            while pending and pending[0].stamp_ns <= frame.stamp_ns:
                self._handle(pending.pop(0))
            if self._running is None:
                self.counters["outside_episodes"] += 1
            else:
                self._add(self._running, frame)
        for event in pending:
            self._handle(event)
        kept = [s for s in self.segments if s.outcome is not Outcome.DISCARD]
        self.counters["discarded_segments"] += len(self.segments) - len(kept)
        return kept

    def _handle(self, event: Event) -> None:
        if event.type == EventType.BEGIN:
            self._running = _Running(event.episode_id, event.task or self._task)
            return
        if self._running is None:
            return
        if self._running.opened:
            self._running.opened[-1].end_ns = event.stamp_ns
        if event.type == EventType.END:
            self._close(self._running, Outcome(event.outcome), whole_episode=event.outcome == Outcome.DISCARD)
            self._running = None
        else:
            self._close(self._running, Outcome(event.outcome), whole_episode=False)
            self._running.jump = event

    def _close(self, running: _Running, outcome: Outcome, whole_episode: bool) -> None:
        """Label the branch that ends; an episode to be discarded takes all of its branches with it."""
        if not running.opened:
            return
        branch = running.opened[-1].branch_id
        for segment in running.opened:
            if whole_episode or segment.branch_id == branch:
                segment.outcome = outcome

    def _add(self, running: _Running, frame: AlignedFrame) -> None:
        last = running.opened[-1] if running.opened else None
        branch = self._branch(running, last, frame)
        if last is None or last.branch_id != branch or self._jumped(running, last):
            self._open(running, branch, frame, part=0)
        elif self._repeats(last.frames[-1], frame):
            # A paused rig shows its state again: the last showing is the one the next step starts from.
            last.frames[-1] = frame
            self.counters["repeated_frames"] += 1
            return
        elif self._gap(last.frames[-1], frame):
            self.counters["gaps"] += 1
            self.counters["lost_frames"] += self._lost(last.frames[-1], frame)
            self._open(running, branch, frame, part=last.part + 1)
        running.opened[-1].frames.append(frame)

    def _open(self, running: _Running, branch: int, frame: AlignedFrame, part: int) -> None:
        segment = Segment(running.episode_id, running.task, branch, part=part)
        jump = running.jump
        if part:
            before = running.opened[-1]
            segment.parent_id, segment.snapshot_id = before.parent_id, before.snapshot_id
            segment.jump_ns = before.jump_ns
        elif jump is not None and (frame.world is None or jump.branch_id == branch):
            segment.parent_id, segment.snapshot_id = self._origin(running, jump), jump.snapshot_id
            segment.jump_ns = jump.stamp_ns
        running.opened.append(segment)
        self.segments.append(segment)

    @staticmethod
    def _origin(running: _Running, jump: Event) -> int:
        """The first branch that showed the snapshot; where none did (a lost frame), what the event says."""
        for segment in running.opened:
            if any(f.world is not None and f.world.snapshot_id == jump.snapshot_id for f in segment.frames):
                return segment.branch_id
        return jump.parent_id

    def _branch(self, running: _Running, last: Segment | None, frame: AlignedFrame) -> int:
        if frame.world is not None:
            return frame.world.branch_id
        if last is not None and not self._jumped(running, last):
            return last.branch_id
        return 0 if running.jump is None else running.jump.branch_id

    @staticmethod
    def _jumped(running: _Running, last: Segment) -> bool:
        """Whether an announced jump lies between the last segment and now, even to a branch of the same number."""
        jump = running.jump
        return jump is not None and jump.stamp_ns > last.frames[-1].stamp_ns

    @staticmethod
    def _repeats(before: AlignedFrame, frame: AlignedFrame) -> bool:
        return before.world is not None and frame.world is not None and before.world.step == frame.world.step

    def _gap(self, before: AlignedFrame, frame: AlignedFrame) -> bool:
        if before.world is not None and frame.world is not None:
            return frame.world.step != before.world.step + 1
        return frame.stamp_ns - before.stamp_ns > self._gap_ns

    def _lost(self, before: AlignedFrame, frame: AlignedFrame) -> int:
        if before.world is not None and frame.world is not None:
            return max(0, frame.world.step - before.world.step - 1)
        return max(0, round((frame.stamp_ns - before.stamp_ns) / self._period_ns) - 1)
