"""What a check is, and the table of all of them. No ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hiwm_rig.conformance.session import Session


class Need(StrEnum):
    """What a check needs beyond a running rig; without it the check is skipped, and the report says so."""

    RESTART = "restart"


class CannotMeasureError(RuntimeError):
    """A check could not be carried out on this rig; it fails, and the text is what was seen.

    Args:
        topic: topic or service that it speaks of.
        seen: what there was instead.
    """

    def __init__(self, topic: str, seen: str) -> None:
        super().__init__(seen)
        self.topic = topic


@dataclass(frozen=True)
class Finding:
    """One look at one topic.

    Attributes:
        topic: topic (or service) that was looked at.
        passed: whether it was as it should be.
        expected: in words, with numbers and units.
        seen: the same for what there was.
    """

    topic: str
    passed: bool
    expected: str
    seen: str


@dataclass(frozen=True)
class Check:
    """One named check.

    Attributes:
        name: unique; the function's name.
        group: section of the report.
        about: one line, the function's docstring.
        run: looks at the rig; yields one finding per topic, camera or arm. The check passes if there is at least one
            finding and all of them passed.
        needs: see :class:`Need`.
    """

    name: str
    group: str
    about: str
    run: Callable[[Session], Iterable[Finding]]
    needs: frozenset[Need] = frozenset()


_CHECKS: dict[str, Check] = {}

CheckFunction = Callable[["Session"], Iterator[Finding]]


def check(group: str, *needs: Need) -> Callable[[CheckFunction], CheckFunction]:
    """Register a function as a check; checks run in the order in which they were registered.

    Raises:
        ValueError: a second check of that name, or one without a docstring.
    """

    def register(function: CheckFunction) -> CheckFunction:
        name = function.__name__
        if name in _CHECKS:
            raise ValueError(f"there is already a check '{name}'")
        if not function.__doc__:
            raise ValueError(f"check '{name}' needs a docstring: it is the line users read")
        about = function.__doc__.strip().splitlines()[0]
        _CHECKS[name] = Check(name, group, about, function, frozenset(needs))
        return function

    return register


def all_checks() -> tuple[Check, ...]:
    """Every check, in order."""
    from hiwm_rig.conformance import checks  # noqa: F401  # registers them

    return tuple(_CHECKS.values())


def select(names: Iterable[str]) -> tuple[Check, ...]:
    """The checks of these names (or of these groups); all of them where there are no names.

    Raises:
        KeyError: an unknown name; the text lists what there is.
    """
    wanted = set(names)
    known = all_checks()
    unknown = wanted - {c.name for c in known} - {c.group for c in known}
    if unknown:
        have = ", ".join([*sorted({c.group for c in known}), *(c.name for c in known)])
        raise KeyError(f"no check or group {sorted(unknown)}; there are {have}")
    return tuple(c for c in known if not wanted or c.name in wanted or c.group in wanted)
