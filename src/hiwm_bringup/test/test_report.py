"""A report is a folder that stands on its own: every file it names is there, and its text is escaped."""

import re

import numpy as np
import pytest
from hiwm_bringup.report import (
    Figure,
    Report,
    Section,
    Table,
    frame_border,
    text_table,
    write_report,
    write_video,
)

from hiwm_bringup import plots


def test_every_file_that_the_report_names_lies_beside_it(tmp_path):
    methods = {
        "base": {"success": 0.4, "ci95": [0.3, 0.5], "episodes": 40},
        "hiwm": {"success": 0.7, "ci95": [0.6, 0.8], "episodes": 40},
    }
    plots.success_plot(methods, tmp_path / "plots/success.png")
    plots.timeline_plot([(0, 0.1, 0.9), (1, 0.2, 0.8)], [(0, 0), (0.5, 2)], tmp_path / "plots/time.png")
    tree = [plots.Branch(1, -1, 0, 50, [False] * 51), plots.Branch(2, 1, 30, 60, [True] * 10 + [False] * 21)]
    plots.tree_plot(tree, tmp_path / "plots/tree.png")
    write_video(np.zeros((5, 128, 128, 3), np.uint8), tmp_path / "videos/a.mp4", 10)
    section = Section(
        "What came out",
        ["5 < 6 & so on"],
        Table(("a", "b"), [("1", "2")]),
        [Figure(f"plots/{n}.png", n) for n in ("success", "time", "tree")],
        [Figure("videos/a.mp4", "a")],
        "hiwm demo",
    )
    html = write_report(Report("Demo", "lead", [section]), tmp_path).read_text()
    files = re.findall(r'src="([^"]+)"', html)
    assert len(files) == 4 and all((tmp_path / file).stat().st_size > 300 for file in files)
    assert "5 &lt; 6 &amp; so on" in html
    assert not re.search(r"https?://", html)
    assert not list(tmp_path.rglob("*.partial"))


def test_videos_play_in_a_browser(tmp_path):
    import av

    frames = np.random.default_rng(0).integers(0, 256, (7, 90, 121, 3), dtype=np.uint8)
    write_video(frames, tmp_path / "v.mp4", 10)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) == 7
        assert stream.height >= 256 and stream.width % 2 == 0
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(frames[:0], tmp_path / "w.mp4", 10)


def test_the_border_marks_only_the_frames_it_should():
    frames = np.zeros((2, 20, 20, 3), np.uint8)
    marked = frame_border(frames, ["#ff0000", ""])
    assert (marked[0, 0, 5] == [255, 0, 0]).all() and (marked[0, 10, 10] == 0).all()
    assert (marked[1] == 0).all() and (frames == 0).all()


def test_the_terminal_table_is_aligned():
    text = text_table(Table(("name", "x"), [("a", "1"), ("longer", "22")]))
    assert text.splitlines() == ["name    x", "---------", "a       1", "longer  22"]
