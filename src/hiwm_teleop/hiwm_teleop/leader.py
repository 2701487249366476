"""The leader arm: mirrors the follower while it is not held, is free while a person drives. No ROS, no thread.

An actuated leader follows the follower with limited current, slowly, so that a takeover finds it aligned and a hand
always wins. A passive one never has torque; the arbiter's ramp or clutch aligns it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.commands import Rejection, limit_velocity, validate_positions
from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import Bus, Present
from hiwm_rig.dynamixel.configure import configure
from hiwm_rig.dynamixel.control_table import OperatingMode
from hiwm_rig.dynamixel.motor_map import MotorMap
from hiwm_rig.hardware import LeaderBus
from hiwm_rig.types import Driver, FloatArray

from hiwm_teleop.lever import Lever

_STALE_NS = NS_PER_S // 2
"""A mirror target or control state older than this is nobody's: the leader lets go."""


class LeaderMode(StrEnum):
    """What its servos do."""

    FREE = "free"
    HELPS = "helps against friction and weight"
    MIRRORS = "mirrors the follower"


@dataclass(frozen=True)
class LeaderSample:
    """What the leader reports.

    Attributes:
        stamp_ns: when it was read, of the node's clock.
        positions: (D,) in the follower's joints, rad or m, inside their limits.
        velocities: (D,) rad/s or m/s.
        pulled: whether the gripper lever has just been pulled away from where the mirror holds it.
    """

    stamp_ns: int
    positions: FloatArray
    velocities: FloatArray
    pulled: bool


class Leader:
    """A :class:`~hiwm_rig.dynamixel.servo_loop.Part`.

    Args:
        arm: of the rig file.
        config: the leader's servos.
        clock: the node's clock in ns.
        on_sample: called in the loop's thread after each reading; must return at once.

    Raises:
        CalibrationError: the rig file does not say where the leader's zeros are.
    """

    def __init__(
        self, arm: Arm, config: LeaderBus, clock: Callable[[], int], on_sample: Callable[[LeaderSample], None]
    ) -> None:
        self.map = MotorMap(config.motors, arm.joints)
        self.mode = LeaderMode.FREE
        self._config = config
        self._joints = arm.joints
        self._clock = clock
        self._on_sample = on_sample
        slope = np.abs(self.map.velocities(np.ones(len(config.motors)))) / table.VELOCITY_UNIT
        self._max_velocity = config.mirror_velocity * slope  # in the follower's units
        self._has_lever = arm.joints[-1].type == "prismatic"  # the gripper comes last, where there is one
        self._lever = Lever(arm.joints[-1], config.rate_hz)
        # Written by the node's thread, read by the loop's: each is replaced as a whole.
        self._driver: tuple[Driver, int] = (Driver.PAUSED, 0)
        self._target: tuple[FloatArray, int] | None = None
        self._goal: FloatArray = np.array(arm.home)
        self._entering = LeaderMode.FREE
        self._to_switch: list[tuple[int, int]] = []

    # -- the node's thread --------------------------------------------------------------------------------------

    def on_driver(self, driver: Driver) -> None:
        """Who drives the follower."""
        self._driver = (driver, self._clock())

    def on_mirror(self, positions: FloatArray) -> Rejection | None:
        """Take (D,) where the follower is sent: where the leader should be; why it cannot be used, or None."""
        rejection = validate_positions(positions, self._joints)
        if rejection is None:
            self._target = (np.clip(positions, self.map.lower, self.map.upper), self._clock())
        return rejection

    # -- the loop's thread --------------------------------------------------------------------------------------

    def attach(self, bus: Bus) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`."""
        self.let_go(bus)
        mode = OperatingMode.CURRENT_BASED_POSITION if self._config.actuated else OperatingMode.POSITION
        configure(bus, mode, {table.PROFILE_VELOCITY: [0] * len(bus.ids)})

    def step(self, bus: Bus, present: Present, dt_s: float) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`."""
        now_ns = self._clock()
        target = self._mirror_target(now_ns)
        wanted = self._wanted(target, now_ns)
        pulled = False
        if wanted is LeaderMode.FREE:
            self.let_go(bus)
        elif wanted is not self.mode or self._to_switch:
            self._enter(bus, present, wanted)
        elif wanted is LeaderMode.HELPS:
            bus.write_all(table.GOAL_POSITION, present.position)
        elif target is not None:
            self._goal = limit_velocity(self._goal, target, self._max_velocity, dt_s)
            lever = float(self.map.joints(present.position)[-1])
            pulled = self._has_lever and self._lever.pulled(lever, float(self._goal[-1]))
            bus.write_all(table.GOAL_POSITION, self.map.ticks(self._goal))
        self._report(present, now_ns, pulled)

    def hold(self, bus: Bus, present: Present, resume: bool) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`. A leader lets go: a hand may be holding it."""
        self.let_go(bus)
        self._report(present, self._clock(), pulled=False)

    def let_go(self, bus: Bus) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`. In every cycle: no servo says whether it has heard."""
        bus.write_all(table.TORQUE_ENABLE, [0] * len(bus.ids))
        self.mode = LeaderMode.FREE
        self._to_switch = []

    def _mirror_target(self, now_ns: int) -> FloatArray | None:
        if self._target is None or now_ns - self._target[1] > _STALE_NS:
            return None
        return self._target[0]

    def _wanted(self, target: FloatArray | None, now_ns: int) -> LeaderMode:
        driver, since_ns = self._driver
        if not self._config.actuated or now_ns - since_ns > _STALE_NS:
            return LeaderMode.FREE
        if driver in (Driver.POLICY, Driver.PAUSED) and target is not None:
            return LeaderMode.MIRRORS
        person = driver in (Driver.HUMAN, Driver.ALIGNING)
        return LeaderMode.HELPS if person and self._config.help_current_ma > 0 else LeaderMode.FREE

    def _enter(self, bus: Bus, present: Present, mode: LeaderMode) -> None:
        """Switch the torque of the next servo on, with this mode's current; in the mode once all have it.

        One servo in a cycle, so that the samples go on. A servo gets torque only after it has acknowledged its current:
        without that it would pull with all it has at an arm that somebody may be holding.
        """
        if self._entering is not mode or not self._to_switch:
            current = self._config.mirror_current_ma if mode is LeaderMode.MIRRORS else self._config.help_current_ma
            self._entering = mode
            self._to_switch = list(zip(bus.ids, self.map.current_units(current).tolist(), strict=True))
        bus.write_all(table.GOAL_POSITION, present.position)  # no jump when the torque comes on
        servo, units = self._to_switch[0]
        bus.write(servo, table.GOAL_CURRENT, units)
        bus.write(servo, table.TORQUE_ENABLE, 1)
        del self._to_switch[0]  # an error on the way here: the next cycle tries it again
        if not self._to_switch:
            self._goal = self.map.joints(present.position)
            self._lever.reset()
            self.mode = mode

    def _report(self, present: Present, now_ns: int, pulled: bool) -> None:
        positions = np.clip(self.map.joints(present.position), self.map.lower, self.map.upper)
        self._on_sample(LeaderSample(now_ns, positions, self.map.velocities(present.velocity), pulled))
