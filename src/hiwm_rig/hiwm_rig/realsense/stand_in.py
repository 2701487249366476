"""A stand-in for a RealSense camera: librealsense's software device, and recordings made with it. Not a camera.

The software device goes through the ordinary pipeline, so the driver under test is the one that a real camera has.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hiwm_rig.realsense.library import CameraError, realsense
from hiwm_rig.types import Image

SERIAL = "STANDIN0001"
_ARRIVAL_S = 3.0
_FIRST_FRAME_S = 20.0
"""How long the first frame of a recording may take: a machine that starts a whole graph is busy."""
_DEPTH_M = 0.5
_DISTORTION = (0.05, -0.02, 0.0, 0.0, 0.0)


def stand_in_card(number: int, width: int, height: int) -> Image:
    """(height, width, 3) uint8 RGB: a colour ramp, a bar that moves with the frame number, and what it is."""
    x = np.linspace(0, 255, width, dtype=np.uint8)[None, :].repeat(height, axis=0)
    y = np.linspace(255, 0, height, dtype=np.uint8)[:, None].repeat(width, axis=1)
    image = np.ascontiguousarray(np.stack([x, y, np.full_like(x, 64)], axis=2))
    left = 3 * number % width
    image[:, left : left + max(2, width // 16)] = 255
    scale = width / 320
    place = (round(0.05 * width), round(0.55 * height))
    cv2.putText(image, "STAND-IN", place, cv2.FONT_HERSHEY_SIMPLEX, 1.6 * scale, (0, 0, 0), max(1, round(2 * scale)))
    return image


class SoftwareCamera:
    """A software device in a context of its own that pushes test cards from a thread. Use as a context manager.

    Args:
        width: pixels.
        height: pixels.
        fps: frames per second.
        depth: also push a flat depth image.
        serial: of the device.
    """

    def __init__(
        self, width: int = 640, height: int = 480, fps: int = 30, depth: bool = False, serial: str = SERIAL
    ) -> None:
        self._rs = realsense()
        self._size, self._fps, self._depth, self.serial = (width, height), fps, depth, serial
        self.context = self._rs.context()
        self._kept: list[Any] = []
        self._arrived = threading.Event()
        self.context.set_devices_changed_callback(self._on_devices)
        self._plugged = threading.Event()
        self._paused = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0

    def __enter__(self) -> SoftwareCamera:
        self.plug_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()

    def _on_devices(self, info: Any) -> None:
        # The context holds new devices weakly: they stay in its list as long as this list and its items live.
        devices = info.get_new_devices()
        self._kept.append((devices, [devices[i] for i in range(len(devices))]))
        self._arrived.set()

    def plug_in(self) -> None:
        """Appear in the context and begin to send.

        Raises:
            CameraError: the context does not show the device.
        """
        self._arrived.clear()
        device = self._rs.software_device()
        device.register_info(self._rs.camera_info.name, "stand-in, not a camera")
        device.register_info(self._rs.camera_info.serial_number, self.serial)
        sensors = self._sensors(device)
        device.add_to(self.context)
        if not self._arrived.wait(_ARRIVAL_S):
            raise CameraError("librealsense does not show its software device")
        self._plugged.set()
        self._thread = threading.Thread(target=self._push, args=(device, sensors), daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Stop sending and vanish from the context (as soon as nobody holds the device any more)."""
        self._plugged.clear()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._kept.clear()

    def pause(self, paused: bool = True) -> None:
        """Send nothing, but stay connected: starvation."""
        (self._paused.set if paused else self._paused.clear)()

    def _sensors(self, device: Any) -> list[tuple[Any, Any, int]]:
        """(sensor, profile, bytes per pixel) of colour and, where asked for, depth."""
        rs = self._rs
        colour = device.add_sensor("RGB Camera")
        sensors = [(colour, colour.add_video_stream(self._stream(rs.stream.color, rs.format.rgb8, 3, 1)), 3)]
        if self._depth:
            depth = device.add_sensor("Stereo Module")
            profile = depth.add_video_stream(self._stream(rs.stream.depth, rs.format.z16, 2, 2))
            depth.add_read_only_option(rs.option.depth_units, 0.001)
            same = rs.extrinsics()
            same.rotation, same.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
            profile.register_extrinsics_to(sensors[0][1], same)
            sensors.append((depth, profile, 2))
            device.create_matcher(rs.matchers.dlr_c)
        return sensors

    def _stream(self, kind: Any, encoding: Any, bytes_per_pixel: int, uid: int) -> Any:
        rs = self._rs
        stream = rs.video_stream()
        stream.type, stream.fmt, stream.index, stream.uid = kind, encoding, 0, uid
        stream.width, stream.height = self._size
        stream.fps, stream.bpp = self._fps, bytes_per_pixel
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height = self._size
        intrinsics.ppx, intrinsics.ppy = self._size[0] / 2, self._size[1] / 2
        intrinsics.fx = intrinsics.fy = 0.95 * self._size[0]
        intrinsics.model = rs.distortion.inverse_brown_conrady
        intrinsics.coeffs = list(_DISTORTION)
        stream.intrinsics = intrinsics
        return stream

    def _push(self, device: Any, sensors: list[tuple[Any, Any, int]]) -> None:
        start = time.monotonic()
        depth = np.full(self._size[::-1], round(1e3 * _DEPTH_M), dtype=np.uint16)
        sent = 0
        while self._plugged.is_set():
            sent += 1
            if not self._paused.is_set():
                self._number += 1
                hardware_ms = 1e3 * (time.monotonic() - start)
                for sensor, profile, size in sensors:
                    pixels = stand_in_card(self._number, *self._size) if size == 3 else depth
                    sensor.on_video_frame(self._frame(profile, pixels, size, hardware_ms))
            time.sleep(max(0.0, start + sent / self._fps - time.monotonic()))

    def _frame(self, profile: Any, pixels: npt.NDArray[Any], size: int, hardware_ms: float) -> Any:
        frame = self._rs.software_video_frame()
        frame.pixels, frame.bpp, frame.stride = pixels, size, size * self._size[0]
        frame.timestamp, frame.domain = hardware_ms, self._rs.timestamp_domain.hardware_clock
        frame.frame_number, frame.profile = self._number, profile.as_video_stream_profile()
        if size == 2:
            frame.depth_units = 0.001
        return frame


def record_stand_in(
    path: Path, width: int = 640, height: int = 480, fps: int = 30, seconds: float = 2.0, depth: bool = False
) -> Path:
    """Record test cards into a librealsense file (``.db3``), in real time from the first frame on; the path.

    Raises:
        CameraError: nothing could be recorded.
    """
    rs = realsense()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with SoftwareCamera(width, height, fps, depth) as camera:
        config = rs.config()
        config.enable_device(camera.serial)
        config.enable_stream(rs.stream.color, width, height, rs.format.rgb8, fps)
        if depth:
            config.enable_stream(rs.stream.depth, width, height, rs.format.z16, fps)
        config.enable_record_to_file(str(path))
        pipeline = rs.pipeline(camera.context)
        pipeline.start(config)
        deadline, frames = time.monotonic() + _FIRST_FRAME_S, 0
        while time.monotonic() < deadline:
            if pipeline.try_wait_for_frames(500)[0]:
                deadline = deadline if frames else time.monotonic() + seconds
                frames += 1
        pipeline.stop()
    if not frames:
        raise CameraError(f"nothing was recorded into {path}")
    return path
