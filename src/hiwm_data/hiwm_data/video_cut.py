"""Episodes cut out of a video file without decoding it: their packets are copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av

from hiwm_data.features import DatasetError


def cut_file(source: Path, target: Path, fps: float, clips: Sequence[tuple[int, int]]) -> bool:
    """Copy clips (first frame, number of frames) of a file, one after the other, into a new one.

    Returns:
        False, and no file, where a clip does not start with a key frame or is not one packet per frame.

    Raises:
        DatasetError: naming ``source``, if it cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    at = 0
    try:
        with av.open(str(source)) as container, av.open(str(target), "w") as out:
            stream = container.streams.video[0]
            copy = out.add_stream_from_template(stream)
            copy.time_base = 1 / rate
            for first, count in clips:
                packets = list(_clip(container, stream, fps, first, count))
                if len(packets) != count or not packets[0].is_keyframe:
                    break
                for number, packet in enumerate(packets, at):
                    packet.pts = packet.dts = number
                    packet.time_base = 1 / rate
                    packet.stream = copy
                    out.mux(packet)
                at += count
    except (av.error.FFmpegError, IndexError, OSError) as error:
        target.unlink(missing_ok=True)
        raise DatasetError(f"{source}: cannot read: {error}") from error
    complete = at == sum(count for _, count in clips)
    if not complete:
        target.unlink(missing_ok=True)
    return complete


def _clip(
    container: av.container.InputContainer, stream: av.VideoStream, fps: float, first: int, count: int
) -> Iterator[av.Packet]:
    """Packets of frames ``first`` to ``first + count``; none where coding order is not showing order."""
    assert stream.time_base is not None
    container.seek((stream.start_time or 0) + int((first + 0.5) / fps / stream.time_base), stream=stream, backward=True)
    for packet in container.demux(stream):
        if packet.pts is None:
            return
        number = round(float(packet.pts * stream.time_base) * fps)
        if number >= first + count or packet.pts != packet.dts:
            return
        if number >= first:
            yield packet
