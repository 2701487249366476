"""What all checks of one run share: the user, the passive recording, the arms, one restart. Needs rclpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hiwm_rig.conformance.arm import ArmProbe
from hiwm_rig.conformance.evidence import Frame, Info, State
from hiwm_rig.conformance.registry import CannotMeasureError, Need
from hiwm_rig.conformance.settings import Settings
from hiwm_rig.conformance.user import RigUser, Status
from hiwm_rig.contract import Rig

_DRAIN_S = 0.2
"""After a restart: long enough to read what the rig sent before its end."""


@dataclass(frozen=True)
class Recording:
    """What a rig showed while nobody commanded it.

    Attributes:
        frames: images by camera name.
        infos: camera infos by camera name.
        states: joint states by arm.
        statuses: diagnostics of all nodes.
    """

    frames: dict[str, list[Frame]]
    infos: dict[str, list[Info]]
    states: list[list[State]]
    statuses: list[Status]


@dataclass
class Restart:
    """What a user saw of a restart: the newest stamps before it, and the oldest after it, by topic.

    Attributes:
        before: newest stamp by topic, ns.
        after: first stamp by topic, ns; a topic is missing where nothing came back.
        seconds: from the end of the restart command until the last topic was back.
    """

    before: dict[str, int]
    after: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Session:
    """One run of the suite against one rig.

    Args:
        user: connected to the rig.
        settings: lengths and tolerances.
        restart: ends the rig and starts it again; None where the suite must not do that.
        sim_time: the user goes by ``/clock``.
    """

    def __init__(
        self,
        user: RigUser,
        settings: Settings | None = None,
        restart: Callable[[], None] | None = None,
        sim_time: bool = False,
    ) -> None:
        self.user = user
        self.settings = settings or Settings()
        self.sim_time = sim_time
        self._restart = restart
        self._recording: Recording | None = None
        self._arms: list[ArmProbe] | None = None
        self._restarted: Restart | None = None

    @property
    def rig(self) -> Rig:
        """The contract."""
        return self.user.rig

    def can(self, need: Need) -> bool:
        """Whether this run has what a check needs."""
        return need is not Need.RESTART or self._restart is not None

    @property
    def recording(self) -> Recording:
        """The topics of a rig at rest; recorded once, when first asked for."""
        if self._recording is None:
            user = self.user
            user.forget()
            user.spin_for(self.settings.window_s)
            self._recording = Recording(
                {k: list(v) for k, v in user.frames.items()},
                {k: list(v) for k, v in user.infos.items()},
                [list(s) for s in user.states],
                list(user.statuses),
            )
        return self._recording

    @property
    def arms(self) -> list[ArmProbe]:
        """The arms, each around the position where it stood when first asked for.

        Raises:
            CannotMeasureError: an arm shows no usable joint states.
        """
        if self._arms is None:
            self._arms = [ArmProbe(self.user, i, self.settings) for i in range(len(self.rig.arms))]
        return self._arms

    @property
    def restarted(self) -> Restart:
        """What a restart of the rig looked like to this user, who stayed; done once, when first asked for.

        Raises:
            CannotMeasureError: this run may not restart the rig.
        """
        if self._restarted is None:
            if self._restart is None:
                raise CannotMeasureError("", "this run may not restart the rig")
            self._restarted = self._watch_restart(self._restart)
        return self._restarted

    def _watch_restart(self, restart: Callable[[], None]) -> Restart:
        self.user.spin_for(3 * self.rig.period_s)
        seen = Restart(before=self._stamps(newest=True))
        restart()
        self.user.spin_for(_DRAIN_S)
        self.user.forget()
        start = self.user.now_ns()
        self.user.wait_for_rig(self.settings.start_s)
        seen.seconds = (self.user.now_ns() - start) / 1e9
        seen.after = self._stamps(newest=False)
        return seen

    def _stamps(self, *, newest: bool) -> dict[str, int]:
        which = -1 if newest else 0
        user = self.user
        kept: dict[str, list[Frame] | list[State]] = {c.image_topic: user.frames[c.name] for c in self.rig.cameras}
        kept |= {a.joint_states: s for a, s in zip(self.rig.arms, user.states, strict=True)}
        return {topic: evidence[which].stamp_ns for topic, evidence in kept.items() if evidence}
