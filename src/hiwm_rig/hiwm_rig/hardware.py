"""The section ``hardware`` of an arm in a rig file: which servos move it, and which leader arm commands it.

Pure data: no ROS, no numpy. Rig files without it describe rigs that need no drivers (a simulator, a world model).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hiwm_rig.dynamixel.control_table import BAUD_RATES, MAX_ID, MODELS, WATCHDOG_MAX, WATCHDOG_UNIT_S

EMULATED = "emulated"
"""Port of an arm that an emulator stands in for."""
Positive = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Motor(_Frozen):
    """One servo and how its ticks become a joint position.

    ``position = direction * (ticks - homing_offset) * (2 pi / 4096) * ratio``
    """

    joint: str = Field(min_length=1, description="joint of the follower arm that it moves or commands")
    id: int = Field(ge=0, le=MAX_ID)
    model: str
    direction: Literal[1, -1] = 1
    homing_offset: int | None = Field(default=None, description="ticks at which it reads zero; empty: not calibrated")
    ratio: float = Field(default=1.0, description="joint units per rad of the servo: 1, or m/rad of a gripper")
    limits: tuple[int, int] | None = Field(default=None, description="ticks between which it may move")

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if model not in MODELS:
            raise ValueError(f"unknown servo model '{model}'; known are {', '.join(MODELS)}")
        return model

    @model_validator(mode="after")
    def _usable(self) -> Motor:
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(
                f"limits of servo {self.id} ('{self.joint}') are reversed: expected [low, high] in ticks, "
                f"got {list(self.limits)}"
            )
        if self.ratio == 0:
            raise ValueError(f"ratio of servo {self.id} ('{self.joint}') must not be 0")
        return self


class LeaderMotor(Motor):
    """One servo of a leader arm; ``follower = scale * leader + offset``."""

    scale: float = 1.0
    offset: float = Field(default=0.0, description="rad or m, in the follower joint's unit")
    range: tuple[float, float] | None = Field(
        default=None,
        description="leader positions that stand for the follower joint's lower and upper limit; instead of scale "
        "and offset, for grippers",
    )

    @model_validator(mode="after")
    def _mapped(self) -> LeaderMotor:
        if self.scale == 0:
            raise ValueError(f"scale of leader servo {self.id} ('{self.joint}') must not be 0")
        if self.range is not None and self.range[0] == self.range[1]:
            raise ValueError(f"range of leader servo {self.id} ('{self.joint}') is empty: {list(self.range)}")
        return self

    def map_to(self, lower: float, upper: float) -> tuple[float, float]:
        """(scale, offset) of ``follower = scale * leader + offset`` for a follower joint with these limits."""
        if self.range is None:
            return self.scale, self.offset
        scale = (upper - lower) / (self.range[1] - self.range[0])
        return scale, lower - scale * self.range[0]


class ServoBus(_Frozen):
    """A serial port with servos on it."""

    port: str = Field(default="", description="device, best a udev name that survives replugging")
    baud: int = 1_000_000
    rate_hz: Positive = Field(default=200.0, description="cycles of one read and one write")
    latency_ms: Positive = Field(default=16.0, description="latency timer of the USB adapter (FTDI: 16, or as set)")
    watchdog_s: Positive = Field(default=0.2, description="the servos stop after this long without the computer")

    @field_validator("baud")
    @classmethod
    def _known_baud(cls, baud: int) -> int:
        if baud not in BAUD_RATES:
            raise ValueError(f"the servos know the baud rates {list(BAUD_RATES)}, not {baud}")
        return baud

    @field_validator("watchdog_s")
    @classmethod
    def _watchdog_fits(cls, seconds: float) -> float:
        longest = WATCHDOG_MAX * WATCHDOG_UNIT_S
        if not WATCHDOG_UNIT_S <= seconds <= longest:
            raise ValueError(f"watchdog_s must be within [{WATCHDOG_UNIT_S}, {longest}], got {seconds}")
        return seconds


def _unique_ids(motors: tuple[Motor, ...]) -> None:
    ids = [m.id for m in motors]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise ValueError(f"servo ids must be unique on a bus; {twice} are used twice")


class FollowerBus(ServoBus):
    """The follower arm's servos, in the order of its joints."""

    ramp_s: Positive = Field(default=2.0, description="time over which the velocity limit grows after torque comes on")
    motors: tuple[Motor, ...] = Field(min_length=1)

    @field_validator("motors")
    @classmethod
    def _unique(cls, motors: tuple[Motor, ...]) -> tuple[Motor, ...]:
        _unique_ids(motors)
        return motors


class LeaderBus(ServoBus):
    """The leader arm's servos, in the order of the follower's joints."""

    actuated: bool = Field(default=True, description="mirrors the follower while a policy drives; false: no torque")
    mirror_current_ma: Positive = Field(default=250.0, description="largest current of a servo while mirroring")
    help_current_ma: float = Field(
        default=0.0, ge=0, description="current against friction and weight while a person drives; 0: torque off"
    )
    mirror_velocity: Positive = Field(default=1.5, description="rad/s, at most, while mirroring")
    motors: tuple[LeaderMotor, ...] = Field(min_length=1)

    @field_validator("motors")
    @classmethod
    def _unique(cls, motors: tuple[LeaderMotor, ...]) -> tuple[LeaderMotor, ...]:
        _unique_ids(motors)
        return motors

    @model_validator(mode="after")
    def _can_mirror(self) -> LeaderBus:
        weak = [m.joint for m in self.motors if self.actuated and MODELS[m.model].current_unit_ma == 0]
        if weak:
            raise ValueError(f"the servos of {weak} cannot limit their current: set actuated: false (a passive leader)")
        return self


class ArmHardware(_Frozen):
    """Servos of one arm and of its leader."""

    follower: FollowerBus
    leader: LeaderBus | None = None

    def check_joints(self, joints: tuple[str, ...]) -> None:
        """Compare with the arm's joints, in order.

        Raises:
            ValueError: naming the part and what was expected.
        """
        for part, bus in (("follower", self.follower), ("leader", self.leader)):
            if bus is not None and tuple(m.joint for m in bus.motors) != joints:
                raise ValueError(
                    f"hardware.{part}.motors must name the joints {list(joints)} in this order, "
                    f"got {[m.joint for m in bus.motors]}"
                )
