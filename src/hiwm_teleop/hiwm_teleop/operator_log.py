"""What the scripted operator did and when. No ROS."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiwm_rig.files import write_json


@dataclass(frozen=True)
class OperatorEvent:
    """One thing the operator did or noticed.

    Attributes:
        stamp_ns: of the frame it belongs to.
        kind: "takeover", "rollback", "corrected", ...
        detail: whatever else belongs to it.
    """

    stamp_ns: int
    kind: str
    detail: dict[str, Any] = field(default_factory=dict)


class OperatorLog:
    """Events in order, with a summary."""

    def __init__(self) -> None:
        self.events: list[OperatorEvent] = []

    def add(self, stamp_ns: int, kind: str, **detail: Any) -> None:
        """Append an event."""
        self.events.append(OperatorEvent(stamp_ns, kind, detail))

    def count(self, kind: str) -> int:
        """How many events of a kind there are."""
        return Counter(e.kind for e in self.events)[kind]

    def seconds(self) -> float:
        """Seconds in which the operator's hand moved the robot, all corrections together."""
        return float(sum(e.detail["seconds"] for e in self.events if e.kind in ("corrected", "lost control")))

    def summary(self) -> dict[str, Any]:
        """Counts and operator time; the values are plain JSON."""
        return {
            "operator": "scripted (a stand-in for a person)",
            "episodes": self.count("episode"),
            "corrections": self.count("takeover"),
            "rollbacks": self.count("rollback"),
            "branches": self.count("branch"),
            "operator_seconds": round(self.seconds(), 3),
        }

    def write(self, path: str | Path, **extra: Any) -> None:
        """Write summary and events as JSON; written aside, then renamed."""
        events = [{"stamp_ns": e.stamp_ns, "kind": e.kind, **e.detail} for e in self.events]
        write_json(path, {**self.summary(), **extra, "events": events})
