"""Camera frames in mp4 files that hold many episodes, and their decoding in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.video.frame
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from hiwm_data.features import DatasetError
from hiwm_data.layout import VIDEO_FILE_MB, VIDEO_PATH, chunk_and_file


@dataclass(frozen=True)
class VideoOptions:
    """How frames are encoded: H.264, short groups of pictures so that any frame is cheap to reach.

    Attributes:
        crf: constant rate factor; 14 is visually lossless at these sizes.
        gop: frames between key frames at most; every episode starts with one.
        threads: of the encoder; shards are generated in parallel, so one is right.
        file_mb: a file that has reached this size gets no further episode.
    """

    crf: int = 14
    preset: str = "veryfast"
    gop: int = 10
    threads: int = 1
    file_mb: float = VIDEO_FILE_MB


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode lies in the video files of one camera, times in seconds."""

    chunk_index: int
    file_index: int
    from_timestamp: float
    to_timestamp: float


class VideoSink:
    """Appends episodes of one camera to its files."""

    def __init__(self, root: Path, key: str, shape: tuple[int, ...], fps: float, options: VideoOptions) -> None:
        height, width = shape[:2]
        if height % 2 or width % 2:
            raise DatasetError(f"column '{key}': yuv420p needs an even height and width, got {height}x{width}")
        self._root = root
        self._key = key
        self._size = (height, width)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._options = options
        self._number = -1
        self._frames = 0
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._bytes = 0
        self._reformatter = VideoReformatter()

    def add(self, frames: np.ndarray) -> VideoSpan:
        """Encode [T, H, W, 3] uint8 RGB and say where it lies."""
        if self._container is None or self._bytes > self._options.file_mb * 1e6:
            self._open_next()
        assert self._container is not None and self._stream is not None
        start = self._frames
        for i, pixels in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = self._reformatter.reformat(rgb, format="yuv420p", interpolation=Interpolation.AREA)
            frame.pts = self._frames
            frame.time_base = 1 / self._rate
            if i == 0:
                frame.pict_type = av.video.frame.PictureType.I
            packets = self._stream.encode(frame)
            self._container.mux(packets)
            self._bytes += sum(packet.size for packet in packets)
            self._frames += 1
        chunk, file = chunk_and_file(self._number)
        return VideoSpan(chunk, file, float(start / self._rate), float(self._frames / self._rate))

    def close(self) -> None:
        """Finish the open file."""
        if self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        self._container = self._stream = None

    def _open_next(self) -> None:
        self.close()
        self._number += 1
        self._frames = self._bytes = 0
        chunk, file = chunk_and_file(self._number)
        path = self._root / VIDEO_PATH.format(video_key=self._key, chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        container = av.open(str(path), "w")
        stream = container.add_stream("libx264", rate=self._rate)
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / self._rate
        stream.codec_context.thread_count = self._options.threads
        # No B frames: presentation order is coding order, so time stamps start at 0 without an edit list.
        stream.options = {
            "crf": str(self._options.crf),
            "preset": self._options.preset,
            "g": str(self._options.gop),
            "bf": "0",
        }
        self._container, self._stream = container, stream


def decode_file(path: Path, fps: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (frame number, uint8 [H, W, 3] RGB) of a whole file, in order.

    Raises:
        DatasetError: naming the file, if it is missing, truncated or not a video.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield round(float(frame.time) * fps), _to_rgb(frame)
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(f"{path}: cannot decode: {error}") from error


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    # OpenCV is three times as fast as swscale here and rounds instead of truncating; it knows only this format.
    if (
        frame.format.name == "yuv420p"
        and frame.color_range != ColorRange.JPEG
        and not (frame.width % 2 or frame.height % 2)
    ):
        return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
    return frame.to_ndarray(format="rgb24")


def fill_rows(path: Path, fps: float, rows: np.ndarray, out: np.ndarray, progress: Callable[[], object]) -> None:
    """Decode a file into the rows of ``out``.

    Args:
        path: the mp4 file.
        fps: frames per second.
        rows: [frames of the file] row of ``out`` of each frame, -1 where it is not wanted.
        out: [N, H, W, 3] uint8.
        progress: called once per frame written.

    Raises:
        DatasetError: if frames are missing or have another size.
    """
    missing = set(np.flatnonzero(rows >= 0).tolist())
    for number, pixels in decode_file(path, fps):
        if not 0 <= number < len(rows) or rows[number] < 0:
            continue
        if pixels.shape != out.shape[1:]:
            raise DatasetError(f"{path}: frames are {pixels.shape}, the dataset says {out.shape[1:]}")
        out[rows[number]] = pixels
        missing.discard(number)
        progress()
    if missing:
        raise DatasetError(f"{path}: {len(missing)} frames are missing, the first is number {min(missing)}")
