"""A recorded leader motion as an operator: takes over, plays it, goes back, plays it differently. No ROS.

It decides nothing: it is a tape. It stands for the leader arm where a rig's real leader motions were recorded (DROID).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from hiwm_rig.types import Driver


class PlaybackError(ValueError):
    """A file that holds no recorded leader motion; the text names it and what was expected."""


class Phase(StrEnum):
    """What the playback is doing."""

    WAIT = "wait for the rig"
    RESET = "reset"
    BEGIN = "begin the episode"
    ALIGN = "take over"
    PLAY = "play"
    BACK = "go back"
    PAUSE = "hand back"
    END = "end the episode"
    DONE = "done"


class Cue(StrEnum):
    """What makes it do something else."""

    RIG_SEEN = "rig seen"
    SERVED = "request served"
    HUMAN_DRIVES = "the leader is followed"
    PLAYED = "played, more branches to come"
    ALL_PLAYED = "all branches played"


TABLE: Mapping[tuple[Phase, Cue], Phase] = MappingProxyType(
    {
        (Phase.WAIT, Cue.RIG_SEEN): Phase.RESET,
        (Phase.RESET, Cue.SERVED): Phase.BEGIN,
        (Phase.BEGIN, Cue.SERVED): Phase.ALIGN,
        (Phase.ALIGN, Cue.HUMAN_DRIVES): Phase.PLAY,
        (Phase.PLAY, Cue.PLAYED): Phase.BACK,
        (Phase.PLAY, Cue.ALL_PLAYED): Phase.PAUSE,
        (Phase.BACK, Cue.SERVED): Phase.ALIGN,
        (Phase.PAUSE, Cue.SERVED): Phase.END,
        (Phase.END, Cue.SERVED): Phase.DONE,
    }
)


@dataclass(frozen=True)
class Motion:
    """A recorded leader motion.

    Attributes:
        joint_names: of the columns.
        rate_hz: rows per second.
        positions: [T, D] joint targets, rad or m.
        start: reset seed of the frame at which it begins.
    """

    joint_names: tuple[str, ...]
    rate_hz: float
    positions: npt.NDArray[np.float64]
    start: int

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Read the JSON file.

        Raises:
            PlaybackError: naming the file and what was expected.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
            positions = np.asarray(raw["positions"], dtype=np.float64)
            motion = cls(tuple(raw["joint_names"]), float(raw["rate_hz"]), positions, int(raw["start"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlaybackError(f"{path}: expected a recorded leader motion in JSON ({error})") from error
        if positions.ndim != 2 or positions.shape != (len(positions), len(motion.joint_names)) or len(positions) < 2:
            expected = f"[T >= 2, {len(motion.joint_names)}]"
            raise PlaybackError(f"{path}: expected positions {expected}, got {list(positions.shape)}")
        if not np.isfinite(positions).all() or motion.rate_hz <= 0:
            raise PlaybackError(f"{path}: expected finite positions and a rate above 0")
        return motion


class Playback:
    """The tape: where the leader is, and what comes next.

    The first branch plays the whole motion; each further one starts from the middle of it, with less amplitude.

    Args:
        motion: what to play.
        branches: branches in all.
        seconds: how much of the motion to play at most.
    """

    def __init__(self, motion: Motion, branches: int = 3, seconds: float = 20.0) -> None:
        self.motion = motion
        self.branches = branches
        self.branch = 0
        self.phase = Phase.WAIT
        self.middle_snapshot = -1
        self._rows = motion.positions[: max(2, round(seconds * motion.rate_hz) + 1)]
        self._middle = len(self._rows) // 2
        self._began_s = 0.0

    def go(self, cue: Cue) -> Phase:
        """Take a cue; the new phase."""
        self.phase = TABLE[(self.phase, cue)]
        return self.phase

    def begin_play(self, now_s: float) -> None:
        """The leader is followed from now on."""
        self._began_s = now_s
        self.go(Cue.HUMAN_DRIVES)

    def observe(self, driver: Driver, snapshot_id: int, now_s: float) -> Phase:
        """One look at who drives and which frame is shown; the phase after it."""
        if self.phase is Phase.ALIGN and driver is Driver.HUMAN:
            self.begin_play(now_s)
        elif self.phase is Phase.PLAY:
            row = self._row(now_s)
            if self.branch == 0 and self.middle_snapshot < 0 and row >= self._middle:
                self.middle_snapshot = snapshot_id
            if row >= len(self._rows) - 1:
                self._finish()
        return self.phase

    def leader(self, now_s: float) -> npt.NDArray[np.float64]:
        """(D,) where the leader is held."""
        row = self._row(now_s) if self.phase is Phase.PLAY else float(self._first())
        low = int(row)
        weight = row - low
        following = self._rows[min(low + 1, len(self._rows) - 1)]
        position = (1 - weight) * self._rows[low] + weight * following
        anchor = self._rows[self._first()]
        amplitude = 1.0 - 0.5 * self.branch / max(1, self.branches - 1)
        return np.asarray(anchor + amplitude * (position - anchor), dtype=np.float64)

    def _first(self) -> int:
        return 0 if self.branch == 0 else self._middle

    def _row(self, now_s: float) -> float:
        row = self._first() + (now_s - self._began_s) * self.motion.rate_hz
        return float(np.clip(row, self._first(), len(self._rows) - 1))

    def _finish(self) -> None:
        self.branch += 1
        last = self.branch >= self.branches or self.middle_snapshot < 0
        self.go(Cue.ALL_PLAYED if last else Cue.PLAYED)
        if last:
            self.branch -= 1
