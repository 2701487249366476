"""One bag per episode: the recording is cut where episodes begin and end. No ROS."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.types import Outcome
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from hiwm_data.bag_writer import BagWriter, RecordingError, make_folder
from hiwm_data.definitions import find_definition
from hiwm_data.segments import EventType
from hiwm_data.topics import EPISODE_EVENT, TopicSpec

_PRE_ROLL_NS = NS_PER_S
"""Kept from before an episode's begin: the commands and states that are in force in its first frame."""
_POST_ROLL_NS = NS_PER_S // 2
"""Recorded after its end: messages of other topics that were under way."""


class _Kept(NamedTuple):
    topic: str
    data: bytes
    log_ns: int
    publish_ns: int


@dataclass(frozen=True)
class _Mark:
    """What a recorder needs of an ``EpisodeEvent``."""

    type: EventType
    episode_id: str
    task: str
    outcome: Outcome


class EpisodeBags:
    """Writes ``PATH/episode_0000``, ``episode_0001``, ...: each a complete bag from begin to end of one episode.

    What lies between episodes is not recorded. Used by the recorder in the place of a :class:`BagWriter`.

    Args:
        path: folder to make.
        topics: what will be written.
        open_bag: makes the bag of one episode.

    Raises:
        RecordingError: if ``path`` exists or cannot be made, or no topic tells where episodes begin and end.
        DefinitionError: the message package of the project is not installed.
    """

    def __init__(self, path: str | Path, topics: Sequence[TopicSpec], open_bag: Callable[[Path], BagWriter]) -> None:
        self.path = Path(path)
        events = [t.name for t in topics if t.type == EPISODE_EVENT]
        if not events:
            raise RecordingError(f"{path}: no topic of type {EPISODE_EVENT} says where episodes begin and end")
        self._event_topic = events[0]
        self._open_bag = open_bag
        self._store = get_typestore(Stores.ROS2_JAZZY)
        types = get_types_from_msg(find_definition(EPISODE_EVENT).text, EPISODE_EVENT)
        self._store.register({k: v for k, v in types.items() if k not in self._store.fielddefs})
        make_folder(self.path)
        self._bag: BagWriter | None = None
        self._number = 0
        self._begun: _Mark | None = None
        self._close_ns: int | None = None
        self._recent: deque[_Kept] = deque()
        # All keys from the start: another thread reads the counts.
        self._counts: Counter[str] = Counter(dict.fromkeys((t.name for t in topics), 0))

    @property
    def message_count(self) -> int:
        """Messages written so far, over all episodes."""
        return sum(self._counts.values())

    @property
    def episodes(self) -> int:
        """Bags begun so far."""
        return self._number

    def counts(self) -> Mapping[str, int]:
        """Messages written so far, by topic."""
        return dict(self._counts)

    def write(self, topic: str, data: bytes, log_ns: int, publish_ns: int) -> None:
        """Write one message into the bag of the running episode, if there is one.

        Raises:
            RecordingError: the disk does not take it; the bag is closed then, complete up to the last flush.
        """
        if self._close_ns is not None and log_ns > self._close_ns:
            self._end()
        kept = _Kept(topic, data, log_ns, publish_ns)
        mark = self._mark(data) if topic == self._event_topic else None
        if mark is not None:
            self._on_event(mark, log_ns)
        elif self._begun is not None and self._bag is None:
            # Not before there is something to record: a latched begin of an episode that is over makes no bag.
            self._begin(self._begun)
        if self._bag is not None:
            self._put(self._bag, kept)
        self._recent.append(kept)
        while self._recent[0].log_ns < log_ns - _PRE_ROLL_NS:
            self._recent.popleft()

    def flush(self) -> None:
        """Put everything so far on disk.

        Raises:
            RecordingError: as :meth:`write`.
        """
        if self._bag is not None:
            self._bag.flush()

    def close(self) -> None:
        """Finish the bag of the running episode.

        Raises:
            RecordingError: as :meth:`write`.
        """
        self._end()

    def _on_event(self, mark: _Mark, log_ns: int) -> None:
        if mark.type is EventType.BEGIN:
            self._end()
            # Events of the episode before stay with that episode.
            self._recent = deque(k for k in self._recent if k.topic != self._event_topic)
            self._begun = mark
        elif mark.type is EventType.END:
            self._begun = None
            if self._bag is not None:
                self._bag.annotate({"outcome": mark.outcome.name.lower()})
                self._close_ns = log_ns + _POST_ROLL_NS

    def _begin(self, mark: _Mark) -> None:
        self._bag = self._open_bag(self.path / f"episode_{self._number:04d}")
        self._number += 1
        self._bag.annotate({"episode_id": mark.episode_id, "task": mark.task})
        for kept in self._recent:
            self._put(self._bag, kept)

    def _end(self) -> None:
        bag, self._bag = self._bag, None
        self._close_ns = self._begun = None
        if bag is not None:
            bag.close()

    def _put(self, bag: BagWriter, kept: _Kept) -> None:
        bag.write(*kept)
        self._counts[kept.topic] += 1

    def _mark(self, data: bytes) -> _Mark | None:
        """None for an event of a kind that this version does not know: it is recorded and cuts nothing."""
        event: Any = self._store.deserialize_cdr(data, EPISODE_EVENT)
        if event.type not in set(EventType) or event.outcome not in set(Outcome):
            return None
        return _Mark(EventType(event.type), str(event.episode_id), str(event.task), Outcome(event.outcome))
