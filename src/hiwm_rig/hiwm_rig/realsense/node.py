"""A RealSense camera as a node: the topics of realsense2_camera, which can take its place. Values to messages."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image

from hiwm_rig.codecs import array_to_image
from hiwm_rig.contract import Camera, Rig
from hiwm_rig.hardware_status import HardwareKind, HardwareLevel, HardwareReporter, HardwareStatus
from hiwm_rig.realsense.camera import CameraState, Picture, RealsenseCamera
from hiwm_rig.realsense.device import StreamRequest
from hiwm_rig.realsense.library import CameraError
from hiwm_rig.realsense.messages import depth_message, info_message
from hiwm_rig.realsense.stand_in import record_stand_in
from hiwm_rig.rig_node import StartupError, declare_rig, now_ns, qos_profile, run_node
from hiwm_rig.single_publisher import SinglePublisher

_POLL_S = 0.1
_REPORT_POLLS = 10
_STAND_IN_S = 3.0
_LEVELS = {CameraState.STREAMING: HardwareLevel.OK, CameraState.OPENING: HardwareLevel.BUSY}


class RealsenseCameraNode(Node):
    """Publishes one camera of the rig file; reports within two seconds when there is none, and takes it back."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("realsense_camera", **kwargs)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._camera: RealsenseCamera | None = None
        rig = declare_rig(self)
        self.camera = self._choose(rig)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        starvation_s = float(self.declare_parameter("starvation_s", 1.0).value)
        request = self._request()
        self._only = SinglePublisher(self, self.camera.image_topic, discovery_s)
        if bool(self.declare_parameter("stand_in", False).value):
            request = self._stand_in(request)
        self._create_publishers(rig, request.depth)
        self._status = HardwareReporter(self, rig.topics.diagnostics, HardwareKind.CAMERA)
        self._reported: CameraState | None = None
        self._polls = 0
        self._source = request.source
        self._camera = RealsenseCamera(
            self.camera, request, self._publish, lambda: now_ns(self), starvation_s=starvation_s
        )
        # Steady time: the state of a cable does not wait for `/clock`.
        self.create_timer(_POLL_S, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _choose(self, rig: Rig) -> Camera:
        name = str(self.declare_parameter("camera", "").value) or rig.cameras[0].name
        try:
            return rig.camera(name)
        except KeyError as error:
            raise StartupError(f"parameter camera: {error.args[0]}") from error

    def _request(self) -> StreamRequest:
        """The rig file's section ``hardware``, with the parameters on top."""
        hardware = self.camera.hardware
        recording = str(self.declare_parameter("recording", "").value)
        # A serial is a string of digits, which the command line takes for a number.
        serial = str(self.declare_parameter("serial", "", ParameterDescriptor(dynamic_typing=True)).value)
        if recording and serial:
            raise StartupError(f"give serial ('{serial}') or recording ('{recording}'), not both")
        if not recording and not serial:
            recording, serial = hardware.recording, hardware.serial
        return StreamRequest(
            serial=serial,
            recording=recording,
            loop=bool(self.declare_parameter("loop", True).value),
            width=hardware.width,
            height=hardware.height,
            fps=hardware.fps,
            depth=hardware.depth,
        )

    def _stand_in(self, request: StreamRequest) -> StreamRequest:
        """Record a stand-in for a camera, and play that."""
        self._scratch = tempfile.TemporaryDirectory(prefix="hiwm_camera_")
        path = Path(self._scratch.name) / f"{self.camera.name}.db3"
        self.get_logger().warning(f"camera '{self.camera.name}' is a STAND-IN: a recorded test card, not a camera")
        try:
            record_stand_in(path, self.camera.width, self.camera.height, request.fps, _STAND_IN_S, request.depth)
        except CameraError as error:
            self.close()
            raise StartupError(str(error)) from error
        return StreamRequest(recording=str(path), depth=request.depth)

    def _create_publishers(self, rig: Rig, depth: bool) -> None:
        qos, camera = qos_profile(rig.qos.images), self.camera
        self._image_pub = self.create_publisher(Image, camera.image_topic, qos)
        self._info_pub = self.create_publisher(CameraInfo, camera.info_topic, qos)
        self._depth_pub: Publisher | None = None
        self._depth_info_pub: Publisher | None = None
        if depth:
            self._depth_pub = self.create_publisher(Image, camera.depth_topic, qos)
            self._depth_info_pub = self.create_publisher(CameraInfo, camera.depth_info_topic, qos)

    def _publish(self, picture: Picture) -> None:
        """In the camera's thread: nothing else waits for it."""
        if not self.context.ok():
            return
        camera, stamp = self.camera, picture.stamp_ns
        info = info_message(camera, picture.intrinsics, stamp)
        self._info_pub.publish(info)
        self._image_pub.publish(array_to_image(picture.colour, stamp, camera.frame_id, camera.encoding))
        if picture.depth is not None and self._depth_pub is not None and self._depth_info_pub is not None:
            self._depth_info_pub.publish(info)
            self._depth_pub.publish(depth_message(picture.depth, stamp, camera.frame_id))

    def _watch(self) -> None:
        """Report a change at once, and the state once a second."""
        assert self._camera is not None  # the timer starts after it
        try:
            self._camera.check()
        except CameraError as error:
            raise StartupError(f"camera '{self.camera.name}': {error}") from error
        state, problem = self._camera.state, self._camera.problem
        level = _LEVELS.get(state, HardwareLevel.FAULT)
        changed = state is not self._reported
        self._polls += 1
        if changed or self._polls % _REPORT_POLLS == 0:
            status = HardwareStatus(self.camera.name, level, problem)
            self._status.report(status, {"state": state, "source": self._source, **self._camera.counters})
        if changed:
            # A line for each: rclpy ties a severity to the line that logs, and raises where it changes.
            text = f"camera '{self.camera.name}' ({self._source}): {problem or state}"
            if level is HardwareLevel.FAULT:
                self.get_logger().error(text)
            else:
                self.get_logger().info(text)
        self._reported = state

    def close(self) -> None:
        """Release the device, and remove the stand-in's recording."""
        if self._camera is not None:
            self._camera.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def main(args: list[str] | None = None) -> None:
    """Entry point of ``realsense_camera``."""
    sys.exit(run_node(RealsenseCameraNode, args))


if __name__ == "__main__":
    main()
