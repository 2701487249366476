"""An HTML report with plots and videos beside it: one folder that can be moved or sent as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt
from hiwm_rig.files import write_text

HUMAN_COLOUR, POLICY_COLOUR, BASE_COLOUR, TRUST_COLOUR = "#d1495b", "#30638e", "#8d99ae", "#edae49"
_MIN_VIDEO_SIDE = 256


@dataclass(frozen=True)
class Figure:
    """A plot or a video file, relative to the report."""

    file: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One section: text, then a table, plots, videos, and commands."""

    heading: str
    text: Sequence[str] = ()
    table: Table | None = None
    plots: Sequence[Figure] = ()
    videos: Sequence[Figure] = ()
    code: str = ""


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    lead: str
    sections: Sequence[Section]


def write_report(report: Report, out: Path) -> Path:
    """Write ``report.html`` into ``out``; its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    path = out / "report.html"
    write_text(path, environment.get_template("report.html.j2").render(report=report))
    return path


def text_table(table: Table) -> str:
    """The same table for a terminal."""
    rows = [list(table.header), *[list(row) for row in table.rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_video(frames: npt.NDArray[np.uint8], path: Path, fps: float) -> None:
    """(T, H, W, 3) uint8 RGB as mp4 (H.264, yuv420p: plays in any browser); small frames are enlarged.

    Raises:
        ValueError: no frames.
    """
    import av

    if len(frames) == 0:
        raise ValueError(f"{path}: a video needs at least one frame")
    scale = max(1, -(-_MIN_VIDEO_SIDE // frames.shape[1]))
    height, width = (side * scale // 2 * 2 for side in frames.shape[1:3])
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20", "preset": "fast"}
        for image in frames:
            large = image.repeat(scale, axis=0).repeat(scale, axis=1)[:height, :width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")))
        container.mux(stream.encode(None))


def frame_border(frames: npt.NDArray[np.uint8], colours: Sequence[str], width: int = 4) -> npt.NDArray[np.uint8]:
    """Frames with a border in one colour per frame (``#rrggbb``; empty: none): who drives, at a glance."""
    out = np.array(frames)
    for image, colour in zip(out, colours, strict=True):
        if colour:
            rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            image[:width] = image[-width:] = rgb
            image[:, :width] = image[:, -width:] = rgb
    return out
