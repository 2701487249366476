"""Messages of a rig as values aligned in time: one code path for bags and for live topics. No ROS.

Decoded messages go in by topic, in whatever order they come; frames come out by stamp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_rig.codecs import (
    NS_PER_S,
    Chunk,
    CodecError,
    image_to_array,
    joint_state_to_sample,
    stamp_to_ns,
    trajectory_to_chunk,
)
from hiwm_rig.commands import interpolate
from hiwm_rig.contract import Arm, Camera, Rig
from hiwm_rig.streams import StreamBuffer
from hiwm_rig.types import Image

_TOLERANCE_PERIODS = 0.5


@dataclass(frozen=True)
class Event:
    """One ``EpisodeEvent``; ``type`` and ``outcome`` hold its constants."""

    stamp_ns: int
    type: int
    episode_id: str
    task: str
    branch_id: int
    parent_id: int
    snapshot_id: int
    outcome: int


@dataclass(frozen=True)
class Control:
    """Who drove, and (D,) what the policy proposed (None without a proposal)."""

    driver: int
    policy_action: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class World:
    """What a world rig said about a frame."""

    episode_id: str
    step: int
    branch_id: int
    trust: float
    snapshot_id: int


@dataclass(frozen=True)
class AlignedFrame:
    """What the rig showed at one stamp.

    Attributes:
        stamp_ns: header stamp of the reference camera.
        images: by camera; pixels, or what ``store_image`` made of them.
        joints: (D,) positions in the rig's order, rad or m.
        world: of a world rig, else None.
    """

    stamp_ns: int
    images: dict[str, Any]
    joints: npt.NDArray[np.float64]
    world: World | None


class RigStreams:
    """Buffers the topics of a rig.

    Args:
        rig: names topics, joints and cameras.
        depth: samples kept per topic (live); None keeps all (bags).
        store_image: called with each camera name and (H, W, 3) uint8 image; what it returns is kept in its place.
    """

    def __init__(
        self, rig: Rig, depth: int | None = None, store_image: Callable[[str, Image], Any] | None = None
    ) -> None:
        self.rig = rig
        self.events: list[Event] = []
        self.received: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        """Why the first rejected message of a topic was rejected."""
        self.backwards: Counter[str] = Counter()
        """Samples of a camera or an arm whose stamp lies before that of an earlier one; they are sorted in."""
        self.repeated: Counter[str] = Counter()
        """Samples with the stamp of the newest one, which they replace."""
        self._newest: dict[str, int] = {}
        self._store = store_image or (lambda _, image: image)
        self._tolerance_ns = round(_TOLERANCE_PERIODS * rig.period_s * NS_PER_S)
        cameras, arms, topics = rig.cameras, rig.arms, rig.topics
        self._shown = StreamBuffer([c.image_topic for c in cameras] + [a.joint_states for a in arms], depth)
        held = [a.command for a in arms] + [topics.control_state]
        self._said = StreamBuffer([*held, topics.world_state], depth, hold=held)
        self._handlers: dict[str, Callable[[Any, int], None]] = {c.image_topic: self._image(c) for c in cameras}
        self._handlers |= {a.joint_states: self._joints(a) for a in arms}
        self._handlers |= {a.command: self._command(a) for a in arms}
        self._handlers |= {
            topics.control_state: self._control,
            topics.world_state: self._world,
            topics.episode: self._event,
        }

    @property
    def topics(self) -> list[str]:
        """Topics that :meth:`push` understands."""
        return list(self._handlers)

    @property
    def required(self) -> list[str]:
        """Topics without which there are no frames or no actions."""
        rig = self.rig
        return [c.image_topic for c in rig.cameras] + [t for a in rig.arms for t in (a.joint_states, a.command)]

    def push(self, topic: str, message: Any, received_ns: int) -> None:
        """Take one message; one that does not hold what it should is counted in ``rejected`` by topic."""
        self.received[topic] += 1
        try:
            self._handlers[topic](message, received_ns)
        except CodecError as error:
            self.rejected[topic] += 1
            self.reasons.setdefault(topic, str(error))

    def stamps(self) -> tuple[int, ...]:
        """Stamps of the reference camera (the rig's first), ascending."""
        return self._shown.stamps(self.rig.cameras[0].image_topic)

    def frame(self, stamp_ns: int) -> AlignedFrame | None:
        """What the rig showed at a stamp; None where a camera or an arm has nothing within half a period."""
        values = self._shown.aligned(stamp_ns, self._tolerance_ns)
        if values is None:
            return None
        images = {c.name: values[c.image_topic] for c in self.rig.cameras}
        joints = np.concatenate([values[a.joint_states] for a in self.rig.arms])
        return AlignedFrame(stamp_ns, images, joints, self._said.at(self.rig.topics.world_state, stamp_ns, 0))

    def missing(self, stamp_ns: int) -> list[str]:
        """Cameras and arms, by topic, that have nothing within half a period of a stamp."""
        topics = [t for t in self.required if t in self._shown.sizes()]
        return [t for t in topics if self._shown.at(t, stamp_ns, self._tolerance_ns) is None]

    def command(self, before_ns: int, since_ns: int = 0) -> npt.NDArray[np.float64] | None:
        """(D,) targets in force when the rig steps at ``before_ns``: the last command stamped before it.

        None where an arm has no command since ``since_ns`` (a jump, after which a rig forgets older commands).
        """
        parts = []
        for arm in self.rig.arms:
            chunk: Chunk | None = self._said.at(arm.command, before_ns - 1)
            if chunk is None or chunk.stamp_ns < since_ns:
                return None
            parts.append(chunk.positions[0] if len(chunk.positions) == 1 else interpolate(chunk, before_ns))
        return np.concatenate(parts)

    def control(self, before_ns: int) -> Control | None:
        """The arbiter's last state before a time; None where there is none."""
        return self._said.at(self.rig.topics.control_state, before_ns - 1)

    def _image(self, camera: Camera) -> Callable[[Any, int], None]:
        def push(message: Any, _: int) -> None:
            image = image_to_array(message)
            if image.shape[:2] != (camera.height, camera.width):
                size = f"{image.shape[1]}x{image.shape[0]}"
                raise CodecError(f"image is {size}, the rig file says {camera.width}x{camera.height}")
            self._show(camera.image_topic, stamp_to_ns(message.header.stamp), self._store(camera.name, image))

        return push

    def _joints(self, arm: Arm) -> Callable[[Any, int], None]:
        def push(message: Any, _: int) -> None:
            sample = joint_state_to_sample(message, arm.joint_names)
            self._show(arm.joint_states, sample.stamp_ns, sample.positions)

        return push

    def _show(self, topic: str, stamp_ns: int, value: Any) -> None:
        newest = self._newest.get(topic, stamp_ns - 1)
        self.backwards[topic] += stamp_ns < newest
        self.repeated[topic] += stamp_ns == newest
        self._newest[topic] = max(newest, stamp_ns)
        self._shown.push(topic, stamp_ns, value)

    def _command(self, arm: Arm) -> Callable[[Any, int], None]:
        def push(message: Any, received_ns: int) -> None:
            chunk = trajectory_to_chunk(message, arm.joint_names)
            if not np.isfinite(chunk.positions).all():
                raise CodecError("a rig rejects targets that are not finite")
            stamp = chunk.stamp_ns or received_ns
            self._said.push(arm.command, stamp, Chunk(stamp, chunk.offsets_s, chunk.positions))

        return push

    def _control(self, message: Any, _: int) -> None:
        proposal = None
        if len(message.policy_action):
            by_name = dict(zip(message.joint_names, message.policy_action, strict=False))
            missing = [n for n in self.rig.joint_names if n not in by_name]
            if missing:
                raise CodecError(f"ControlState lacks joints {missing}")
            proposal = np.array([by_name[n] for n in self.rig.joint_names], dtype=np.float64)
        value = Control(int(message.driver), proposal)
        self._said.push(self.rig.topics.control_state, stamp_to_ns(message.header.stamp), value)

    def _world(self, message: Any, _: int) -> None:
        value = World(
            str(message.episode_id),
            int(message.step),
            int(message.branch_id),
            float(message.trust),
            int(message.snapshot_id),
        )
        self._said.push(self.rig.topics.world_state, stamp_to_ns(message.header.stamp), value)

    def _event(self, message: Any, _: int) -> None:
        event = Event(
            stamp_ns=stamp_to_ns(message.header.stamp),
            type=int(message.type),
            episode_id=str(message.episode_id),
            task=str(message.task),
            branch_id=int(message.branch_id),
            parent_id=int(message.parent_branch_id),
            snapshot_id=int(message.snapshot_id),
            outcome=int(message.outcome),
        )
        # A latched event reaches a recorder again when its publisher is discovered twice.
        if event not in self.events:
            self.events.append(event)
            self.events.sort(key=lambda e: e.stamp_ns)
