"""Commands that a rig obeys: points, chunks, interpolation, replacement, speed, and what holds without them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hiwm_rig.codecs import target_to_trajectory
from hiwm_rig.conformance.arm import ArmProbe
from hiwm_rig.conformance.evidence import Array, Track
from hiwm_rig.conformance.registry import CannotMeasureError, Finding, check
from hiwm_rig.conformance.session import Session

_ARRIVED = 0.2
"""A target counts as reached within this share of a test motion."""
_STARTED = 0.2
"""An arm counts as moving once it is this share of a test motion away."""
_LAGS = 31
_MAX_LAG_PERIODS = 3.0
_REPEATS = 3


def _away(arm: ArmProbe, track: Track, position: Array) -> Array:
    """(N,) distance of the test joint from (D,) ``position``, in test motions."""
    return np.asarray(np.abs(track.positions[:, arm.joint] - position[arm.joint]) / arm.reach, dtype=np.float64)


def _lag_s(arm: ArmProbe, session: Session) -> float:
    """How long a rig may take until it is where its command said."""
    return _MAX_LAG_PERIODS * arm.period_s + session.settings.latency_s


def _arrival(arm: ArmProbe, track: Track, target: Array) -> Finding:
    off = _away(arm, track, target)[-1]
    seen = f"{track.positions[-1, arm.joint]:.3f} ({100 * off:.0f} % of the motion off)"
    expected = f"'{arm.joint_name}' at {target[arm.joint]:.3f}, at most {100 * _ARRIVED:.0f} % of the motion off"
    return Finding(arm.topic, bool(off <= _ARRIVED), expected, seen)


@check("motion")
def stands_still_without_a_command(session: Session) -> Iterator[Finding]:
    """An arm that nobody commands stands still."""
    for arm in session.arms:
        track = arm.watch(session.settings.chunk_s)
        worst = arm.moved(track, track.positions[0])
        i = int(worst.argmax())
        seen = f"'{arm.arm.joints[i].name}' moved by {worst[i] * arm.still[i]:.4f}"
        yield Finding(arm.arm.joint_states, worst[i] <= 1.5, f"motion within {arm.still[i]:.4f}", seen)


@check("motion")
def single_point_reached(session: Session) -> Iterator[Finding]:
    """A single point is obeyed at once and held."""
    for arm in session.arms:
        arm.home()
        target = arm.target(1)
        arm.send_point(target)
        track = arm.watch(_lag_s(arm, session) + 0.3)
        yield _arrival(arm, track, target)


@check("motion")
def latency_of_a_command(session: Session) -> Iterator[Finding]:
    """The first joint state that shows the motion comes soon after its command."""
    limit = session.settings.latency_periods * session.rig.period_s + session.settings.latency_s
    for arm in session.arms:
        latencies = []
        for i in range(_REPEATS):
            arm.go(arm.target(i % 2))
            origin = arm.position()
            # Not always at the same phase of the rig's period.
            session.user.spin_for(session.rig.period_s * i / _REPEATS)
            start, sent = len(arm.states()), arm.send_point(arm.target(1 - i % 2))
            session.user.spin_for(2 * limit)
            track = arm.since(start, sent)
            moving = np.flatnonzero(_away(arm, track, origin) >= _STARTED)
            latencies.append(float(track.received_s[moving[0]]) if moving.size else float("inf"))
        median = float(np.median(latencies))
        seen = f"{1e3 * median:.0f} ms, median of {_REPEATS}"
        yield Finding(arm.topic, median <= limit, f"at most {1e3 * limit:.0f} ms", seen)


@check("motion")
def stamp_of_zero_means_now(session: Session) -> Iterator[Finding]:
    """A command stamped 0 counts from when it comes, as in ros2_control."""
    for arm in session.arms:
        arm.home()
        target = arm.target(1)
        arm.send_point(target, stamp_ns=0)
        yield _arrival(arm, arm.watch(_lag_s(arm, session) + 0.3), target)


@check("motion")
def joints_in_any_order(session: Session) -> Iterator[Finding]:
    """Values of a command belong to the names beside them, in whatever order these come."""
    for arm in session.arms:
        names = arm.arm.joint_names
        arm.home()
        target = arm.target(1)
        msg = target_to_trajectory(names, target, session.user.now_ns(), arm.period_s)
        msg.joint_names = list(reversed(names))
        msg.points[0].positions = target[::-1].tolist()
        session.user.send(arm.index, msg)
        track = arm.watch(_lag_s(arm, session) + 0.3)
        others = np.delete(arm.moved(track, target), arm.joint)
        finding = _arrival(arm, track, target)
        still = not others.size or bool(others.max() <= 3)
        seen = finding.seen if still else f"{finding.seen}; other joints moved"
        yield Finding(arm.topic, finding.passed and still, f"{finding.expected}, other joints still", seen)


def _follow_chunk(arm: ArmProbe, session: Session, seconds: float) -> tuple[Track, Array, Array]:
    """Send a chunk with a bend and watch it to its end; the track, offsets (N,) and positions (N, D) of the chunk."""
    arm.home()
    start, first = len(arm.states()), arm.position()
    offsets = np.array([0.0, 0.4, 1.0]) * seconds
    positions = np.array([first, arm.target(0.25), arm.target(1)])
    sent = arm.send_chunk(offsets.tolist(), positions)
    session.user.spin_for(seconds + _lag_s(arm, session))
    return arm.since(start, sent), offsets, positions


@check("motion")
def chunk_reaches_its_end(session: Session) -> Iterator[Finding]:
    """A chunk leads to its last point."""
    for arm in session.arms:
        track, _, positions = _follow_chunk(arm, session, session.settings.chunk_s)
        yield _arrival(arm, track, positions[-1])


@check("motion")
def chunk_is_interpolated(session: Session) -> Iterator[Finding]:
    """Between its points a chunk is a straight line in time: no steps, no rush to the end."""
    for arm in session.arms:
        track, offsets, positions = _follow_chunk(arm, session, session.settings.chunk_s)
        errors = []
        lags = np.linspace(0, _lag_s(arm, session), _LAGS)
        for lag in lags:
            wanted = np.interp(track.times_s - lag, offsets, positions[:, arm.joint])
            errors.append(np.abs(track.positions[:, arm.joint] - wanted).max() / arm.reach)
        best = int(np.argmin(errors))
        seen = f"{100 * errors[best]:.0f} % of the motion off, at a lag of {1e3 * lags[best]:.0f} ms"
        expected = f"within {100 * _ARRIVED:.0f} % of the line, at a lag of at most {1e3 * lags[-1]:.0f} ms"
        yield Finding(arm.topic, bool(errors[best] <= _ARRIVED), expected, seen)


@check("motion")
def chunk_is_held_at_its_end(session: Session) -> Iterator[Finding]:
    """After its last point, and after it has become stale, a chunk's end is held."""
    for arm in session.arms:
        _, _, positions = _follow_chunk(arm, session, session.settings.chunk_s / 2)
        track = arm.watch(session.rig.timeouts.command_s + 3 * arm.period_s + 0.2)
        off = float(_away(arm, track, positions[-1]).max())
        seen = f"up to {100 * off:.0f} % of the motion away from it"
        yield Finding(arm.topic, off <= _ARRIVED, f"within {100 * _ARRIVED:.0f} % of its last point", seen)


