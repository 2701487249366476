"""Camera frames in mp4 files that hold many episodes: writing, and reading any run of them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
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

_OPEN_FILES = 4


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

    @property
    def path(self) -> Path:
        """The file that is written, or was written last."""
        chunk, file = chunk_and_file(self._number)
        return self._root / VIDEO_PATH.format(video_key=self._key, chunk_index=chunk, file_index=file)

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
        path = self.path
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


class ClipReader:
    """Reads runs of consecutive frames out of video files that hold many, keeping the last few files open.

    Not safe for several threads at once; a forked process opens the files anew.

    Args:
        fps: frames per second.
        shape: (H, W, 3) that every frame must have.
    """

    def __init__(self, fps: float, shape: tuple[int, ...]) -> None:
        self._fps = fps
        self._shape = shape
        self._open: OrderedDict[Path, _OpenVideo] = OrderedDict()
        self._process = os.getpid()

    def read(self, path: Path, first: int, count: int) -> np.ndarray:
        """Frames ``first`` to ``first + count`` of a file, uint8 [count, H, W, 3] RGB.

        Raises:
            DatasetError: naming the file, if it is missing, damaged, lacks a frame, or has frames of another size.
        """
        if os.getpid() != self._process:
            self._open, self._process = OrderedDict(), os.getpid()
        try:
            return self._read(path, first, count)
        except (av.error.FFmpegError, IndexError, OSError) as error:
            self._open.pop(path, None)
            raise DatasetError(f"{path}: cannot decode: {error}") from error

    def _read(self, path: Path, first: int, count: int) -> np.ndarray:
        video = self._video(path)
        out = np.empty((count, *self._shape), np.uint8)
        missing = set(range(count))
        for number, frame in video.frames_from(first):
            if number >= first:
                if (frame.height, frame.width) != self._shape[:2]:
                    got = f"{frame.width}x{frame.height}"
                    raise DatasetError(f"{path}: frames are {got}, the dataset says {self._shape[1]}x{self._shape[0]}")
                if number < first + count:
                    out[number - first] = _to_rgb(frame)
                    missing.discard(number - first)
            if number >= first + count - 1:
                break
        if missing:
            self._open.pop(path, None)
            raise DatasetError(f"{path}: {len(missing)} frames are missing, the first is number {first + min(missing)}")
        return out

    def _video(self, path: Path) -> _OpenVideo:
        if path not in self._open:
            if not path.is_file():
                raise DatasetError(f"{path}: no such video file")
            self._open[path] = _OpenVideo(path, self._fps)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]


class _OpenVideo:
    """A file and the place in it up to which frames were decoded."""

    def __init__(self, path: Path, fps: float) -> None:
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._fps = fps
        self._next = 0
        self._frames: Iterator[av.VideoFrame] = self._decode()

    def close(self) -> None:
        """Give back the decoder's memory now, not when the garbage collector gets to it."""
        self._frames = iter(())
        self._container.close()

    def frames_from(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Numbered frames, from the key frame before number ``first`` on, or from where the last call stopped."""
        if first != self._next:
            seconds = (first + 0.5) / self._fps
            assert self._stream.time_base is not None
            start = self._stream.start_time or 0
            self._container.seek(start + int(seconds / self._stream.time_base), stream=self._stream, backward=True)
            self._frames = self._decode()
        for frame in self._frames:
            number = round(float(frame.time) * self._fps)
            self._next = number + 1
            yield number, frame

    def _decode(self) -> Iterator[av.VideoFrame]:
        return iter(self._container.decode(self._stream))
