"""What an operator did in a running graph, counted from the topics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hiwm_rig.codecs import NS_PER_S, stamp_to_ns
from hiwm_rig.contract import Rig
from hiwm_rig.rig_node import LATCHED
from hiwm_rig.types import Driver

from hiwm_bringup.probe import Probe


@dataclass
class SessionCounts:
    """Counts of one session.

    Attributes:
        episodes: episodes that have ended.
        corrections: times the operator took over and drove.
        rollbacks, branches: jumps between snapshots.
        operator_seconds: time in which the operator drove.
        outcomes: outcome number of each ended episode.
    """

    episodes: int = 0
    corrections: int = 0
    rollbacks: int = 0
    branches: int = 0
    operator_seconds: float = 0.0
    outcomes: list[int] = field(default_factory=list)
    world: list[tuple[float, float, float]] = field(default_factory=list)
    drivers: list[tuple[float, int]] = field(default_factory=list)

    def line(self) -> str:
        """One line for a progress bar."""
        return (
            f"{self.corrections} corrections, {self.rollbacks} rollbacks, {self.branches} branches, "
            f"{self.operator_seconds:.0f} s of operator time"
        )


class SessionMeter:
    """Listens to control state, episode events and world state.

    Args:
        probe: where to listen; its owner spins it.
        rig: the contract, for the topics.
    """

    def __init__(self, probe: Probe, rig: Rig) -> None:
        from hiwm_msgs.msg import ControlState, EpisodeEvent, WorldState

        self._events = EpisodeEvent
        self.counts = SessionCounts()
        self.in_episode = False
        self._driver = int(Driver.PAUSED)
        self._since_ns = 0
        node = probe.node
        node.create_subscription(ControlState, rig.topics.control_state, self._on_control, 50)
        node.create_subscription(EpisodeEvent, rig.topics.episode, self._on_event, LATCHED)
        node.create_subscription(WorldState, rig.topics.world_state, self._on_world, 10)

    def _on_control(self, msg: Any) -> None:
        stamp, driver = stamp_to_ns(msg.header.stamp), int(msg.driver)
        if driver == Driver.HUMAN and self._driver != Driver.HUMAN:
            self.counts.corrections += 1
        if self._driver == Driver.HUMAN and self._since_ns:
            self.counts.operator_seconds += max(0, stamp - self._since_ns) / NS_PER_S
        if driver != self._driver:
            self.counts.drivers.append((stamp / NS_PER_S, driver))
        self._driver, self._since_ns = driver, stamp

    def _on_event(self, msg: Any) -> None:
        kind = int(msg.type)
        self.counts.rollbacks += kind == self._events.ROLLBACK
        self.counts.branches += kind == self._events.BRANCH
        if kind == self._events.BEGIN:
            self.in_episode = True
        elif kind == self._events.END:
            self.in_episode = False
            self.counts.episodes += 1
            self.counts.outcomes.append(int(msg.outcome))

    def _on_world(self, msg: Any) -> None:
        stamp = stamp_to_ns(msg.header.stamp) / NS_PER_S
        self.counts.world.append((stamp, float(msg.success_probability), float(msg.trust)))
