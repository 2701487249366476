"""Message <-> numpy, one function per direction.

Reading works on anything with the fields of the ROS message (a live message, one decoded from a bag), and needs no
ROS. Writing imports the message type inside the function, so this module can be imported without ROS.
"""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hiwm_rig.contract import Camera
from hiwm_rig.types import FloatArray, Image

NS_PER_S = 1_000_000_000
_CHANNELS = 3


class CodecError(ValueError):
    """A message that does not hold what its fields say; the text says what was expected."""


@dataclass(frozen=True)
class JointSample:
    """Joint positions in the order asked for.

    Attributes:
        stamp_ns: header stamp.
        positions: (D,) rad or m.
        velocities: (D,) rad/s or m/s; empty where the message has none.
    """

    stamp_ns: int
    positions: npt.NDArray[np.float64]
    velocities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chunk:
    """Joint targets over time; a single target is a chunk of one point.

    Attributes:
        stamp_ns: time that the offsets count from.
        offsets_s: (N,) strictly increasing seconds after ``stamp_ns``.
        positions: (N, D) rad or m.
    """

    stamp_ns: int
    offsets_s: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64]


def stamp_to_ns(stamp: Any) -> int:
    """``builtin_interfaces/Time`` (or Duration) as nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Any:
    """Nanoseconds as ``builtin_interfaces/Time``."""
    from builtin_interfaces.msg import Time

    return Time(sec=int(stamp_ns) // NS_PER_S, nanosec=int(stamp_ns) % NS_PER_S)


def seconds_to_duration(seconds: float) -> Any:
    """Seconds as ``builtin_interfaces/Duration``."""
    from builtin_interfaces.msg import Duration

    total = round(seconds * NS_PER_S)
    return Duration(sec=total // NS_PER_S, nanosec=total % NS_PER_S)


def image_to_array(msg: Any) -> Image:
    """``sensor_msgs/Image`` (rgb8 or bgr8) as (H, W, 3) uint8 RGB.

    The result shares memory with the message where the encoding is rgb8 and rows are not padded.

    Raises:
        CodecError: another encoding, or fewer bytes than height x step.
    """
    encoding = str(msg.encoding)
    if encoding not in ("rgb8", "bgr8"):
        raise CodecError(f"image encoding must be rgb8 or bgr8, got '{encoding}'")
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    row = width * _CHANNELS
    if height < 1 or width < 1 or step < row:
        raise CodecError(f"image {width}x{height} needs step >= {row}, got {step}")
    data = np.frombuffer(msg.data, dtype=np.uint8)
    if data.size < height * step:
        raise CodecError(f"image {width}x{height} with step {step} needs {height * step} bytes, got {data.size}")
    image = data[: height * step].reshape(height, step)[:, :row].reshape(height, width, _CHANNELS)
    return image if encoding == "rgb8" else image[:, :, ::-1]


def array_to_image(image: Image, stamp_ns: int, frame_id: str, encoding: str = "rgb8") -> Any:
    """(H, W, 3) uint8 RGB as ``sensor_msgs/Image`` in ``encoding`` (rgb8 or bgr8).

    Raises:
        CodecError: wrong dtype, shape or encoding.
    """
    from sensor_msgs.msg import Image as ImageMsg

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != _CHANNELS:
        raise CodecError(f"an image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if encoding not in ("rgb8", "bgr8"):
        raise CodecError(f"image encoding must be rgb8 or bgr8, got '{encoding}'")
    pixels = image if encoding == "rgb8" else image[:, :, ::-1]
    msg = ImageMsg()
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.height, msg.width = int(image.shape[0]), int(image.shape[1])
    msg.encoding = encoding
    msg.step = msg.width * _CHANNELS
    # rclpy copies an array.array in one go; any other sequence goes through a slow element-wise check.
    msg.data = array.array("B", np.ascontiguousarray(pixels).tobytes())
    return msg


def camera_matrix(camera: Camera) -> npt.NDArray[np.float64]:
    """(3, 3) pinhole matrix of an uncalibrated camera: square pixels, centre of the image, vertical field of view."""
    focal = 0.5 * camera.height / math.tan(math.radians(camera.fovy_deg) / 2)
    return np.array([[focal, 0.0, camera.width / 2], [0.0, focal, camera.height / 2], [0.0, 0.0, 1.0]])


def camera_to_info(camera: Camera, stamp_ns: int) -> Any:
    """``sensor_msgs/CameraInfo`` (plumb_bob, no distortion) of a camera of the rig file."""
    from sensor_msgs.msg import CameraInfo

    matrix = camera_matrix(camera)
    msg = CameraInfo()
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = camera.frame_id
    msg.height, msg.width = camera.height, camera.width
    msg.distortion_model = "plumb_bob"
    msg.d = [0.0] * 5
    msg.k = matrix.ravel().tolist()
    msg.r = np.eye(3).ravel().tolist()
    msg.p = np.hstack([matrix, np.zeros((3, 1))]).ravel().tolist()
    return msg


def _order(names: Sequence[str], wanted: Sequence[str], what: str) -> list[int]:
    index = {name: i for i, name in enumerate(names)}
    if len(index) != len(names):
        raise CodecError(f"{what} names a joint twice: {list(names)}")
    missing = [name for name in wanted if name not in index]
    if missing:
        raise CodecError(f"{what} lacks joints {missing}; it has {list(names)}")
    return [index[name] for name in wanted]


def joint_state_to_sample(msg: Any, joint_names: Sequence[str]) -> JointSample:
    """``sensor_msgs/JointState`` reordered to ``joint_names``; other joints in the message are ignored.

    Raises:
        CodecError: missing joints, sizes that do not match the names, or values that are not finite.
    """
    order = _order(list(msg.name), joint_names, "JointState")
    positions = np.asarray(msg.position, dtype=np.float64)
    velocities = np.asarray(msg.velocity, dtype=np.float64)
    if positions.size != len(msg.name) or velocities.size not in (0, len(msg.name)):
        raise CodecError(
            f"JointState names {len(msg.name)} joints, has {positions.size} positions and {velocities.size} velocities"
        )
    sample = JointSample(
        stamp_to_ns(msg.header.stamp), positions[order], velocities[order] if velocities.size else velocities
    )
    if not np.isfinite(sample.positions).all() or not np.isfinite(sample.velocities).all():
        raise CodecError(f"JointState holds values that are not finite: {sample.positions.tolist()}")
    return sample


def sample_to_joint_state(
    joint_names: Sequence[str],
    positions: FloatArray,
    stamp_ns: int,
    velocities: FloatArray | None = None,
    frame_id: str = "",
) -> Any:
    """(D,) positions (and velocities) as ``sensor_msgs/JointState``.

    Raises:
        CodecError: sizes that do not match the names.
    """
    from sensor_msgs.msg import JointState

    velocities = np.zeros(0) if velocities is None else velocities
    if np.shape(positions) != (len(joint_names),) or np.size(velocities) not in (0, len(joint_names)):
        raise CodecError(
            f"{len(joint_names)} joints, but {np.shape(positions)} positions and {np.shape(velocities)} velocities"
        )
    msg = JointState()
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.name = list(joint_names)
    msg.position = np.asarray(positions, dtype=np.float64).tolist()
    msg.velocity = np.asarray(velocities, dtype=np.float64).tolist()
    return msg


def trajectory_to_chunk(msg: Any, joint_names: Sequence[str]) -> Chunk:
    """``trajectory_msgs/JointTrajectory`` reordered to ``joint_names``.

    Values are not judged here (see :class:`hiwm_rig.commands.CommandReceiver`), only names and sizes.

    Raises:
        CodecError: unknown or missing joints, no points, a point of the wrong size, times that do not increase.
    """
    names = list(msg.joint_names)
    unknown = [name for name in names if name not in set(joint_names)]
    if unknown:
        raise CodecError(f"JointTrajectory names unknown joints {unknown}; known are {list(joint_names)}")
    order = _order(names, joint_names, "JointTrajectory")
    if not msg.points:
        raise CodecError("JointTrajectory has no points")
    sizes = {len(point.positions) for point in msg.points}
    if sizes != {len(names)}:
        raise CodecError(f"each point needs {len(names)} positions, got {sorted(sizes)}")
    offsets = np.array([stamp_to_ns(p.time_from_start) / NS_PER_S for p in msg.points])
    if (np.diff(offsets) <= 0).any():
        raise CodecError(f"time_from_start must increase from point to point, got {offsets.tolist()}")
    positions = np.array([p.positions for p in msg.points], dtype=np.float64)[:, order]
    return Chunk(stamp_to_ns(msg.header.stamp), offsets, positions)


def chunk_to_trajectory(joint_names: Sequence[str], chunk: Chunk, frame_id: str = "") -> Any:
    """A chunk as ``trajectory_msgs/JointTrajectory``.

    Raises:
        CodecError: sizes that do not match the names or the offsets.
    """
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    if chunk.positions.shape != (chunk.offsets_s.size, len(joint_names)):
        raise CodecError(
            f"{chunk.offsets_s.size} points of {len(joint_names)} joints need that shape, got {chunk.positions.shape}"
        )
    msg = JointTrajectory()
    msg.header.stamp = ns_to_stamp(chunk.stamp_ns)
    msg.header.frame_id = frame_id
    msg.joint_names = list(joint_names)
    msg.points = [
        JointTrajectoryPoint(positions=row.tolist(), time_from_start=seconds_to_duration(float(offset)))
        for offset, row in zip(chunk.offsets_s, chunk.positions, strict=True)
    ]
    return msg


def target_to_trajectory(joint_names: Sequence[str], positions: FloatArray, stamp_ns: int, offset_s: float) -> Any:
    """One (D,) target, due ``offset_s`` after ``stamp_ns``, as ``trajectory_msgs/JointTrajectory``."""
    chunk = Chunk(stamp_ns, np.array([offset_s]), np.asarray(positions, dtype=np.float64)[None])
    return chunk_to_trajectory(joint_names, chunk)
