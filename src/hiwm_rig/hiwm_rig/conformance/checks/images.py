"""Images of a rig at rest: what they hold, and when they come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.conformance.checks.streams import ages, increasing, jitter, rate
from hiwm_rig.conformance.evidence import Frame
from hiwm_rig.conformance.registry import Finding, check
from hiwm_rig.conformance.session import Session
from hiwm_rig.contract import Camera

_MIN_CONTRAST = 8
_CHANNELS = 3


def cameras(session: Session, expected: str) -> Iterator[tuple[Camera, list[Frame], Finding | None]]:
    """Each camera with its frames; with a finding where there are none."""
    for camera in session.rig.cameras:
        frames = session.recording.frames[camera.name]
        silent = f"no image within {session.settings.window_s:g} s"
        yield camera, frames, None if frames else Finding(camera.image_topic, False, expected, silent)


def _all_frames(session: Session, attribute: str, wanted: str) -> Iterator[Finding]:
    """One attribute of every frame against the same attribute of the rig file's camera."""
    for camera, frames, silent in cameras(session, wanted):
        if silent:
            yield silent
            continue
        expected = getattr(camera, attribute)
        seen = sorted({getattr(f, attribute) for f in frames})
        yield Finding(camera.image_topic, seen == [expected], f"{wanted} {expected}", f"{wanted} {seen}")


@check("images")
def image_encoding(session: Session) -> Iterator[Finding]:
    """Pixels are encoded as the rig file says."""
    yield from _all_frames(session, "encoding", "encoding")


@check("images")
def image_frame_id(session: Session) -> Iterator[Finding]:
    """Images carry the optical frame id that realsense2_camera uses."""
    yield from _all_frames(session, "frame_id", "frame_id")


@check("images")
def image_size(session: Session) -> Iterator[Finding]:
    """Width and height are those of the rig file."""
    for camera, frames, silent in cameras(session, "width x height"):
        expected = (camera.width, camera.height)
        seen = sorted({(f.width, f.height) for f in frames})
        text = ", ".join(f"{w}x{h}" for w, h in seen)
        yield silent or Finding(camera.image_topic, seen == [expected], f"{expected[0]}x{expected[1]}", text)


@check("images")
def image_bytes(session: Session) -> Iterator[Finding]:
    """Rows and bytes fit width, height and encoding, without padding."""
    for camera, frames, silent in cameras(session, "step = 3 width, 3 width height bytes"):
        if silent:
            yield silent
            continue
        bad = [f for f in frames if f.step != _CHANNELS * f.width or f.size != f.step * f.height or f.bigendian]
        shown = (bad or frames)[0]
        row = _CHANNELS * shown.width
        expected = f"step {row}, {row * shown.height} bytes, little endian"
        endian = "big" if shown.bigendian else "little"
        seen = f"step {shown.step}, {shown.size} bytes, {endian} endian"
        yield Finding(camera.image_topic, not bad, expected, seen)


@check("images")
def image_shows_something(session: Session) -> Iterator[Finding]:
    """Images are not blank: a lens cap, a dead sensor, a renderer without light."""
    for camera, frames, silent in cameras(session, "contrast"):
        least = min((f.contrast for f in frames), default=0)
        expected = f"brightest less darkest sample >= {_MIN_CONTRAST} of 255"
        yield silent or Finding(camera.image_topic, least >= _MIN_CONTRAST, expected, f"{least}")


@check("images")
def image_rate(session: Session) -> Iterator[Finding]:
    """Images come at the rig file's rate."""
    for camera in session.rig.cameras:
        stamps = [f.stamp_ns for f in session.recording.frames[camera.name]]
        yield rate(camera.image_topic, stamps, camera.rate_hz, session.settings, at_most=True)


@check("images")
def image_jitter(session: Session) -> Iterator[Finding]:
    """Images come evenly."""
    for camera in session.rig.cameras:
        stamps = [f.stamp_ns for f in session.recording.frames[camera.name]]
        yield jitter(camera.image_topic, stamps, camera.rate_hz, session.settings)


@check("images")
def image_stamps_increase(session: Session) -> Iterator[Finding]:
    """No image is stamped at or before the one before it."""
    for camera in session.rig.cameras:
        yield increasing(camera.image_topic, [f.stamp_ns for f in session.recording.frames[camera.name]])


@check("images")
def image_stamps_are_now(session: Session) -> Iterator[Finding]:
    """Images are stamped when they were taken, on the clock that their users have."""
    for camera in session.rig.cameras:
        frames = session.recording.frames[camera.name]
        yield ages(camera.image_topic, [(f.stamp_ns, f.received_ns) for f in frames], session)


@check("images")
def images_and_joint_states_pair(session: Session) -> Iterator[Finding]:
    """For each image there is a joint state of each arm that belongs to it."""
    for camera in session.rig.cameras:
        stamps = np.array([f.stamp_ns for f in session.recording.frames[camera.name]][1:-1])
        for arm, states in zip(session.rig.arms, session.recording.states, strict=True):
            known = np.array([s.stamp_ns for s in states])
            limit = 0.6 / arm.state_rate_hz
            expected = f"a state of {arm.joint_states} within {1e3 * limit:.0f} ms of 95 % of the images"
            if not stamps.size or not known.size:
                seen = f"{stamps.size} images, {known.size} joint states"
                yield Finding(camera.image_topic, False, expected, seen)
                continue
            gaps = np.abs(stamps[:, None] - known[None]).min(axis=1) / NS_PER_S
            worst = float(np.percentile(gaps, 95))
            yield Finding(camera.image_topic, worst <= limit, expected, f"within {1e3 * worst:.1f} ms")
