"""Commands that a rig must not obey, not even in part; and that they disturb nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hiwm_rig.codecs import NS_PER_S, seconds_to_duration, target_to_trajectory
from hiwm_rig.conformance.arm import ArmProbe
from hiwm_rig.conformance.registry import Finding, check
from hiwm_rig.conformance.session import Session

_STALE_S = 10.0
_OUTSIDE_SHARE = 0.02
_REPORTED_S = 3.0
_WARN = 1


def _valid(arm: ArmProbe, session: Session) -> Any:
    """A command to one test motion away, to be spoilt."""
    return target_to_trajectory(arm.arm.joint_names, arm.target(1), session.user.now_ns(), arm.period_s)


def _other(arm: ArmProbe) -> int:
    """A joint beside the test joint; the test joint itself where there is only one."""
    return (arm.joint + 1) % len(arm.arm.joints)


def _ignored(session: Session, spoil: Callable[[ArmProbe, Any], str]) -> Iterator[Finding]:
    """Send a spoilt command to each arm at rest; no joint may move."""
    for arm in session.arms:
        origin = arm.home()
        msg = _valid(arm, session)
        what = spoil(arm, msg)
        session.user.send(arm.index, msg)
        track = arm.watch(3 * arm.period_s + 0.2)
        worst = arm.moved(track, origin)
        i = int(worst.argmax())
        seen = f"'{arm.arm.joints[i].name}' moved by {worst[i] * arm.still[i]:.3f}"
        yield Finding(arm.topic, bool(worst[i] <= 2), f"{what}: rejected as a whole, no joint moves", seen)


def _set(msg: Any, joint: int, value: float) -> None:
    positions = list(msg.points[0].positions)
    positions[joint] = value
    msg.points[0].positions = positions


@check("rejections")
def nan_rejected(session: Session) -> Iterator[Finding]:
    """A target of NaN for one joint rejects the whole command."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        _set(msg, _other(arm), float("nan"))
        return f"NaN for '{arm.arm.joints[_other(arm)].name}'"

    yield from _ignored(session, spoil)


@check("rejections")
def infinity_rejected(session: Session) -> Iterator[Finding]:
    """An infinite target is rejected, not clipped to the limit."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        _set(msg, arm.joint, float("inf"))
        return f"infinity for '{arm.joint_name}'"

    yield from _ignored(session, spoil)


@check("rejections")
def unknown_joint_rejected(session: Session) -> Iterator[Finding]:
    """A command that also names a joint of another robot is rejected."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        msg.joint_names = [*msg.joint_names, "joint_of_another_robot"]
        msg.points[0].positions = [*msg.points[0].positions, 0.0]
        return "a joint that the rig does not have"

    yield from _ignored(session, spoil)


@check("rejections")
def missing_joint_rejected(session: Session) -> Iterator[Finding]:
    """A command that leaves a joint out is rejected."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        left_out = len(arm.arm.joints) - 1 if arm.joint != len(arm.arm.joints) - 1 else 0
        keep = [i for i in range(len(arm.arm.joints)) if i != left_out]
        positions = msg.points[0].positions
        msg.joint_names = [arm.arm.joint_names[i] for i in keep]
        msg.points[0].positions = [positions[i] for i in keep]
        return f"no value for '{arm.arm.joints[left_out].name}'"

    yield from _ignored(session, spoil)


@check("rejections")
def repeated_joint_rejected(session: Session) -> Iterator[Finding]:
    """A command that names a joint twice is rejected."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        msg.joint_names = [*msg.joint_names, arm.joint_name]
        msg.points[0].positions = [*msg.points[0].positions, float(arm.target(1)[arm.joint])]
        return f"'{arm.joint_name}' twice"

    yield from _ignored(session, spoil)


@check("rejections")
def wrong_size_rejected(session: Session) -> Iterator[Finding]:
    """A point with fewer values than names is rejected."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        size = len(arm.arm.joints)
        kept = max(size - 1, arm.joint + 1) if size > 1 else 0
        if kept == size:  # the test joint is the last one: leave the first value out instead of it
            kept = size - 1
        msg.points[0].positions = list(msg.points[0].positions)[:kept]
        return f"{kept} values for {size} joints"

    yield from _ignored(session, spoil)


@check("rejections")
def times_must_increase(session: Session) -> Iterator[Finding]:
    """A chunk whose times do not increase is rejected."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        again = type(msg.points[0])(positions=list(msg.points[0].positions))
        again.time_from_start = seconds_to_duration(arm.period_s / 2)
        msg.points = [msg.points[0], again]
        return "a point due before the one before it"

    yield from _ignored(session, spoil)


