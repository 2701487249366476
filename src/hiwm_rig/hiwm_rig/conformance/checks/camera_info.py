"""``camera_info``: consistent with its image, and a camera that can exist (REP 104, sensor_msgs/CameraInfo)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hiwm_rig.conformance.evidence import Info
from hiwm_rig.conformance.registry import Finding, check
from hiwm_rig.conformance.session import Session
from hiwm_rig.contract import Camera

_PLUMB_BOB_COEFFICIENTS = 5
_TOLERANCE = 1e-6


def _each(session: Session, expected: str, judge: Callable[[Camera, Info], tuple[bool, str]]) -> Iterator[Finding]:
    """Judge the newest camera info of each camera."""
    for camera in session.rig.cameras:
        infos = session.recording.infos[camera.name]
        if not infos:
            silent = f"no camera_info within {session.settings.window_s:g} s"
            yield Finding(camera.info_topic, False, expected, silent)
            continue
        passed, seen = judge(camera, infos[-1])
        yield Finding(camera.info_topic, passed, expected, seen)


@check("camera_info")
def camera_info_size(session: Session) -> Iterator[Finding]:
    """The calibration is for images of this size."""

    def judge(camera: Camera, info: Info) -> tuple[bool, str]:
        return (info.width, info.height) == (camera.width, camera.height), f"{info.width}x{info.height}"

    yield from _each(session, "width and height of the image", judge)


@check("camera_info")
def camera_info_frame_id(session: Session) -> Iterator[Finding]:
    """The calibration is for the frame that images are in."""
    for camera in session.rig.cameras:
        images = sorted({f.frame_id for f in session.recording.frames[camera.name]})
        infos = sorted({i.frame_id for i in session.recording.infos[camera.name]})
        expected = f"frame_id as on the images, {camera.frame_id}"
        yield Finding(camera.info_topic, infos == [camera.frame_id], expected, f"infos {infos}, images {images}")


@check("camera_info")
def camera_info_for_each_image(session: Session) -> Iterator[Finding]:
    """Each image has a camera_info of the same stamp, as message_filters needs it."""
    for camera in session.rig.cameras:
        # The first and the last may have their partner outside the recording.
        images = [f.stamp_ns for f in session.recording.frames[camera.name]][1:-1]
        stamps = {i.stamp_ns for i in session.recording.infos[camera.name]}
        missing = sum(stamp not in stamps for stamp in images)
        seen = f"{missing} of {len(images)} images without one"
        # A subscriber of depth 2 may lose one of a pair while this process is busy.
        passed = bool(images) and missing <= 0.1 * len(images)
        yield Finding(camera.info_topic, passed, "a camera_info with the stamp of each image", seen)


@check("camera_info")
def camera_info_distortion(session: Session) -> Iterator[Finding]:
    """The distortion is plumb_bob with five finite coefficients."""

    def judge(camera: Camera, info: Info) -> tuple[bool, str]:
        good = info.model == "plumb_bob" and info.d.size == _PLUMB_BOB_COEFFICIENTS and np.isfinite(info.d).all()
        return bool(good), f"{info.model}, {info.d.size} coefficients {info.d.tolist()}"

    yield from _each(session, "plumb_bob, 5 finite coefficients", judge)


@check("camera_info")
def camera_info_intrinsics(session: Session) -> Iterator[Finding]:
    """K is a pinhole camera that looks at this image: positive focal lengths, the centre inside."""

    def judge(camera: Camera, info: Info) -> tuple[bool, str]:
        fx, fy, cx, cy = info.k[0, 0], info.k[1, 1], info.k[0, 2], info.k[1, 2]
        inside = 0 < cx < info.width and 0 < cy < info.height
        shape = np.isfinite(info.k).all() and abs(info.k[2, 2] - 1) < _TOLERANCE and info.k[1, 0] == 0
        square = fx > 0 and fy > 0 and 0.5 < fx / fy < 2
        return bool(inside and shape and square), f"fx {fx:.1f}, fy {fy:.1f}, cx {cx:.1f}, cy {cy:.1f}"

    yield from _each(session, "fx, fy > 0 and similar, centre inside the image", judge)


@check("camera_info")
def camera_info_rectification(session: Session) -> Iterator[Finding]:
    """R is a rotation."""

    def judge(camera: Camera, info: Info) -> tuple[bool, str]:
        good = np.allclose(info.r @ info.r.T, np.eye(3), atol=1e-4) and np.linalg.det(info.r) > 0
        return bool(good), f"R {info.r.ravel().round(4).tolist()}"

    yield from _each(session, "a rotation matrix", judge)


@check("camera_info")
def camera_info_projection(session: Session) -> Iterator[Finding]:
    """P is K with no baseline, as for a single unrectified camera."""

    def judge(camera: Camera, info: Info) -> tuple[bool, str]:
        good = np.allclose(info.p[:, :3], info.k, atol=1e-3) and np.allclose(info.p[:, 3], 0, atol=1e-6)
        return bool(good), f"P {info.p.ravel().round(3).tolist()}, K {info.k.ravel().round(3).tolist()}"

    yield from _each(session, "P = [K | 0]", judge)
