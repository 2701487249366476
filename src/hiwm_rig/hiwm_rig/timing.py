"""Bookkeeping of a periodic tick against absolute deadlines. No ROS; the caller supplies the time."""

from __future__ import annotations

from collections import deque

import numpy as np

EARLY = 0.1
"""Fraction of a period by which a timer may fire before its slot and still belong to it."""
LATE = 0.5
"""Fraction of a period after which a tick that has not finished is missed."""


class Deadlines:
    """Counts ticks that were skipped or finished too late.

    Slot ``n`` is due at ``origin + n * period``; a tick is on time when it has finished within half a period of that.
    """

    def __init__(self, period_s: float, now_s: float) -> None:
        self._period = period_s
        self._origin = now_s
        self._slot = 0
        self._began = now_s
        self.ticks = 0
        self.missed = 0
        self._durations: deque[float] = deque(maxlen=600)

    def restart(self, now_s: float) -> None:
        """The next slot is one period from now: after a jump that published a frame itself."""
        self._origin, self._slot = now_s, 0

    def begin(self, now_s: float) -> None:
        """A tick starts."""
        slot = int((now_s - self._origin) / self._period + EARLY)
        self.missed += max(slot - self._slot - 1, 0)
        self._slot = max(slot, self._slot + 1)
        self._began = now_s

    def end(self, now_s: float) -> None:
        """The tick has finished."""
        self.ticks += 1
        self.missed += now_s - (self._origin + self._slot * self._period) > LATE * self._period
        self._durations.append(now_s - self._began)

    def duration_ms(self, percentile: float) -> float:
        """Percentile of the last ticks' durations in ms; NaN before the first."""
        return 1e3 * float(np.percentile(self._durations, percentile)) if self._durations else float("nan")