@check("motion")
def running_chunk_is_replaced(session: Session) -> Iterator[Finding]:
    """A new chunk replaces the one that runs, at once and for good."""
    for arm in session.arms:
        arm.home()
        arm.ramp(arm.target(1), 1.5 * session.settings.chunk_s)
        session.user.spin_for(0.5 * session.settings.chunk_s)
        target = arm.target(-0.5)
        arm.ramp(target, 0.5 * session.settings.chunk_s)
        session.user.spin_for(0.5 * session.settings.chunk_s + _lag_s(arm, session))
        # Until after the end of the first chunk: it must not come back.
        track = arm.watch(0.5 * session.settings.chunk_s + _lag_s(arm, session))
        off = float(_away(arm, track, target).max())
        seen = f"up to {100 * off:.0f} % of the motion away from its end"
        expected = f"within {100 * _ARRIVED:.0f} % of the second chunk's end, {target[arm.joint]:.3f}"
        yield Finding(arm.topic, off <= _ARRIVED, expected, seen)


@check("motion")
def velocity_limit_kept(session: Session) -> Iterator[Finding]:
    """A point that is far away is approached no faster than the joint's velocity limit."""
    for arm in session.arms:
        arm.home()
        limit = arm.arm.joints[arm.joint].max_velocity
        length = min(float(0.9 * arm.room[arm.joint]), max(3 * arm.reach, 5 * limit * arm.period_s))
        origin = arm.position()
        target = arm.target(length / arm.reach)
        # The state before the command belongs to it: a jump shows between that one and the next.
        start, sent = len(arm.states()) - 1, arm.send_point(target)
        session.user.spin_for(length / limit + _lag_s(arm, session))
        track = arm.since(start, sent)
        seen = _top_speed(arm, track)
        allowed = limit * (1 + session.settings.speed_tolerance)
        arrived = _away(arm, track, origin)[-1] > _STARTED
        arm.ramp(arm.base, length / (0.5 * limit))
        session.user.spin_for(length / (0.5 * limit))
        text = f"{seen:.2f} per s" + ("" if arrived else ", and the arm did not go there")
        name = arm.joint_name
        yield Finding(arm.topic, bool(seen <= allowed and arrived), f"'{name}' at most {allowed:.2f} per s", text)


