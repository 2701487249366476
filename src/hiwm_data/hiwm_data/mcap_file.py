"""One MCAP file that stays readable whatever happens to the process that writes it. No ROS."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mcap.writer import CompressionType, Writer

from hiwm_data.bag_metadata import FileSpan

_CHUNK_BYTES = 1 << 20
COMPRESSION = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4, "none": CompressionType.NONE}


class RecordingError(RuntimeError):
    """A recording that cannot start or go on; the text says why. What was written before stays readable."""


class _Sink:
    """An unbuffered file: when a write fails, nothing is left behind in a buffer that would fail again later."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self._position = 0
        # The name, too, has to survive a power cut.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            view = view[count:]
            self._position += count
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is buffered here."""

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        os.close(self._fd)


class McapFile:
    """Writes serialised messages; after :meth:`flush` everything so far is on disk as complete chunks.

    Not thread-safe. When the disk refuses a write the file is cut to its last complete chunk and closed.

    Args:
        path: of the new file.
        compression: of chunks, a key of :data:`COMPRESSION`.

    Raises:
        RecordingError: the file cannot be made.
    """

    def __init__(self, path: Path, compression: str = "zstd") -> None:
        self.path = path
        self.count = 0
        self._first_ns = self._last_ns = 0
        self._safe_size = 0
        self._open = True
        try:
            self._sink = _Sink(path)
        except OSError as error:
            raise RecordingError(f"{path}: cannot make the file: {error.strerror or error}") from error
        # mcap writes through any object with write, tell and flush.
        self._mcap = Writer(self._sink, chunk_size=_CHUNK_BYTES, compression=COMPRESSION[compression])  # type: ignore[arg-type]
        self.guarded(lambda: self._mcap.start(profile="ros2", library="hiwm_data"))

    @property
    def is_open(self) -> bool:
        """Whether more can be written."""
        return self._open

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._sink.tell()

    @property
    def span(self) -> FileSpan:
        """What the file holds so far."""
        return FileSpan(self.path.name, self._first_ns, self._last_ns, self.count)

    def schema(self, name: str, text: bytes, encoding: str = "ros2msg") -> int:
        """Embed a message definition; returns its id."""
        return self._mcap.register_schema(name, encoding, text)

    def channel(self, topic: str, schema: int, metadata: Mapping[str, str], encoding: str = "cdr") -> int:
        """Announce a topic; returns its id."""
        return self._mcap.register_channel(topic, encoding, schema, dict(metadata))

    def note(self, name: str, values: Mapping[str, str]) -> None:
        """Add a metadata record.

        Raises:
            RecordingError: the disk does not take it.
        """
        self.guarded(lambda: self._mcap.add_metadata(name, dict(values)))

    def write(self, channel: int, data: bytes, log_ns: int, publish_ns: int, sequence: int) -> None:
        """Add one message.

        Raises:
            RecordingError: the disk does not take it; the file is closed then, complete up to the last flush.
        """
        self.guarded(lambda: self._mcap.add_message(channel, log_ns, data, publish_ns, sequence))
        self._first_ns = min(self._first_ns, log_ns) if self.count else log_ns
        self._last_ns = max(self._last_ns, log_ns)
        self.count += 1

    def flush(self) -> None:
        """Put everything so far on disk.

        Raises:
            RecordingError: as :meth:`write`.
        """
        self.guarded(self._flush)

    def close(self) -> None:
        """Write the index and close the file.

        Raises:
            RecordingError: as :meth:`write`.
        """
        if self._open:
            self.guarded(self._finish)

    def guarded(self, action: Callable[[], object]) -> None:
        """Run a write of this bag; if the disk refuses, cut the file to what is complete and close it.

        Raises:
            RecordingError: naming the file and what the disk said.
        """
        if not self._open:
            raise RecordingError(f"{self.path}: the bag is closed")
        try:
            action()
        except OSError as error:
            self._open = False
            self._sink.cut(self._safe_size)
            self._sink.close()
            raise RecordingError(f"{self.path}: cannot write: {error.strerror or error}; recording stopped") from error

    def _flush(self) -> None:
        self._mcap.flush()
        self._safe_size = self._sink.tell()
        self._sink.sync()

    def _finish(self) -> None:
        self._flush()
        self._mcap.finish()
        self._sink.sync()
        self._sink.close()
        self._open = False
