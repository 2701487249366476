"""A camera that keeps itself running: a thread that opens, reads, notices silence, and opens again. No ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from hiwm_rig.contract import Camera
from hiwm_rig.realsense.device import Capture, Stream, StreamRequest
from hiwm_rig.realsense.library import CameraMissingError, realsense
from hiwm_rig.realsense.picture import Fit, Intrinsics
from hiwm_rig.realsense.stamps import Decimator, HardwareClock
from hiwm_rig.types import Image

_READ_S = 0.2
_RETRY_S = 0.5
_JOIN_S = 5.0


class CameraState(StrEnum):
    """What a camera is doing."""

    OPENING = "opening"
    SEARCHING = "searching"
    STREAMING = "streaming"
    STARVED = "starved"
    ENDED = "ended"


@dataclass(frozen=True)
class Picture:
    """What is published of one frame, in the size of the rig file.

    Attributes:
        colour: (H, W, 3) uint8 RGB.
        depth: (H, W) uint16 millimetres; None without.
        stamp_ns: when it was taken, host clock.
        intrinsics: of this picture; None for a device without calibration.
    """

    colour: Image
    depth: npt.NDArray[np.uint16] | None
    stamp_ns: int
    intrinsics: Intrinsics | None


class RealsenseCamera:
    """Delivers pictures from its own thread until closed, whatever happens to the device.

    Args:
        camera: size and rate to deliver.
        request: where frames come from.
        deliver: called with each picture, in the camera's thread.
        clock: the host's time in ns.
        context: librealsense's context, with a software device for instance; None makes one.
        starvation_s: silence after which the camera counts as starved.
        reopen_s: silence after which it is opened anew.
        first_frame_s: how long a device that has just been opened may take: it exposes and fills its buffers first.
    """

    def __init__(
        self,
        camera: Camera,
        request: StreamRequest,
        deliver: Callable[[Picture], None],
        clock: Callable[[], int] = time.time_ns,
        context: Any = None,
        starvation_s: float = 1.0,
        reopen_s: float = 3.0,
        first_frame_s: float = 5.0,
    ) -> None:
        self._camera = camera
        self._request = request
        self._deliver = deliver
        self._clock = clock
        self._context = context
        self._starvation_s = starvation_s
        self._reopen_s = reopen_s
        self._first_frame_s = max(first_frame_s, starvation_s)
        self._lock = threading.Lock()
        self._state, self._problem = CameraState.OPENING, "opening"
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self.counters: Counter[str] = Counter(
            frames=0, published=0, dropped_frames=0, starved=0, opened=0, reconnects=0
        )
        self._stamps = HardwareClock()
        self._thread = threading.Thread(target=self._guarded, name=f"camera {camera.name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> CameraState:
        """What it is doing now."""
        with self._lock:
            return self._state

    @property
    def problem(self) -> str:
        """What is wrong and what to do about it; empty while it streams."""
        with self._lock:
            return self._problem

    def check(self) -> None:
        """Raise here what ended the camera's thread.

        Raises:
            CameraSettingsError: a request that this device cannot serve.
        """
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop the thread and release the device."""
        self._stop.set()
        self._thread.join(_JOIN_S)

    # -- the camera's thread ----------------------------------------------------------------------------------------

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # handed to whoever calls check()
            self._failure = error
            self._enter(CameraState.SEARCHING, str(error))

    def _run(self) -> None:
        context = self._context if self._context is not None else realsense().context()
        while not self._stop.is_set() and self.state is not CameraState.ENDED:
            if not self._session(context):
                self._stop.wait(_RETRY_S)

    def _session(self, context: Any) -> bool:
        """Open, deliver, close; False where the device was missing or lost. Nothing holds it after this."""
        try:
            with closing(Stream(self._request, context, self._clock)) as stream:
                self.counters["opened"] += 1
                self.counters["reconnects"] = self.counters["opened"] - 1
                self._pump(stream)
        except CameraMissingError as error:
            self._enter(CameraState.SEARCHING, str(error))
            return False
        return True

    def _pump(self, stream: Stream) -> None:
        """Deliver frames until the stream is silent for too long, its device is gone, or its file has ended."""
        fit = Fit.between(stream.size, (self._camera.width, self._camera.height))
        intrinsics = fit.intrinsics(stream.intrinsics) if stream.intrinsics is not None else None
        decimator = Decimator(self._camera.rate_hz, stream.fps)
        last, number = time.monotonic(), -1
        while not self._stop.is_set():
            capture = stream.read(_READ_S)
            now = time.monotonic()
            if capture is None:
                allowed = self._starvation_s if number >= 0 else self._first_frame_s
                if now - last > allowed and not self._endure(stream, now - last):
                    return
                continue
            last = now
            self._enter(CameraState.STREAMING, "")
            self.counters["frames"] += 1
            self.counters["dropped_frames"] += max(capture.number - number - 1, 0) if number >= 0 else 0
            number = capture.number
            self._hand_over(capture, fit, intrinsics, decimator)

    def _endure(self, stream: Stream, silent_s: float) -> bool:
        """Say why nothing comes; False where the stream is to be closed."""
        source = self._request.source
        if stream.ended():
            self._enter(CameraState.ENDED, f"{source} has been played to its end")
            return False
        if not stream.connected():
            self._enter(CameraState.SEARCHING, f"{source} was unplugged: it is used again once it is back")
            return False
        text = f"{source} is connected but has sent no frame for {silent_s:.1f} s: check USB 3, the cable, its power"
        if self.state is not CameraState.STARVED:
            self.counters["starved"] += 1
        self._enter(CameraState.STARVED, text)
        return silent_s < self._reopen_s or bool(self._request.recording)

    def _hand_over(self, capture: Capture, fit: Fit, intrinsics: Intrinsics | None, decimator: Decimator) -> None:
        stamp = self._stamps.to_host(capture.hardware_ms, capture.arrival_ns)
        if not decimator.due(stamp):
            return
        depth = None if capture.depth is None else fit.depth(capture.depth)
        self._deliver(Picture(fit.colour(capture.colour), depth, stamp, intrinsics))
        self.counters["published"] += 1

    def _enter(self, state: CameraState, problem: str) -> None:
        with self._lock:
            self._state, self._problem = state, problem
