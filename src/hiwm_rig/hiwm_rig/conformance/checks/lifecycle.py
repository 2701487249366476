"""Reset, a restart under running users, and what has to hold over the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hiwm_rig.conformance.arm import ArmProbe
from hiwm_rig.conformance.evidence import in_order
from hiwm_rig.conformance.registry import CannotMeasureError, Finding, Need, check
from hiwm_rig.conformance.session import Session

RESET = "/hiwm/reset"
_SEED = 7
_SLACK = 0.02


def _reset(session: Session, seed: int = _SEED, source: str = "") -> Any:
    """The answer to a reset.

    Raises:
        CannotMeasureError: nobody answered.
    """
    from hiwm_msgs.srv import Reset

    answer = session.user.call(Reset, RESET, Reset.Request(source=source, seed=seed), session.settings.reset_s)
    if answer is None:
        raise CannotMeasureError(RESET, f"no answer within {session.settings.reset_s:g} s")
    return answer


def _rest_after_reset(arm: ArmProbe) -> np.ndarray:
    """(D,) where the arm has come to rest; a robot may drive there slowly, after the answer."""
    arm.user.spin_for(2 * arm.period_s)
    arm.position()  # what was sent before the answer has been read then
    return arm.settle()


@check("lifecycle")
def reset_succeeds(session: Session) -> Iterator[Finding]:
    """The reset service answers, and leaves the arm at rest inside its limits."""
    answer = _reset(session)
    yield Finding(RESET, bool(answer.success), "success", f"success {answer.success}: {answer.message}")
    for arm in session.arms:
        position = _rest_after_reset(arm)
        lower, upper = np.array([[j.lower, j.upper] for j in arm.arm.joints]).T
        inside = bool(((position >= lower - _SLACK) & (position <= upper + _SLACK)).all())
        seen = f"at {position.round(3).tolist()}"
        yield Finding(arm.arm.joint_states, inside, "at rest inside its limits", seen)


@check("lifecycle")
def reset_refuses_an_unknown_source(session: Session) -> Iterator[Finding]:
    """A reset that cannot be served says so and why, and changes nothing."""
    answer = _reset(session, source="no_such_source")
    passed = not answer.success and bool(answer.message)
    seen = f"success {answer.success}, message '{answer.message}'"
    yield Finding(RESET, passed, "success false, with a message", seen)


@check("lifecycle")
def reset_is_repeatable(session: Session) -> Iterator[Finding]:
    """The same seed leads to the same position of the arm, wherever it was before."""
    _reset(session)
    first = [_rest_after_reset(arm) for arm in session.arms]
    for arm in session.arms:
        arm.go(arm.target(1))
    _reset(session)
    for arm, expected in zip(session.arms, first, strict=True):
        off = np.abs(_rest_after_reset(arm) - expected) / arm.still
        i = int(off.argmax())
        seen = f"'{arm.arm.joints[i].name}' is {off[i] * arm.still[i]:.4f} away"
        yield Finding(RESET, bool(off[i] <= 2), "the same position as after the first reset of that seed", seen)


@check("lifecycle")
def reset_forgets_the_command(session: Session) -> Iterator[Finding]:
    """A chunk that ran when the reset came is not continued after it."""
    _reset(session)
    starts = [_rest_after_reset(arm) for arm in session.arms]
    for arm, start in zip(session.arms, starts, strict=True):
        arm.ramp(arm.target(-1), 2 * session.settings.chunk_s)
        session.user.spin_for(2 * arm.period_s)
        _reset(session)
        _rest_after_reset(arm)
        track = arm.watch(2 * session.settings.chunk_s)
        off = float(np.abs(track.positions[:, arm.joint] - start[arm.joint]).max())
        seen = f"'{arm.joint_name}' up to {off:.3f} away"
        yield Finding(arm.topic, off <= 3 * arm.still[arm.joint], "where the reset led, until the chunk is over", seen)


@check("lifecycle", Need.RESTART)
def restart_is_seen_by_running_users(session: Session) -> Iterator[Finding]:
    """After the rig restarts, users that stayed see its topics again."""
    seen = session.restarted
    expected = f"back within {session.settings.start_s:g} s"
    topics = [c.image_topic for c in session.rig.cameras] + [a.joint_states for a in session.rig.arms]
    for topic in topics:
        back = topic in seen.after
        yield Finding(topic, back, expected, f"back after {seen.seconds:.1f} s" if back else "not back")


@check("lifecycle", Need.RESTART)
def restart_keeps_stamps_increasing(session: Session) -> Iterator[Finding]:
    """Stamps after a restart are later than those before it."""
    seen = session.restarted
    for topic, before in seen.before.items():
        step = (seen.after[topic] - before) / 1e9 if topic in seen.after else float("nan")
        yield Finding(topic, step > 0, "the first stamp after it later than the last before", f"{step:+.3f} s")


@check("lifecycle", Need.RESTART)
def restart_obeys_running_users(session: Session) -> Iterator[Finding]:
    """After the rig restarts, a commander that stayed is obeyed."""
    session.restarted  # noqa: B018  # done once for all three checks
    for arm in session.arms:
        first = arm.settle()
        target = first.copy()
        target[arm.joint] += arm.reach if first[arm.joint] < arm.arm.joints[arm.joint].upper - arm.reach else -arm.reach

        def obeyed(arm: ArmProbe = arm, target: np.ndarray = target) -> bool:
            arm.stream([target], 2 * arm.period_s)
            position = in_order(arm.states()[-1], arm.arm.joint_names) if arm.states() else None
            return position is not None and abs(position[arm.joint] - target[arm.joint]) <= 0.2 * arm.reach

        passed = session.user.spin_until(obeyed, session.settings.settle_s)
        expected = f"'{arm.joint_name}' at {target[arm.joint]:.3f} within {session.settings.settle_s:g} s"
        yield Finding(arm.topic, passed, expected, f"at {arm.position()[arm.joint]:.3f}")


@check("lifecycle")
def limits_kept_throughout(session: Session) -> Iterator[Finding]:
    """Over all of the run no joint was outside its limits."""
    recorded = session.recording.states  # where nothing has moved, this much has been watched
    for i, arm in enumerate(session.rig.arms):
        worst, who = session.user.excess(i)
        expected = f"every joint within its limits, {_SLACK:g} of overshoot at most"
        seen = f"'{who}' {worst:.3f} outside" if worst > 0 else "inside" if recorded[i] else "no joint state"
        yield Finding(arm.joint_states, worst <= _SLACK and bool(recorded[i]), expected, seen)
