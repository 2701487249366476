"""Judgements about the stamps of a topic that images and joint states share. No checks of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.conformance.evidence import jitter_s, mean_rate
from hiwm_rig.conformance.registry import Finding
from hiwm_rig.conformance.session import Session
from hiwm_rig.conformance.settings import Settings

_MIN_STEPS = 3
_AHEAD_S = 0.02
"""How far a stamp may lie in the future: clocks of two machines under NTP or PTP."""


def rate(topic: str, stamps_ns: Sequence[int], rate_hz: float, settings: Settings, *, at_most: bool) -> Finding:
    """The mean rate by the stamps, and by how many messages came: a rate, or at least a rate."""
    low, high = rate_hz * (1 - settings.rate_tolerance), rate_hz * (1 + settings.rate_tolerance)
    by_stamps = mean_rate(stamps_ns)
    arrived = len(stamps_ns) / settings.window_s
    # One message more or less at the ends of the window, and a machine that was busy for a moment.
    enough = arrived >= low - 2 / settings.window_s
    passed = low <= by_stamps and enough and (by_stamps <= high or not at_most)
    expected = f"{low:.1f} to {high:.1f} Hz" if at_most else f"at least {low:.1f} Hz"
    return Finding(topic, passed, expected, f"{by_stamps:.1f} Hz by the stamps, {arrived:.1f} Hz received")


def jitter(topic: str, stamps_ns: Sequence[int], rate_hz: float, settings: Settings) -> Finding:
    """How far intervals are from the mean interval (a rig may be faster than its file says)."""
    own = mean_rate(stamps_ns)
    period = 1 / own if own > 0 else 1 / rate_hz
    limit = settings.jitter_periods / rate_hz + settings.jitter_s
    seen = jitter_s(stamps_ns, period)
    expected = f"95 % of intervals within {1e3 * limit:.0f} ms of {1e3 * period:.1f} ms"
    return Finding(topic, seen <= limit, expected, f"within {1e3 * seen:.1f} ms")


def increasing(topic: str, stamps_ns: Sequence[int]) -> Finding:
    """Whether each stamp is later than the one before it."""
    steps = np.diff(np.array(stamps_ns, dtype=np.int64))
    back = int((steps <= 0).sum())
    seen = f"{back} of {len(steps)} steps stand still or go back"
    if back:
        seen += f", by up to {-steps.min() / NS_PER_S:.3f} s"
    return Finding(topic, len(steps) >= _MIN_STEPS and back == 0, "each stamp later than the one before", seen)


def ages(topic: str, stamped: Sequence[tuple[int, int]], session: Session) -> Finding:
    """How old messages are when they come; (stamp, received) in ns."""
    limit = session.rig.timeouts.rig_s / 2
    clock = "/clock" if session.sim_time else "the wall clock"
    expected = f"between {_AHEAD_S:g} s ahead and {limit:g} s behind {clock}"
    if not stamped:
        return Finding(topic, False, expected, "no message")
    behind = np.array([received - stamp for stamp, received in stamped]) / NS_PER_S
    oldest, newest = float(np.percentile(behind, 95)), float(behind.min())
    seen = f"{newest:.3f} to {oldest:.3f} s behind"
    return Finding(topic, newest >= -_AHEAD_S and oldest <= limit, expected, seen)
