"""A camera's pictures as the messages that realsense2_camera publishes. Needs the ROS message types."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg

from hiwm_rig.codecs import camera_to_info, ns_to_stamp
from hiwm_rig.contract import Camera
from hiwm_rig.realsense.picture import Intrinsics

DEPTH_ENCODING = "16UC1"
_DEPTH_BYTES = 2


def info_message(camera: Camera, intrinsics: Intrinsics | None, stamp_ns: int) -> Any:
    """``CameraInfo`` (plumb_bob) with the device's calibration, or the rig file's where it has none."""
    msg: CameraInfo = camera_to_info(camera, stamp_ns)
    if intrinsics is not None:
        k = np.array([[intrinsics.fx, 0.0, intrinsics.cx], [0.0, intrinsics.fy, intrinsics.cy], [0.0, 0.0, 1.0]])
        msg.k = k.ravel().tolist()
        msg.p = np.hstack([k, np.zeros((3, 1))]).ravel().tolist()
        msg.d = list(intrinsics.coefficients)
    return msg


def depth_message(depth: npt.NDArray[np.uint16], stamp_ns: int, frame_id: str) -> Any:
    """(H, W) millimetres as ``Image`` of ``16UC1`` (REP 118)."""
    msg = ImageMsg()
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.height, msg.width = int(depth.shape[0]), int(depth.shape[1])
    msg.encoding = DEPTH_ENCODING
    msg.step = _DEPTH_BYTES * msg.width
    msg.data = array.array("B", np.ascontiguousarray(depth, dtype="<u2").tobytes())
    return msg
