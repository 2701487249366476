"""Time alignment of topics: the same code for live topics and for bags. No ROS.

Values are pushed with their true stamps, in any order between topics; :meth:`StreamBuffer.aligned` answers what each
topic showed at one time. Nothing is dropped silently: see ``counters``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Stream:
    stamps: list[int] = field(default_factory=list)
    values: dict[int, Any] = field(default_factory=dict)


class StreamBuffer:
    """Samples of several topics, to be read at a common time.

    Args:
        topics: names of the streams.
        depth: samples kept per topic (the newest); None keeps all, for bags.
        hold: topics that are read as "the last value at or before" (a state that holds until the next message)
            instead of "the value nearest in time".

    Not thread-safe: push and read from one executor thread, or under one lock.
    """

    def __init__(self, topics: Iterable[str], depth: int | None = 64, hold: Iterable[str] = ()) -> None:
        if depth is not None and depth < 1:
            raise ValueError(f"depth must be at least 1 or None, got {depth}")
        self._streams = {topic: _Stream() for topic in topics}
        self._hold = frozenset(hold)
        unknown = self._hold - self._streams.keys()
        if unknown:
            raise KeyError(f"hold names topics that are not buffered: {sorted(unknown)}")
        self._depth = depth
        self.counters: Counter[str] = Counter(pushed=0, out_of_order=0, duplicates=0, dropped=0, unaligned=0)

    def push(self, topic: str, stamp_ns: int, value: Any) -> bool:
        """Add a sample; False where it was dropped because it is older than all that is kept.

        A sample older than the newest is sorted in (counted ``out_of_order``); one with a stamp seen before replaces
        that sample (counted ``duplicates``); the oldest leave when there are more than ``depth`` (not counted: that
        is how a live buffer works).
        """
        stream = self._streams[topic]
        self.counters["pushed"] += 1
        if stamp_ns in stream.values:
            self.counters["duplicates"] += 1
            stream.values[stamp_ns] = value
            return True
        full = self._depth is not None and len(stream.stamps) >= self._depth
        if stream.stamps and stamp_ns < stream.stamps[-1]:
            self.counters["out_of_order"] += 1
            if full and stamp_ns < stream.stamps[0]:
                self.counters["dropped"] += 1
                return False
        insort(stream.stamps, stamp_ns)
        stream.values[stamp_ns] = value
        if full:
            del stream.values[stream.stamps.pop(0)]
        return True

    def aligned(self, stamp_ns: int, tolerance_ns: int) -> dict[str, Any] | None:
        """What every topic showed at ``stamp_ns``, or None (counted ``unaligned``) where one has no sample near enough.

        A topic in ``hold`` has no tolerance: its last value at or before ``stamp_ns`` counts.
        """
        found: dict[str, Any] = {}
        for topic, stream in self._streams.items():
            stamp = _at_or_before(stream, stamp_ns) if topic in self._hold else _nearest(stream, stamp_ns, tolerance_ns)
            if stamp is None:
                self.counters["unaligned"] += 1
                return None
            found[topic] = stream.values[stamp]
        return found

    def at(self, topic: str, stamp_ns: int, tolerance_ns: int = 0) -> Any | None:
        """The value of one topic at a time, or None: for topics that need not be there."""
        stream = self._streams[topic]
        held = topic in self._hold
        stamp = _at_or_before(stream, stamp_ns) if held else _nearest(stream, stamp_ns, tolerance_ns)
        return None if stamp is None else stream.values[stamp]

    def latest(self, tolerance_ns: int) -> tuple[int, dict[str, Any]] | None:
        """The newest time at which all topics are there, with their values; None where there is none.

        Candidates are the stamps of the topic that is furthest behind, so this never waits for a slower one twice.
        """
        followed = [s for t, s in self._streams.items() if t not in self._hold]
        if not followed or not all(s.stamps for s in followed):
            return None
        slowest = min(followed, key=lambda s: s.stamps[-1])
        for stamp in reversed(slowest.stamps):
            if all(_nearest(s, stamp, tolerance_ns) is not None for s in followed):
                values = self.aligned(stamp, tolerance_ns)
                return None if values is None else (stamp, values)
        return None

    def stamps(self, topic: str) -> tuple[int, ...]:
        """Stamps of the samples kept of one topic, ascending."""
        return tuple(self._streams[topic].stamps)

    def sizes(self) -> Mapping[str, int]:
        """Samples kept, by topic."""
        return {topic: len(s.stamps) for topic, s in self._streams.items()}

    def clear(self) -> None:
        """Forget all samples (after a rollback, nothing before it may be mixed with what follows)."""
        for stream in self._streams.values():
            stream.stamps.clear()
            stream.values.clear()


def _at_or_before(stream: _Stream, stamp_ns: int) -> int | None:
    i = bisect_right(stream.stamps, stamp_ns)
    return stream.stamps[i - 1] if i else None


def _nearest(stream: _Stream, stamp_ns: int, tolerance_ns: int) -> int | None:
    i = bisect_left(stream.stamps, stamp_ns)
    candidates = stream.stamps[max(0, i - 1) : i + 1]
    best = min(candidates, key=lambda s: abs(s - stamp_ns), default=None)
    return best if best is not None and abs(best - stamp_ns) <= tolerance_ns else None
