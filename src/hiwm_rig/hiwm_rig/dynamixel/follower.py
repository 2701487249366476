"""The follower arm: obeys joint commands inside its limits, starts from where it is, can be stopped. No ROS, no thread.

Commands come from the node's thread, cycles from the loop's; one lock guards what they share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.commands import CommandReceiver, Rejection, limit_velocity
from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel import control_table as table
from hiwm_rig.dynamixel.bus import Bus, Present, WrongServoError
from hiwm_rig.dynamixel.configure import configure, switch_torque, write_where_different
from hiwm_rig.dynamixel.control_table import OperatingMode
from hiwm_rig.dynamixel.motor_map import CalibrationError, MotorMap, Ticks
from hiwm_rig.hardware import FollowerBus
from hiwm_rig.types import FloatArray

_FIRST_SHARE = 0.1
"""Share of the velocity limit right after the torque has come on; it grows to 1 over ``ramp_s``."""
_PROFILE_MARGIN = 1.2
"""The servos' own velocity limit over the joint's: a second fence, which the first one does not lean against."""
_SLACK_TICKS = 12
"""About one degree: an arm that stands this little outside its limits is taken for being on them."""


class FollowerMode(StrEnum):
    """What the follower does with commands."""

    OBEYS = "obeys"
    GOES_HOME = "on its way home"
    STOPPED = "emergency stop"
    LIMP = "torque off"


@dataclass(frozen=True)
class FollowerSample:
    """What the arm reports.

    Attributes:
        stamp_ns: when it was read, of the node's clock.
        positions: (D,) rad or m.
        velocities: (D,) rad/s or m/s.
        currents_ma: (D,).
    """

    stamp_ns: int
    positions: FloatArray
    velocities: FloatArray
    currents_ma: FloatArray


class Follower:
    """A :class:`~hiwm_rig.dynamixel.servo_loop.Part`.

    Args:
        arm: of the rig file.
        config: its servos.
        command_timeout_s: age above which a command is stale, and the arm holds.
        clock: the node's clock in ns: commands are stamped by it.
        on_sample: called in the loop's thread after each reading; must return at once.

    Raises:
        CalibrationError: the rig file does not say where the joints' zeros are, or its home is out of reach.
    """

    def __init__(
        self,
        arm: Arm,
        config: FollowerBus,
        command_timeout_s: float,
        clock: Callable[[], int],
        on_sample: Callable[[FollowerSample], None],
    ) -> None:
        self.map = MotorMap(config.motors, arm.joints)
        self._config = config
        self._clock = clock
        self._on_sample = on_sample
        self._lock = threading.Lock()
        self._receiver = CommandReceiver(arm.joints, np.array(arm.home), command_timeout_s)
        self._max_velocity = np.array([j.max_velocity for j in arm.joints])
        self._home = np.array(arm.home)
        self._check_home(arm)
        self._going_home = self._resume_home = False
        self._goal: FloatArray = np.array(arm.home)
        self._restart = self._holding = False
        self._since_start_s = 0.0
        self._torque = False
        self._want_torque = True
        self._stopped = False

    # -- the node's thread --------------------------------------------------------------------------------------

    @property
    def mode(self) -> FollowerMode:
        """What it does with commands."""
        if self._stopped:
            return FollowerMode.STOPPED
        if not self._want_torque:
            return FollowerMode.LIMP
        return FollowerMode.GOES_HOME if self._going_home else FollowerMode.OBEYS

    @property
    def torque(self) -> bool:
        """Whether the torque is on."""
        return self._torque

    def command(self, msg: Any, now_ns: int) -> Rejection | None:
        """Take a ``JointTrajectory``; why it was rejected, or None. On the way home it counts, but is not obeyed."""
        with self._lock:
            return self._receiver.offer_message(msg, now_ns)

    def counters(self) -> dict[str, int]:
        """Of commands, for diagnostics."""
        with self._lock:
            return dict(self._receiver.counters)

    def last_rejection(self) -> str:
        """Why the last rejected command was rejected."""
        with self._lock:
            rejection = self._receiver.last_rejection
        return rejection.message if rejection else ""

    def set_torque(self, on: bool) -> None:
        """Ask for torque on or off. Off means limp: the arm falls if nobody holds it."""
        self._want_torque = on

    def set_stopped(self, stopped: bool) -> None:
        """The emergency stop, latched: the arm holds where it is and obeys nothing until released."""
        with self._lock:
            self._stopped = stopped
            self._restart = True

    def go_home(self) -> bool:
        """Move to the rig file's home position, obeying nothing on the way; False while it is stopped or limp."""
        with self._lock:
            self._going_home = not self._stopped and self._torque
            return self._going_home

    # -- the loop's thread --------------------------------------------------------------------------------------

    def attach(self, bus: Bus) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`."""
        self._refuse_timed_profiles(bus)
        unit = np.abs(self.map.velocities(np.ones(len(bus.ids))))
        profile = np.ceil(_PROFILE_MARGIN * self._max_velocity / unit).astype(np.int64)
        settings = {
            table.PROFILE_VELOCITY: profile.tolist(),
            table.PROFILE_ACCELERATION: [0] * len(bus.ids),
        }
        configure(bus, OperatingMode.POSITION, settings)
        self._torque = False  # as far as known: the servos may be others, or have lost their power
        self._switch_torque(bus, bus.present())

    def step(self, bus: Bus, present: Present, dt_s: float) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`."""
        now_ns = self._clock()
        self._report(present, now_ns)
        if self._want_torque != self._torque:
            self._switch_torque(bus, present)
        if not self._torque:
            return
        with self._lock:
            if self._restart or self._holding:
                resume = self._resume_home
                self._begin_at(present)
                self._going_home = resume
            self._since_start_s += dt_s
            self._goal = self._next_goal(now_ns, dt_s)
        bus.write_all(table.GOAL_POSITION, self.map.ticks(self._goal))

    def hold(self, bus: Bus, present: Present, resume: bool) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`."""
        self._report(present, self._clock())
        if self._torque and not self._want_torque:
            self._switch_torque(bus, present)
        with self._lock:
            if not self._holding:
                resume_home = resume and self._going_home
                self._begin_at(present)
                self._holding, self._resume_home = True, resume_home
        if self._torque:
            bus.write_all(table.GOAL_POSITION, self.map.ticks(self._goal))

    def let_go(self, bus: Bus) -> None:
        """See :class:`~hiwm_rig.dynamixel.servo_loop.Part`."""
        if not self._want_torque:
            bus.write_all(table.TORQUE_ENABLE, [0] * len(bus.ids))

    def _switch_torque(self, bus: Bus, present: Present) -> None:
        on = self._want_torque
        with self._lock:
            self._begin_at(present)
        if on and not self._torque:
            for register, ticks in zip((table.MIN_POSITION, table.MAX_POSITION), self._fence(present), strict=True):
                write_where_different(bus, register, ticks.tolist())
        bus.write_all(table.GOAL_POSITION, self.map.ticks(self._goal))
        switch_torque(bus, on)
        self._torque = on

    def _fence(self, present: Present) -> tuple[Ticks, Ticks]:
        """The servos' own position limits: the joints', or where the arm stands outside them.

        A servo refuses goals beyond its limits, and would be drawn back at once where it is outside: the way back
        has to be open for the ramp.
        """
        lowest, highest = self.map.tick_limits()
        outside = (present.position < lowest - _SLACK_TICKS) | (present.position > highest + _SLACK_TICKS)
        stands = np.where(outside, np.clip(present.position, 0, table.TICKS_PER_TURN - 1), lowest)
        return np.minimum(lowest, stands), np.maximum(highest, stands)

    def _refuse_timed_profiles(self, bus: Bus) -> None:
        timed = [
            i for i, mode in zip(bus.ids, bus.read_all(table.DRIVE_MODE), strict=True) if mode & table.TIMED_PROFILE
        ]
        if timed:
            raise WrongServoError(
                f"servos {timed} are in drive mode 'time-based profile', which would take a velocity limit for "
                "milliseconds: set bit 2 of their Drive Mode to 0 (Dynamixel Wizard)"
            )

    def _check_home(self, arm: Arm) -> None:
        away = (self._home < self.map.lower) | (self._home > self.map.upper)
        if away.any():
            names = [name for name, out in zip(arm.joint_names, away, strict=True) if out]
            raise CalibrationError(
                f"the home position of {names} lies outside the limits of their servos: check home, homing_offset and "
                "limits in the rig file, or run 'hiwm calibrate' again"
            )

    def _report(self, present: Present, now_ns: int) -> None:
        self._on_sample(
            FollowerSample(
                now_ns,
                self.map.joints(present.position),
                self.map.velocities(present.velocity),
                self.map.currents_ma(present.current),
            )
        )

    def _begin_at(self, present: Present) -> None:
        """Forget every command (they were meant for an arm that was elsewhere) and start slowly from here."""
        here = self.map.joints(present.position)
        inside = np.clip(here, self.map.lower, self.map.upper)
        near = np.abs(self.map.ticks(here) - self.map.ticks(inside)) <= _SLACK_TICKS
        self._goal = np.where(near, inside, here)
        self._receiver.hold(inside)
        self._going_home = self._resume_home = self._restart = self._holding = False
        self._since_start_s = 0.0

    def _next_goal(self, now_ns: int, dt_s: float) -> FloatArray:
        if self._stopped:
            return self._goal
        target = self._receiver.target(now_ns + round(dt_s * NS_PER_S), now_ns)
        wanted = np.clip(target.positions, self.map.lower, self.map.upper)
        if self._going_home:
            wanted = self._home
            if np.allclose(self._goal, self._home):
                self._receiver.hold(self._goal)  # what was asked for meanwhile is not made up for
                self._going_home = False
        elif not target.fresh:
            return self._goal  # stays where it has been sent so far, also half-way to an old target
        share = min(1.0, _FIRST_SHARE + self._since_start_s / self._config.ramp_s)
        # An arm that stands outside its limits is brought in by the next command, as slowly as by any other.
        return limit_velocity(self._goal, wanted, share * self._max_velocity, dt_s)
