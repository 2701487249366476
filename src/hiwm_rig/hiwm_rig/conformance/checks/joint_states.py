"""Joint states and diagnostics of a rig at rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hiwm_rig.conformance.checks.streams import ages, increasing, jitter, rate
from hiwm_rig.conformance.evidence import State, in_order
from hiwm_rig.conformance.registry import Finding, check
from hiwm_rig.conformance.session import Session
from hiwm_rig.contract import Arm

_LIMIT_SLACK = 0.02
"""How far (rad or m) a measured position may lie outside the limits of commands: servos overshoot."""
_ERROR = 2


def _arms(session: Session) -> Iterator[tuple[Arm, list[State]]]:
    yield from zip(session.rig.arms, session.recording.states, strict=True)


@check("joint_states")
def joint_names(session: Session) -> Iterator[Finding]:
    """Joint states name the joints of the rig file, in its order."""
    for arm, states in _arms(session):
        seen = sorted({s.names for s in states})
        text = "; ".join(str(list(names)) for names in seen) or "no joint state"
        yield Finding(arm.joint_states, seen == [arm.joint_names], str(list(arm.joint_names)), text)


@check("joint_states")
def joint_state_sizes(session: Session) -> Iterator[Finding]:
    """Each joint state has one position and one velocity per name."""
    for arm, states in _arms(session):
        seen = sorted({(len(s.names), len(s.positions), len(s.velocities)) for s in states})
        passed = bool(seen) and all(n == p == v for n, p, v in seen)
        text = "; ".join(f"{n} names, {p} positions, {v} velocities" for n, p, v in seen) or "no joint state"
        yield Finding(arm.joint_states, passed, "as many positions and velocities as names", text)


@check("joint_states")
def joint_values_finite(session: Session) -> Iterator[Finding]:
    """Positions and velocities are numbers."""
    for arm, states in _arms(session):
        bad = [s for s in states if not np.isfinite([*s.positions, *s.velocities]).all()]
        text = f"{len(bad)} of {len(states)} states with NaN or infinity"
        yield Finding(arm.joint_states, bool(states) and not bad, "finite values", text)


@check("joint_states")
def joint_positions_inside_limits(session: Session) -> Iterator[Finding]:
    """An arm at rest stands inside its limits."""
    for arm, states in _arms(session):
        kept = [p for s in states if (p := in_order(s, arm.joint_names)) is not None]
        if not kept:
            yield Finding(arm.joint_states, False, "positions inside the limits", "no usable joint state")
            continue
        positions = np.array(kept)
        lower, upper = np.array([[j.lower, j.upper] for j in arm.joints]).T
        excess = np.maximum(lower - positions, positions - upper).max(axis=0)
        worst = int(excess.argmax())
        joint = arm.joints[worst]
        seen = f"'{joint.name}' between {positions[:, worst].min():.3f} and {positions[:, worst].max():.3f}"
        expected = f"'{joint.name}' within [{joint.lower}, {joint.upper}]"
        yield Finding(arm.joint_states, excess[worst] <= _LIMIT_SLACK, expected, seen)


@check("joint_states")
def joint_state_rate(session: Session) -> Iterator[Finding]:
    """Joint states come at least at the rig file's rate."""
    for arm, states in _arms(session):
        yield rate(arm.joint_states, [s.stamp_ns for s in states], arm.state_rate_hz, session.settings, at_most=False)


@check("joint_states")
def joint_state_jitter(session: Session) -> Iterator[Finding]:
    """Joint states come evenly."""
    for arm, states in _arms(session):
        yield jitter(arm.joint_states, [s.stamp_ns for s in states], arm.state_rate_hz, session.settings)


@check("joint_states")
def joint_state_stamps_increase(session: Session) -> Iterator[Finding]:
    """No joint state is stamped at or before the one before it."""
    for arm, states in _arms(session):
        yield increasing(arm.joint_states, [s.stamp_ns for s in states])


@check("joint_states")
def joint_state_stamps_are_now(session: Session) -> Iterator[Finding]:
    """Joint states are stamped when they were read, on the clock that their users have."""
    for arm, states in _arms(session):
        yield ages(arm.joint_states, [(s.stamp_ns, s.received_ns) for s in states], session)


@check("joint_states")
def diagnostics_come(session: Session) -> Iterator[Finding]:
    """Diagnostics come at least every two seconds, each with a name."""
    topic, statuses = session.rig.topics.diagnostics, session.recording.statuses
    least = max(1, int(session.settings.window_s / 2))
    unnamed = sum(not s.name for s in statuses)
    seen = f"{len(statuses)} in {session.settings.window_s:g} s, {unnamed} without a name"
    yield Finding(topic, len(statuses) >= least and not unnamed, f"at least {least} statuses, each named", seen)


@check("joint_states")
def diagnostics_are_well(session: Session) -> Iterator[Finding]:
    """Nothing reports an error while the rig stands still."""
    topic, statuses = session.rig.topics.diagnostics, session.recording.statuses
    bad = sorted({s.name for s in statuses if s.level >= _ERROR})
    text = f"errors of {bad}" if bad else f"{len(statuses)} statuses without an error"
    yield Finding(topic, bool(statuses) and not bad, "no status of level ERROR or STALE", text)
