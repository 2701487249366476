"""What is written aside is there as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hiwm_rig.files import write_json, write_text, written_aside


def test_the_old_file_is_readable_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file.txt"
    write_text(path, "old")
    with written_aside(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        partial.write_text("new")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), written_aside(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": [1]})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1]} and list(tmp_path.iterdir()) == [path]


def test_an_unfinished_file_of_a_killed_run_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.with_name("file.bin.partial").write_bytes(b"left behind")
    with written_aside(path) as partial, partial.open("ab") as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
