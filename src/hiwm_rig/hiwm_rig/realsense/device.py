"""One stream of a RealSense device or recording: found, opened, read, closed. No ROS.

What was measured with librealsense 2.59: ``pipeline.start`` blocks 15 s where there is no device, so the list of
devices is asked first; a profile that a device lacks fails at once; the end of a file looks like a camera that sends
nothing until its playback status is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiwm_rig.realsense.library import CameraMissingError, CameraSettingsError, realsense
from hiwm_rig.realsense.picture import Intrinsics
from hiwm_rig.types import Image

_UNITS_MM = 1e-3
"""Depth as ``16UC1`` is in millimetres (REP 118)."""


@dataclass(frozen=True)
class StreamRequest:
    """Which stream to open.

    Attributes:
        serial: of the device; empty: the only one there is.
        recording: file to play instead of a device; empty: a device.
        loop: play the file again at its end.
        width: colour profile, pixels; a recording has its own.
        height: colour profile, pixels.
        fps: colour profile.
        depth: also depth, aligned to colour.
    """

    serial: str = ""
    recording: str = ""
    loop: bool = True
    width: int = 640
    height: int = 480
    fps: int = 30
    depth: bool = False

    @property
    def source(self) -> str:
        """The source in words, for messages."""
        if self.recording:
            return f"recording {self.recording}"
        return f"camera {self.serial}" if self.serial else "the RealSense camera"


@dataclass(frozen=True)
class Capture:
    """One frame as the device gives it.

    Attributes:
        colour: (H, W, 3) uint8 RGB.
        depth: (H, W) uint16 millimetres, aligned to colour; None without.
        hardware_ms: the frame's timestamp on its own clock.
        arrival_ns: when it came, host clock.
        number: frame counter of the device.
    """

    colour: Image
    depth: npt.NDArray[np.uint16] | None
    hardware_ms: float
    arrival_ns: int
    number: int


def connected_devices(context: Any) -> dict[str, Any]:
    """Devices that are connected, by serial number. One that is unplugged while it is asked for its name is not.

    Raises:
        CameraMissingError: the devices cannot be listed at present.
    """
    rs = realsense()
    try:
        listed = context.query_devices()
    except RuntimeError as error:
        raise CameraMissingError(f"librealsense cannot list the cameras: {error}") from error
    found = {}
    for i in range(len(listed)):
        try:
            device = listed[i]
            found[str(device.get_info(rs.camera_info.serial_number))] = device
        except RuntimeError:  # unplugged since it was listed
            continue
    return found


class Stream:
    """An open stream; close it.

    Args:
        request: which one.
        context: librealsense's context, with the devices.
        clock: the host's time in ns.

    Raises:
        CameraMissingError: no such device at present; connected ones are named. Also where it vanishes meanwhile.
        CameraSettingsError: a profile the device does not have, or a file that is no recording.
    """

    def __init__(self, request: StreamRequest, context: Any, clock: Callable[[], int] = time.time_ns) -> None:
        self._rs = realsense()
        self.request = request
        self._context = context
        self._clock = clock
        self.serial = "" if request.recording else self._find(request.serial)
        self._pipeline = self._rs.pipeline(context)
        self._profile = self._start()
        self._align = self._rs.align(self._rs.stream.color) if request.depth else None
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        """Ask the open stream what it is."""
        rs = self._rs
        try:
            colour = self._profile.get_stream(rs.stream.color).as_video_stream_profile()
            encoding = colour.format()
            self.size = (int(colour.width()), int(colour.height()))
            self.fps = int(colour.fps())
            self.intrinsics = _intrinsics(colour.get_intrinsics())
        except RuntimeError as error:
            raise CameraMissingError(f"{self.request.source} was lost while it was opened: {error}") from error
        if encoding not in (rs.format.rgb8, rs.format.bgr8):
            raise CameraSettingsError(f"{self.request.source} holds {encoding}: record colour as rgb8 or bgr8")
        self._bgr = encoding == rs.format.bgr8

    def _find(self, serial: str) -> str:
        there = list(connected_devices(self._context))
        listed = ", ".join(there) or "none"
        if serial and serial not in there:
            raise CameraMissingError(
                f"camera {serial} is not connected (connected: {listed}): check its cable, USB port, the udev rules "
                "and the serial in the rig file; rs-enumerate-devices lists what the computer sees"
            )
        if not there:
            raise CameraMissingError("no RealSense camera is connected: check its cable, USB port and the udev rules")
        if not serial and len(there) > 1:
            raise CameraSettingsError(
                f"several cameras are connected ({listed}): give the serial of one in the rig file"
            )
        return serial or there[0]

    def _start(self) -> Any:
        rs, request = self._rs, self.request
        config = rs.config()
        if request.recording:
            self._configure_recording(config)
        else:
            config.enable_device(self.serial)
            config.enable_stream(rs.stream.color, request.width, request.height, rs.format.rgb8, request.fps)
            if request.depth:
                config.enable_stream(rs.stream.depth, rs.format.z16, request.fps)
        try:
            return self._pipeline.start(config)
        except RuntimeError as error:
            raise self._refused(error) from error

    def _configure_recording(self, config: Any) -> None:
        rs, request = self._rs, self.request
        if not Path(request.recording).is_file():
            raise CameraSettingsError(f"recording {request.recording}: no such file")
        config.enable_device_from_file(request.recording, repeat_playback=request.loop)
        config.enable_stream(rs.stream.color)
        if request.depth:
            config.enable_stream(rs.stream.depth)

    def _refused(self, error: RuntimeError) -> CameraMissingError | CameraSettingsError:
        request, text = self.request, str(error)
        if "resolve" in text.lower():
            if "enable_device_from_file" in text:
                return CameraSettingsError(f"librealsense cannot read {request.source}: {text}")
            if request.recording:
                kinds = "colour and depth" if request.depth else "colour"
                return CameraSettingsError(f"recording {request.recording} does not hold {kinds}: {text}")
            wanted = f"{request.width}x{request.height} rgb8 at {request.fps} Hz" + (" with depth" * request.depth)
            return CameraSettingsError(
                f"camera {self.serial} has no profile {wanted}; its colour profiles are {self._profiles()}"
            )
        return CameraMissingError(
            f"{request.source} does not start ({text}): another program may hold it, or the udev rules are missing"
        )

    def _profiles(self) -> str:
        """The colour profiles of the device, for people.

        Raises:
            CameraMissingError: it has vanished: nothing was wrong with the request, then.
        """
        rs, found = self._rs, set()
        device = connected_devices(self._context).get(self.serial)
        if device is None:
            raise CameraMissingError(f"camera {self.serial} was unplugged while it was opened")
        try:
            for sensor in device.query_sensors():
                for profile in sensor.get_stream_profiles():
                    if profile.stream_type() == rs.stream.color and profile.format() == rs.format.rgb8:
                        video = profile.as_video_stream_profile()
                        found.add((video.width(), video.height(), profile.fps()))
        except RuntimeError as error:
            raise CameraMissingError(f"camera {self.serial} was unplugged while it was opened: {error}") from error
        return ", ".join(f"{w}x{h} at {fps} Hz" for w, h, fps in sorted(found)) or "none in rgb8"

    def read(self, timeout_s: float) -> Capture | None:
        """The next frame; None where none came in time.

        Raises:
            CameraMissingError: the device failed while it was read.
        """
        try:
            came, frames = self._pipeline.try_wait_for_frames(round(1e3 * timeout_s))
            arrival = self._clock()
            return self._capture(frames, arrival) if came else None
        except RuntimeError as error:
            raise CameraMissingError(f"{self.request.source} failed: {error}") from error

    def _capture(self, frames: Any, arrival_ns: int) -> Capture | None:
        """The values of a set of frames; None for half of a pair, whose other half comes with the next."""
        if self._align is not None:
            frames = self._align.process(frames)
        colour, depth = frames.get_color_frame(), frames.get_depth_frame() if self._align is not None else None
        if not colour or (self._align is not None and not depth):
            return None
        image = np.asanyarray(colour.get_data())
        return Capture(
            colour=(image[:, :, ::-1] if self._bgr else image).copy(),  # the library reuses its buffers
            depth=_millimetres(depth) if depth else None,
            hardware_ms=float(colour.get_timestamp()),
            arrival_ns=arrival_ns,
            number=int(colour.get_frame_number()),
        )

    def ended(self) -> bool:
        """Whether this is a recording that has been played to its end: nothing is wrong, and nothing more comes."""
        if not self.request.recording:
            return False
        playback = self._profile.get_device().as_playback()
        return bool(playback.current_status() == self._rs.playback_status.stopped)

    def connected(self) -> bool:
        """Whether the device is still there; a recording always is."""
        return bool(self.request.recording) or self.serial in connected_devices(self._context)

    def close(self) -> None:
        """Stop the stream. A device that is gone cannot be stopped, which is no error here."""
        try:
            self._pipeline.stop()
        except RuntimeError as error:
            if self.request.recording:
                raise CameraMissingError(f"{self.request.source} does not stop: {error}") from error


def _millimetres(depth: Any) -> npt.NDArray[np.uint16]:
    values = np.asanyarray(depth.get_data())
    scale = float(depth.get_units()) / _UNITS_MM
    if abs(scale - 1.0) < 1e-4:
        return np.array(values, dtype=np.uint16)
    return np.clip(np.rint(values * scale), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def _intrinsics(raw: Any) -> Intrinsics | None:
    """The factory calibration of a stream; None where the device has none."""
    if raw.fx <= 0 or raw.fy <= 0:
        return None
    k1, k2, p1, p2, k3 = (float(c) for c in list(raw.coeffs)[:5])
    return Intrinsics(raw.width, raw.height, raw.fx, raw.fy, raw.ppx, raw.ppy, (k1, k2, p1, p2, k3))
