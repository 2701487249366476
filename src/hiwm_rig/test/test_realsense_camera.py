"""The camera driver on librealsense's software device and on recordings: the path a real camera takes, no camera."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hiwm_rig.contract import Camera
from hiwm_rig.realsense.camera import CameraState, Picture, RealsenseCamera
from hiwm_rig.realsense.device import StreamRequest, connected_devices
from hiwm_rig.realsense.library import CameraError, CameraSettingsError, realsense
from hiwm_rig.realsense.stand_in import SoftwareCamera, record_stand_in

pytest.importorskip("pyrealsense2")

WIDTH, HEIGHT, FPS = 160, 120, 30
CAMERA = Camera(name="front", width=64, height=48, rate_hz=30)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_stand_in(tmp_path_factory.mktemp("rs") / "clip.db3", WIDTH, HEIGHT, FPS, seconds=1.0)


@pytest.fixture(scope="module")
def recording_with_depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_stand_in(tmp_path_factory.mktemp("rs") / "deep.db3", WIDTH, HEIGHT, FPS, seconds=1.0, depth=True)


@pytest.fixture
def run() -> Iterator[Callable[..., tuple[RealsenseCamera, list[Picture]]]]:
    """Starts cameras, and closes them whatever the test does."""
    started: list[RealsenseCamera] = []

    def start(request: StreamRequest, **options: Any) -> tuple[RealsenseCamera, list[Picture]]:
        pictures: list[Picture] = []
        started.append(RealsenseCamera(options.pop("camera", CAMERA), request, pictures.append, **options))
        return started[-1], pictures

    yield start
    for camera in started:
        camera.close()


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> float:
    """Wait for a condition; how long it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, "it did not happen"
        time.sleep(0.01)
    return time.monotonic() - start


def request(**fields: Any) -> StreamRequest:
    return StreamRequest(**{"width": WIDTH, "height": HEIGHT, "fps": FPS, **fields})


def test_a_device_by_serial_delivers_pictures_of_the_rig_files_size(run):
    with SoftwareCamera(WIDTH, HEIGHT, FPS) as device:
        _camera, pictures = run(request(serial=device.serial), context=device.context)
        until(lambda: len(pictures) >= 15)
    assert pictures[-1].colour.shape == (48, 64, 3) and np.ptp(pictures[-1].colour) > 100
    assert (np.diff([p.stamp_ns for p in pictures]) > 0).all()
    intrinsics = pictures[-1].intrinsics
    assert intrinsics is not None and intrinsics.fx == pytest.approx(0.95 * WIDTH * 64 / WIDTH)
    assert intrinsics.coefficients[0] == pytest.approx(0.05)


def test_a_recording_lasts_from_its_first_frame_on(tmp_path, monkeypatch):
    """A busy machine may take longer to the first frame than the recording is to last."""
    plug_in = SoftwareCamera.plug_in

    def late(device: SoftwareCamera) -> None:
        device.pause()
        plug_in(device)
        Timer(1.5, device.pause, [False]).start()

    monkeypatch.setattr(SoftwareCamera, "plug_in", late)
    assert record_stand_in(tmp_path / "late.db3", WIDTH, HEIGHT, FPS, seconds=0.5).stat().st_size > 0


def test_depth_is_aligned_and_in_millimetres(run, recording_with_depth):
    _camera, pictures = run(request(recording=str(recording_with_depth), depth=True))
    until(lambda: len(pictures) >= 3)
    depth = pictures[-1].depth
    assert depth is not None and depth.shape == (48, 64) and depth.dtype == np.uint16
    assert np.median(depth) == 500


def test_a_missing_camera_is_reported_within_two_seconds_and_names_those_that_are_there(run):
    with SoftwareCamera(WIDTH, HEIGHT, FPS) as device:
        camera, _ = run(request(serial="987654"), context=device.context)
        seconds = until(lambda: camera.state is CameraState.SEARCHING)
        assert seconds < 2.0
        assert "987654 is not connected" in camera.problem and device.serial in camera.problem


def test_no_camera_at_all_is_reported_within_two_seconds(run):
    camera, _ = run(request())
    assert until(lambda: camera.state is CameraState.SEARCHING) < 2.0
    assert "no RealSense camera is connected" in camera.problem


def test_a_camera_that_is_plugged_in_later_is_used_without_a_restart(run):
    device = SoftwareCamera(WIDTH, HEIGHT, FPS)
    camera, pictures = run(request(serial=device.serial), context=device.context)
    until(lambda: camera.state is CameraState.SEARCHING)
    with device:
        until(lambda: len(pictures) > 3)
        assert camera.state is CameraState.STREAMING


@pytest.mark.parametrize("phase", ["before its first frame", "while it streams", "while it starves"])
def test_a_camera_that_is_unplugged_in_any_phase_streams_again_once_it_is_back(run, phase):
    with SoftwareCamera(WIDTH, HEIGHT, FPS) as device:
        device.pause(phase == "before its first frame")
        options = {"starvation_s": 0.3, "reopen_s": 0.6, "first_frame_s": 1.0}
        camera, pictures = run(request(serial=device.serial), context=device.context, **options)
        until(lambda: camera.counters["opened"] > 0 if phase == "before its first frame" else len(pictures) > 3)
        if phase == "while it starves":
            device.pause()
            until(lambda: camera.state is CameraState.STARVED)
        device.unplug()
        until(lambda: camera.state is CameraState.SEARCHING)
        assert "not connected" in camera.problem or "unplugged" in camera.problem
        before = len(pictures)
        device.pause(False)
        device.plug_in()
        until(lambda: len(pictures) > before + 3)
        assert camera.state is CameraState.STREAMING and camera.counters["reconnects"] >= 1
        assert (np.diff([p.stamp_ns for p in pictures]) > 0).all()


