"""Every number of the Push-T task."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi, radians


@dataclass(frozen=True)
class TShape:
    """The T block: bar 4 x 1 units, stem 1 x 3 units, origin in the middle of the bar; metres and kilograms."""

    unit: float = 0.03
    height: float = 0.03
    mass: float = 0.12
    friction: float = 0.5


@dataclass(frozen=True)
class ToolShape:
    """The rod in the gripper, and the heights (of its tip) at which it works; metres."""

    radius: float = 0.009
    friction: float = 0.3
    push_height: float = 0.012
    travel_height: float = 0.05


@dataclass(frozen=True)
class DemonstratorConfig:
    """The scripted demonstrator. Deterministic, so that equal pictures get equal actions: easy to imitate.

    Attributes:
        contact_spacing: distance of candidate contact points along the outline, m.
        angles: candidate push directions relative to the inward normal, rad.
        standoff: gap between rod and T where a push starts, m.
        push_speed, travel_speed, lower_speed: m/s.
        push_time: longest push, s.
        time_weight: cost (m of mean corner error) per second spent, at large errors.
        coverage: what it works towards; well above what counts as success.
        hold_steps: steps it holds still at the ready pose, so that stopping can be learned.
        max_radius, min_radius: distances from the base between which the T is kept, m.
        rod_max_radius, rod_min_radius: the same for the rod.
    """

    contact_spacing: float = 0.015
    angles: tuple[float, ...] = (-0.35, 0.0, 0.35)
    standoff: float = 0.004
    push_speed: float = 0.10
    travel_speed: float = 0.25
    lower_speed: float = 0.25
    push_time: float = 1.6
    time_weight: float = 0.006
    coverage: float = 0.92
    hold_steps: int = 5
    max_radius: float = 0.44
    min_radius: float = 0.20
    rod_max_radius: float = 0.475
    rod_min_radius: float = 0.15


@dataclass(frozen=True)
class PushTConfig:
    """The whole task.

    Attributes:
        goal: x, y (m), yaw (rad) of the goal.
        start_distance: largest initial distance of the T from the goal, m.
        start_angle: largest initial rotation of the T from the goal, rad.
        start_max_coverage: initial states above it are redrawn.
        success_coverage: fraction of the goal the T must cover, with the tool retreated.
        clear_height: the tool counts as retreated above this tip height, m.
        rest_speed: the T counts as resting below this speed, m/s.
        max_steps: control steps in an episode.
    """

    goal: tuple[float, float, float] = (0.32, 0.0, pi / 4)
    start_distance: float = 0.07
    start_angle: float = radians(60.0)
    start_max_coverage: float = 0.6
    success_coverage: float = 0.80
    clear_height: float = 0.04
    rest_speed: float = 0.02
    max_steps: int = 150
    shape: TShape = field(default_factory=TShape)
    tool: ToolShape = field(default_factory=ToolShape)
    demonstrator: DemonstratorConfig = field(default_factory=DemonstratorConfig)
