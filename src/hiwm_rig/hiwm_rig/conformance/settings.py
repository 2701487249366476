"""How long the suite looks, how far it moves an arm, and what it tolerates. No ROS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Figures of one run. Lengths of motions are for revolute joints; other joints take the same share of their range.

    Attributes:
        window_s: how long topics are watched before anything moves.
        start_s: how long the rig may take to show up, and to come back after a restart.
        reset_s: how long a reset may take until the arm stands where it leads to.
        reach_rad: length of a test motion.
        chunk_s: duration of a test chunk.
        still_rad: an arm that moves less than this stands still (encoder noise, a controller that settles).
        settle_s: how long an arm may take to come to rest.
        rate_tolerance: share by which a rate may be off.
        jitter_periods: 95th percentile of intervals may be off by this share of a period ...
        jitter_s: ... and by this much on top.
        latency_periods: command to motion, in control periods ...
        latency_s: ... and on top: transport, and a servo that starts to move.
        speed_tolerance: share by which a velocity limit may be exceeded by what stamps and encoders add.
    """

    window_s: float = 4.0
    start_s: float = 60.0
    reset_s: float = 30.0
    reach_rad: float = 0.15
    chunk_s: float = 1.0
    still_rad: float = 0.01
    settle_s: float = 4.0
    rate_tolerance: float = 0.1
    jitter_periods: float = 0.5
    jitter_s: float = 0.005
    latency_periods: float = 2.0
    latency_s: float = 0.06
    speed_tolerance: float = 0.25