class Vanishing:
    """librealsense and its context, with a camera that is unplugged at one moment of being opened, the first time.

    Args:
        device: whose context is the real one.
        moment: ``asked for its name``, ``described``, ``gone when its profiles are listed`` or ``listed``.
    """

    def __init__(self, device: SoftwareCamera, moment: str) -> None:
        self._rs, self._real, self.moment = realsense(), device.context, moment
        self.happened = False
        self.stopped = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rs, name)

    def now(self, moment: str) -> bool:
        """Whether it vanishes at this moment; once only."""
        now = not self.happened and moment == self.moment
        self.happened |= now
        return now

    def fail(self, *arguments: Any) -> Any:
        raise RuntimeError("failed to set power state: No such device")

    def query_devices(self) -> Any:
        if self.now("listed"):
            self.fail()
        if self.now("asked for its name"):
            return [SimpleNamespace(get_info=self.fail)]
        return self._real.query_devices()

    def pipeline(self, context: Vanishing) -> Any:
        real, outer = self._rs.pipeline(self._real), self

        class Pipeline:
            def start(self, config: Any) -> Any:
                if outer.now("gone when its profiles are listed"):
                    outer._real, back = SimpleNamespace(query_devices=list), outer._real
                    Timer(0.3, lambda: setattr(outer, "_real", back)).start()
                    raise RuntimeError("Couldn't resolve requests")
                profile = real.start(config)
                return SimpleNamespace(get_stream=outer.fail) if outer.now("described") else profile

            def stop(self) -> None:
                outer.stopped += 1
                real.stop()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        return Pipeline()


@pytest.mark.parametrize("moment", ["listed", "asked for its name", "gone when its profiles are listed", "described"])
def test_a_camera_that_vanishes_while_it_is_opened_is_searched_for_and_its_pipeline_is_closed(run, monkeypatch, moment):
    with SoftwareCamera(WIDTH, HEIGHT, FPS) as device:
        vanishing = Vanishing(device, moment)
        monkeypatch.setattr("hiwm_rig.realsense.device.realsense", lambda: vanishing)
        camera, pictures = run(request(serial=device.serial), context=vanishing)
        until(lambda: camera.state is CameraState.SEARCHING)
        assert vanishing.stopped == (moment == "described")
        until(lambda: len(pictures) > 3)
        camera.check()
        camera.close()
    assert vanishing.happened and camera.counters["opened"] == 1


def test_a_device_that_vanishes_between_the_list_and_its_name_does_not_hide_the_others():
    def vanished(key: object) -> str:
        raise RuntimeError("No such device")

    gone = SimpleNamespace(get_info=vanished)
    there = SimpleNamespace(get_info=lambda key: "222")
    assert connected_devices(SimpleNamespace(query_devices=lambda: [gone, there])) == {"222": there}


def test_silence_of_a_connected_camera_is_starvation(run):
    with SoftwareCamera(WIDTH, HEIGHT, FPS) as device:
        camera, pictures = run(request(serial=device.serial), context=device.context, starvation_s=0.3)
        until(lambda: len(pictures) > 3)
        device.pause()
        until(lambda: camera.state is CameraState.STARVED)
        assert "is connected but has sent no frame" in camera.problem and camera.counters["starved"] == 1
        device.pause(False)
        until(lambda: camera.state is CameraState.STREAMING)


def test_the_end_of_a_recording_is_not_starvation(run, recording):
    camera, pictures = run(request(recording=str(recording), loop=False), starvation_s=0.3)
    until(lambda: camera.state is CameraState.ENDED)
    assert "played to its end" in camera.problem and camera.counters["starved"] == 0
    assert len(pictures) >= 20


def test_a_looped_recording_goes_on_with_stamps_that_increase(run, recording):
    camera, pictures = run(request(recording=str(recording)))
    until(lambda: camera.counters["frames"] > 2.2 * FPS)
    stamps = np.array([p.stamp_ns for p in pictures])
    assert (np.diff(stamps) > 0).all() and camera.state is CameraState.STREAMING


def refused(camera: RealsenseCamera) -> str:
    """Why a camera gave up for good."""

    def gave_up() -> bool:
        try:
            camera.check()
        except CameraError:
            return True
        return False

    until(gave_up)
    with pytest.raises(CameraSettingsError) as caught:
        camera.check()
    return str(caught.value)


def test_an_unsupported_profile_is_refused_with_those_there_are(run):
    with SoftwareCamera(WIDTH, HEIGHT, FPS) as device:
        camera, _ = run(request(serial=device.serial, width=1280, height=720), context=device.context)
        text = refused(camera)
    assert "no profile 1280x720 rgb8 at 30 Hz" in text and f"{WIDTH}x{HEIGHT} at {FPS} Hz" in text


def test_two_cameras_without_a_serial_are_refused(run, monkeypatch):
    monkeypatch.setattr("hiwm_rig.realsense.device.connected_devices", lambda context: {"111": None, "222": None})
    camera, _ = run(request())
    assert "several cameras are connected (111, 222)" in refused(camera)


@pytest.mark.parametrize(("content", "expected"), [(None, "no such file"), ("not a recording", "cannot read")])
def test_a_file_that_is_no_recording_is_refused(run, tmp_path, content, expected):
    path = tmp_path / "clip.db3"
    if content is not None:
        path.write_text(content)
    camera, _ = run(request(recording=str(path)))
    assert expected in refused(camera)


def test_a_recording_without_depth_is_refused_where_depth_is_asked_for(run, recording):
    camera, _ = run(request(recording=str(recording), depth=True))
    assert "does not hold colour and depth" in refused(camera)
