"""Files that are there as a whole or not at all: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_SUFFIX = ".partial"


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """``FOLDER/NAME.partial`` to write into; it becomes ``FOLDER/NAME`` when the block ends.

    A reader, a kill or a power cut finds the old file or the new one. Where the block raises, the old file
    stays and the unfinished one is removed. The folder is made where it is missing.

    Raises:
        OSError: if the file cannot be written or renamed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    partial.unlink(missing_ok=True)
    try:
        yield partial
        # Without this a power cut may leave the new name with none of the content.
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file with :func:`written_aside`."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with :func:`written_aside`.

    Raises:
        TypeError: if ``value`` holds something JSON has no form for; ``path`` stays as it was.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")
