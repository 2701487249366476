"""When a frame was taken, on the clock that ROS uses; and which frames to publish. No librealsense, no ROS."""

from __future__ import annotations

from hiwm_rig.codecs import NS_PER_S

NS_PER_MS = 1_000_000
_DRIFT = 100e-6
"""How fast two quartz clocks may drift apart; the offset between them may grow by this share of time."""
_JUMP_NS = NS_PER_S
_HOST_AGE_NS = NS_PER_S // 2
"""A stamp this near before its arrival comes from a clock that librealsense has synchronised to the host's."""


class HardwareClock:
    """Maps a camera's timestamps to the host's clock.

    Frames are delayed by a transfer that varies and is never negative, so the smallest difference between arrival and
    hardware stamp is the best estimate of the offset between the clocks; it may creep up with their drift. A stamp that
    is already on the host's clock (librealsense's global or system time) is taken as it is. Where the hardware's stamps
    jump (a recording starts again, a device was reset) the offset is measured anew. Results increase strictly and
    never lie in the future.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._offset_ns: int | None = None
        self._hardware_ns = 0
        self._last_ns = 0

    def to_host(self, hardware_ms: float, arrival_ns: int) -> int:
        """Host time in ns at which a frame was taken.

        Args:
            hardware_ms: the frame's timestamp, milliseconds on whatever clock it has.
            arrival_ns: when it came, host clock.
        """
        hardware_ns = round(hardware_ms * NS_PER_MS)
        if 0 <= arrival_ns - hardware_ns <= _HOST_AGE_NS:
            stamp = hardware_ns
        else:
            stamp = hardware_ns + self._offset(hardware_ns, arrival_ns)
        self._hardware_ns = hardware_ns
        self._last_ns = max(min(stamp, arrival_ns), self._last_ns + 1)
        return self._last_ns

    def _offset(self, hardware_ns: int, arrival_ns: int) -> int:
        seen = arrival_ns - hardware_ns
        step = hardware_ns - self._hardware_ns
        if self._offset_ns is None:
            self._offset_ns = seen
        elif step < 0 or abs(seen - self._offset_ns) > _JUMP_NS:
            self.jumps += 1
            self._offset_ns = seen
        else:
            self._offset_ns = min(seen, self._offset_ns + round(step * _DRIFT))
        return self._offset_ns


class Decimator:
    """Which frames of a faster camera to publish, evenly.

    Args:
        rate_hz: to publish at.
        fps: of the camera; where it is not faster, every frame is due.
    """

    def __init__(self, rate_hz: float, fps: float) -> None:
        self._all = rate_hz >= 0.95 * fps
        self._period_ns = round(1e9 / rate_hz)
        self._slack_ns = round(0.5e9 / fps)
        self._due_ns = 0

    def due(self, stamp_ns: int) -> bool:
        """Whether the frame with this stamp is to be published."""
        if self._all:
            return True
        if stamp_ns < self._due_ns - self._slack_ns:
            return False
        late = stamp_ns - self._due_ns > self._period_ns
        self._due_ns = (stamp_ns if late else self._due_ns) + self._period_ns
        return True
