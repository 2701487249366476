"""Images inside bags: ``sensor_msgs/Image`` to ``CompressedImage`` and back, named as image_transport does. No ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from hiwm_rig.codecs import CodecError, image_to_array
from rosbags.typesys import Stores, get_typestore

from hiwm_data.topics import COMPRESSED_IMAGE, IMAGE, TopicSpec

SUFFIX = "/compressed"
RAW = "raw"
_EXTENSIONS = {"jpeg": ".jpg", "png": ".png"}
FORMATS = (RAW, *_EXTENSIONS)
"""Ways to store images: as they come; ``jpeg``, small and lossy; ``png``, lossless and slower."""


def compressed_specs(topics: Sequence[TopicSpec]) -> list[TopicSpec]:
    """For every image topic the topic of its compressed images."""
    return [TopicSpec(t.name + SUFFIX, COMPRESSED_IMAGE, t.reliability, t.depth) for t in topics if t.type == IMAGE]


@dataclass(frozen=True)
class Encoded:
    """A serialised message and the topic it belongs on."""

    topic: str
    data: bytes


class ImageCompressor:
    """Compresses serialised images; everything else passes as it is.

    Args:
        types: message type by topic.
        kind: one of :data:`FORMATS`.
        jpeg_quality: 1..100.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, types: Mapping[str, str], kind: str, jpeg_quality: int = 95) -> None:
        if kind not in FORMATS:
            raise ValueError(f"images must be stored as one of {', '.join(FORMATS)}, got '{kind}'")
        self._topics = {t for t, message_type in types.items() if message_type == IMAGE and kind != RAW}
        self._kind = kind
        self._options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if kind == "jpeg" else []
        self._store = get_typestore(Stores.ROS2_JAZZY)

    def __call__(self, topic: str, data: bytes) -> Encoded:
        """The message to write; an image whose encoding is not colour stays as it is."""
        if topic not in self._topics:
            return Encoded(topic, data)
        image: Any = self._store.deserialize_cdr(data, IMAGE)
        try:
            pixels = image_to_array(image)
        except CodecError:
            return Encoded(topic, data)
        good, packed = cv2.imencode(_EXTENSIONS[self._kind], pixels[:, :, ::-1], self._options)
        if not good:
            return Encoded(topic, data)
        form = f"{image.encoding}; {self._kind} compressed bgr8"
        message = self._store.types[COMPRESSED_IMAGE](header=image.header, format=form, data=packed.reshape(-1))
        return Encoded(topic + SUFFIX, bytes(self._store.serialize_cdr(message, COMPRESSED_IMAGE)))


def decompress(message: Any, store: Any) -> bytes:
    """A ``CompressedImage`` as a serialised ``Image`` (rgb8).

    Args:
        message: with the fields of the ROS message.
        store: rosbags type store that knows ``sensor_msgs``.

    Raises:
        CodecError: the data is no image.
    """
    pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise CodecError(f"CompressedImage '{message.format}' of {len(message.data)} bytes holds no image")
    height, width = pixels.shape[:2]
    image = store.types[IMAGE](
        header=message.header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(pixels[:, :, ::-1]).reshape(-1),
    )
    return bytes(store.serialize_cdr(image, IMAGE))