def _top_speed(arm: ArmProbe, track: Track) -> float:
    """Largest mean speed of the test joint over windows of at least one control period.

    Raises:
        CannotMeasureError: fewer than two joint states.
    """
    speeds = []
    for i, start in enumerate(track.times_s):
        later = np.flatnonzero(track.times_s >= start + 0.95 * arm.period_s)
        if later.size:
            j = int(later[0])
            way = abs(track.positions[j, arm.joint] - track.positions[i, arm.joint])
            speeds.append(way / (track.times_s[j] - start))
    if not speeds:
        raise CannotMeasureError(arm.arm.joint_states, "too few joint states to tell a speed")
    return float(max(speeds))


@check("motion")
def velocities_are_those_of_the_motion(session: Session) -> Iterator[Finding]:
    """Published velocities add up to the way that the arm went, with its sign."""
    for arm in session.arms:
        arm.home()
        start, sent = len(arm.states()), arm.ramp(arm.target(1), session.settings.chunk_s)
        session.user.spin_for(session.settings.chunk_s + _lag_s(arm, session))
        track = arm.since(start, sent)
        if not track.velocities.shape[1]:
            yield Finding(arm.arm.joint_states, False, "velocities", "none are published")
            continue
        way = track.positions[-1, arm.joint] - track.positions[0, arm.joint]
        added = float((track.velocities[1:, arm.joint] * np.diff(track.times_s)).sum())
        seen = f"{added:.3f} for a way of {way:.3f}"
        passed = abs(added - way) <= 0.35 * abs(way) and abs(way) > _STARTED * arm.reach
        yield Finding(arm.arm.joint_states, bool(passed), "sum of velocity times interval within 35 % of the way", seen)


@check("motion")
def holds_when_the_commander_dies(session: Session) -> Iterator[Finding]:
    """When commands end in the middle of a motion, the arm holds where the last one led."""
    for arm in session.arms:
        first = arm.home()
        targets = np.linspace(first, arm.target(1), 6)[1:]
        arm.stream(targets, max(5 * arm.period_s, 0.3))
        session.user.spin_for(session.rig.timeouts.command_s + _lag_s(arm, session))
        track = arm.watch(session.settings.chunk_s)
        off = float(_away(arm, track, targets[-1]).max())
        moved = float(np.ptp(track.positions[:, arm.joint])) / arm.reach
        # A network may lose the last message of a stream, and then the one before it is the last.
        near = 2 / len(targets)
        seen = f"up to {100 * off:.0f} % of the motion away from it, moving by {100 * moved:.0f} %"
        expected = f"still, within {100 * near:.0f} % of the last point"
        yield Finding(arm.topic, off <= near and moved <= _ARRIVED / 2, expected, seen)


@check("motion")
def future_chunk_waits(session: Session) -> Iterator[Finding]:
    """Points due later are not rushed: the first part of a slow chunk is slow."""
    for arm in session.arms:
        first = arm.home()
        arm.send_chunk([0.0, 2 * session.settings.chunk_s, 3 * session.settings.chunk_s], [first, first, arm.target(1)])
        track = arm.watch(session.settings.chunk_s)
        off = float(_away(arm, track, first).max())
        arm.send_point(first)
        seen = f"{100 * off:.0f} % of the motion already done"
        yield Finding(arm.topic, off <= _STARTED, f"no motion within {session.settings.chunk_s:g} s", seen)
