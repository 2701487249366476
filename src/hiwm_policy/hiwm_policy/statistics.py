"""Intervals for success rates and for their paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a success rate (95 % by default); (0, 1) without trials.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials, got {successes} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    base: Sequence[bool], other: Sequence[bool], *, resamples: int = 10_000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Difference of two success rates measured on the same seeds, with a 95 % bootstrap interval over seeds.

    Returns:
        (rate of ``other`` - rate of ``base``, (low, high)).

    Raises:
        ValueError: if the two do not have the same, positive number of episodes.
    """
    if len(base) != len(other) or not base:
        raise ValueError(f"paired results need the same seeds, got {len(base)} and {len(other)} episodes")
    difference = np.asarray(other, float) - np.asarray(base, float)
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (resamples, len(difference)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), (float(low), float(high))
