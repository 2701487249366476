"""What a person says with the leader arm and a pedal: take over, hand back, success, failure, go back. No ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from hiwm_rig.contract import Joint

_SHARE = 0.2
"""Share of the lever's travel that it must be away from where the mirror holds it."""
_HOLD_S = 0.15


class Signal(StrEnum):
    """What an operator can ask for without letting go of the leader."""

    TAKEOVER = "takeover"  # while a person drives: hand back to the policy
    SUCCESS = "success"
    FAILURE = "failure"
    ROLLBACK = "rollback"


class Lever:
    """The gripper lever of a mirroring leader: pulling it against the mirror is the wish to take over.

    It speaks only while the leader mirrors: when a person drives, the lever is the gripper.

    Args:
        joint: the follower's gripper.
        rate_hz: how often :meth:`pulled` is called.
    """

    def __init__(self, joint: Joint, rate_hz: float) -> None:
        self._threshold = _SHARE * (joint.upper - joint.lower)
        self._needed = max(1, round(_HOLD_S * rate_hz))
        self._count = 0

    def pulled(self, position: float, held_at: float) -> bool:
        """Once per pull: whether the lever has been held away from ``held_at`` for long enough (follower's units)."""
        away = abs(position - held_at) > self._threshold
        self._count = self._count + 1 if away else 0
        return self._count == self._needed

    def reset(self) -> None:
        """Forget a pull that has begun."""
        self._count = 0


class Pedal:
    """Buttons of a pedal or pad, as ``sensor_msgs/Joy`` reports them; speaks when one is pressed, not while it is held.

    Args:
        buttons: signal -> index of its button; an index below 0 is a signal without a button.
    """

    def __init__(self, buttons: Mapping[Signal, int]) -> None:
        self._buttons = dict(buttons)
        self._before: tuple[int, ...] | None = None

    def press(self, state: Sequence[int]) -> list[Signal]:
        """Take the state of all buttons; the signals of those that have just been pressed."""
        before = self._before
        self._before = tuple(state)
        if before is None or len(before) != len(self._before):
            return []  # what is held when it appears has not been pressed
        return [s for s, i in self._buttons.items() if 0 <= i < len(state) and state[i] and not before[i]]
