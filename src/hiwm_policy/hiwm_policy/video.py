"""Short clips of episodes as mp4 (H.264), for reports and for looking at failures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt


def write_clip(path: Path, frames: npt.NDArray[np.uint8], rate_hz: float, scale: int = 2) -> None:
    """Write (T, H, W, 3) RGB frames, each pixel repeated ``scale`` times so that players do not blur it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = (side // 2 * 2 for side in large.shape[1:3])
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000), options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in large[:, :height, :width]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
