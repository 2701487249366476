"""A bounded cache of decoded frames on disk, shared by all processes that read a dataset.

Blocks of frames live in slots of one sparse file; block ``b`` belongs into slot ``b % slots``. With as many slots as
blocks nothing is ever decoded twice; with fewer, blocks that share a slot take turns. Reading copies out of the file
(no memory map), so a process holds only the frames it asked for, and a full disk is an error, not a crash.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiwm_data.features import DatasetError

log = logging.getLogger(__name__)

_BLOCK_BITS = 32
_BLOCK_MASK = (1 << _BLOCK_BITS) - 1


class FrameCache:
    """Slots for blocks of ``frames_per_block`` frames of ``frame_bytes`` bytes.

    A slot's tag names its block and counts its changes. A writer empties the tag, writes, then sets it; a reader whose
    tag is not the same before and after copying has read nothing. Writers exclude each other by two locks, since each
    alone has a gap: a record lock (``lockf``) belongs to a process, so two caches of one process both get it; a file
    lock (``flock``) belongs to an open file, so a forked process has its parent's.

    Args:
        path: of the frames; the tags lie beside it. Both are made where they are missing.
        slots: how many blocks are kept; 0 keeps none.
        frames_per_block: frames in a block.
        frame_bytes: size of a frame.

    Raises:
        DatasetError: if the files cannot be made.
    """

    def __init__(self, path: Path, slots: int, frames_per_block: int, frame_bytes: int) -> None:
        self.path = path
        self.slots = slots
        self._frames_per_block = frames_per_block
        self._frame_bytes = frame_bytes
        self._block_bytes = frames_per_block * frame_bytes
        self._writing = threading.Lock()
        self._full = False
        if not slots:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._frames = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self._tag_file = os.open(path.with_suffix(".tags"), os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._frames, slots * self._block_bytes)
            os.ftruncate(self._tag_file, slots * 8)
            self._map = mmap.mmap(self._tag_file, slots * 8)
        except OSError as error:
            message = f"{path.parent}: cannot cache decoded frames here ({error}); set HIWM_CACHE to a writable folder"
            raise DatasetError(message) from error
        self._tags = np.frombuffer(self._map, dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache, (self.path, self.slots, self._frames_per_block, self._frame_bytes)

    def read(self, block: int, frame: int, out: np.ndarray) -> bool:
        """Copy consecutive frames of a block, from number ``frame`` on, into ``out``; False if it is not kept."""
        if not self.slots:
            return False
        slot = block % self.slots
        tag = int(self._tags[slot])
        if tag & _BLOCK_MASK != block + 1:
            return False
        at = slot * self._block_bytes + frame * self._frame_bytes
        got = os.preadv(self._frames, [out.data], at)
        return got == out.nbytes and int(self._tags[slot]) == tag

    def write(self, block: int, frames: np.ndarray) -> None:
        """Keep a block; the last of an episode may be shorter. A full disk ends the keeping, not the reading.

        Raises:
            OSError: if the file cannot be written for another reason.
        """
        if not self.slots or self._full:
            return
        slot = block % self.slots
        with self._writing, self._locked(slot):
            try:
                tag = int(self._tags[slot])
                if tag & _BLOCK_MASK == block + 1:
                    return
                changes = ((tag >> _BLOCK_BITS) + 1) & (_BLOCK_MASK >> 1)
                self._tags[slot] = changes << _BLOCK_BITS
                os.pwrite(self._frames, frames.data, slot * self._block_bytes)
                self._tags[slot] = changes << _BLOCK_BITS | block + 1
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._full = True
                log.warning("%s: the disk is full; frames are decoded again each time they are read", self.path)

    @contextlib.contextmanager
    def _locked(self, slot: int) -> Iterator[None]:
        fcntl.flock(self._tag_file, fcntl.LOCK_EX)
        try:
            fcntl.lockf(self._tag_file, fcntl.LOCK_EX, 8, 8 * slot)
            try:
                yield
            finally:
                fcntl.lockf(self._tag_file, fcntl.LOCK_UN, 8, 8 * slot)
        finally:
            fcntl.flock(self._tag_file, fcntl.LOCK_UN)


def remove_others(folder: Path, prefix: str, keep: Path) -> None:
    """Remove files of ``prefix`` made from another version of the dataset; whoever has them open can go on reading."""
    for path in folder.glob(f"{prefix}*"):
        if path.stem != keep.stem:
            path.unlink(missing_ok=True)