@check("rejections")
def stale_stamp_rejected(session: Session) -> Iterator[Finding]:
    """A command that ran out long ago is rejected: a delayed network must not move an arm."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        stamp = max(session.user.now_ns() - round(_STALE_S * NS_PER_S), 1)
        msg.header.stamp.sec, msg.header.stamp.nanosec = stamp // NS_PER_S, stamp % NS_PER_S
        return f"stamped {_STALE_S:g} s ago"

    yield from _ignored(session, spoil)


def _beyond(arm: ArmProbe, msg: Any, *, upper: bool) -> str:
    joint = arm.arm.joints[arm.joint]
    margin = _OUTSIDE_SHARE * (joint.upper - joint.lower)
    value = joint.upper + margin if upper else joint.lower - margin
    _set(msg, arm.joint, value)
    return f"'{joint.name}' to {value:.3f} outside [{joint.lower}, {joint.upper}]"


@check("rejections")
def above_the_limit_rejected(session: Session) -> Iterator[Finding]:
    """A target above a joint's limit rejects the command."""
    yield from _ignored(session, lambda arm, msg: _beyond(arm, msg, upper=True))


@check("rejections")
def below_the_limit_rejected(session: Session) -> Iterator[Finding]:
    """A target below a joint's limit rejects the command."""
    yield from _ignored(session, lambda arm, msg: _beyond(arm, msg, upper=False))


@check("rejections")
def late_point_outside_rejected(session: Session) -> Iterator[Finding]:
    """A chunk with one point outside the limits is rejected as a whole, before it begins."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        last = type(msg.points[0])(positions=list(msg.points[0].positions))
        last.time_from_start = seconds_to_duration(5.0)
        msg.points = [msg.points[0], last]
        positions = list(last.positions)
        positions[arm.joint] = arm.arm.joints[arm.joint].upper * 1.5 + 1.0
        msg.points[1].positions = positions
        return "a last point outside the limits"

    yield from _ignored(session, spoil)


def _undisturbed(session: Session, spoil: Callable[[ArmProbe, Any], str]) -> Iterator[Finding]:
    """Send a spoilt command while a chunk runs; the chunk goes on to its end."""
    for arm in session.arms:
        arm.home()
        target = arm.target(-1)
        arm.ramp(target, 1.2 * session.settings.chunk_s)
        session.user.spin_for(0.2 * session.settings.chunk_s)
        msg = _valid(arm, session)
        what = spoil(arm, msg)
        session.user.send(arm.index, msg)
        session.user.spin_for(session.settings.chunk_s + 3 * arm.period_s)
        track = arm.watch(0.2)
        off = abs(track.positions[-1, arm.joint] - target[arm.joint]) / arm.reach
        seen = f"{100 * off:.0f} % of the motion away from its end"
        yield Finding(arm.topic, bool(off <= 0.2), f"{what}: the chunk that runs goes on to its end", seen)


@check("rejections")
def bad_command_leaves_the_running_chunk(session: Session) -> Iterator[Finding]:
    """A rejected command does not stop the chunk that runs."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        _set(msg, arm.joint, float("nan"))
        return "NaN meanwhile"

    yield from _undisturbed(session, spoil)


@check("rejections")
def empty_command_leaves_the_running_chunk(session: Session) -> Iterator[Finding]:
    """A command without points is no command: the chunk that runs goes on."""

    def spoil(arm: ArmProbe, msg: Any) -> str:
        msg.points = []
        return "a command without points meanwhile"

    yield from _undisturbed(session, spoil)


@check("rejections")
def rejections_are_reported(session: Session) -> Iterator[Finding]:
    """Diagnostics count rejected commands, or warn of them."""
    for arm in session.arms:
        arm.home()
        before = _rejected(session)
        for _ in range(3):
            msg = _valid(arm, session)
            _set(msg, arm.joint, float("nan"))
            session.user.send(arm.index, msg)
            session.user.spin_for(arm.period_s)
        start = len(session.user.statuses)

        def reported(start: int = start, before: float = before) -> bool:
            warned = any(s.level >= _WARN for s in session.user.statuses[start:])
            return warned or _rejected(session) > before

        passed = session.user.spin_until(reported, _REPORTED_S)
        expected = f"a counter rejected_* that grows, or a warning, within {_REPORTED_S:g} s"
        seen = "reported" if passed else f"{len(session.user.statuses) - start} statuses, none of them"
        yield Finding(session.rig.topics.diagnostics, passed, expected, seen)


def _rejected(session: Session) -> float:
    """The newest rejection counters of all nodes together."""
    newest = {s.name: s.values for s in session.user.statuses}
    total = 0.0
    for values in newest.values():
        for key, value in values.items():
            if key.startswith("rejected_") and value.replace(".", "", 1).isdigit():
                total += float(value)
    return total


@check("rejections")
def obeys_again_after_rejections(session: Session) -> Iterator[Finding]:
    """After a bad command the next good one is obeyed."""
    for arm in session.arms:
        arm.home()
        bad = _valid(arm, session)
        _set(bad, arm.joint, float("nan"))
        session.user.send(arm.index, bad)
        arm.watch(2 * arm.period_s)
        target = arm.target(1)
        arm.send_point(target)
        track = arm.watch(3 * arm.period_s + 0.4)
        off = float(np.abs(track.positions[-1, arm.joint] - target[arm.joint])) / arm.reach
        yield Finding(arm.topic, off <= 0.2, f"'{arm.joint_name}' at {target[arm.joint]:.3f}", f"{100 * off:.0f} % off")
