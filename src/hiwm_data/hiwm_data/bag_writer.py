"""Writing a rosbag2 folder (MCAP and ``metadata.yaml``) that stays readable whatever happens to the process. No ROS."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import CompressionType, Writer

from hiwm_data.definitions import Definition
from hiwm_data.topics import TopicSpec

METADATA_RECORD = "hiwm"
_CHUNK_BYTES = 1 << 20
_ROSBAG2_VERSION = 9
_COMPRESSION = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4, "none": CompressionType.NONE}


class RecordingError(RuntimeError):
    """A recording that cannot start or go on; the text says why. What was written before stays readable."""


class _Sink:
    """An unbuffered file: when a write fails, nothing is left behind in a buffer that would fail again later."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self._position = 0

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


@dataclass
class _Topic:
    spec: TopicSpec
    digest: str
    channel: int
    count: int = 0


class BagWriter:
    """One bag: a folder with one MCAP file.

    Messages are serialised CDR and written as they are. After :meth:`flush` everything so far is on disk as complete
    chunks; a reader that reads from the start gets it even if the process dies. Not thread-safe.

    Args:
        path: folder to make.
        topics: what will be written.
        definitions: by message type, for every type in ``topics``.
        metadata: texts to keep with the bag (rig file, checkpoints, revision, host).
        compression: of chunks: ``zstd``, ``lz4`` or ``none``.

    Raises:
        RecordingError: if ``path`` exists or cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        topics: Sequence[TopicSpec],
        definitions: Mapping[str, Definition],
        metadata: Mapping[str, str],
        compression: str = "zstd",
    ) -> None:
        self.path = Path(path)
        if compression not in _COMPRESSION:
            raise RecordingError(f"compression must be one of {sorted(_COMPRESSION)}, got '{compression}'")
        try:
            self.path.mkdir(parents=True)
        except FileExistsError as error:
            raise RecordingError(f"{self.path}: exists already; a recording never overwrites") from error
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot make the folder: {error}") from error
        self.file = self.path / f"{self.path.resolve().name}_0.mcap"
        self._metadata = dict(metadata)
        self._first_ns = self._last_ns = 0
        self._safe_size = 0
        self._open = True
        self._sink = _Sink(self.file)
        # mcap writes through any object with write, tell and flush.
        self._mcap = Writer(self._sink, chunk_size=_CHUNK_BYTES, compression=_COMPRESSION[compression])  # type: ignore[arg-type]
        self._topics: dict[str, _Topic] = {}
        self._guarded(lambda: self._start(topics, definitions))

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        return sum(t.count for t in self._topics.values())

    @property
    def size(self) -> int:
        """Bytes of the MCAP file so far."""
        return self._sink.tell()

    def counts(self) -> dict[str, int]:
        """Messages by topic."""
        return {name: t.count for name, t in self._topics.items()}

    def write(self, topic: str, data: bytes, log_ns: int, publish_ns: int) -> None:
        """Write one serialised message.

        Raises:
            RecordingError: if the disk does not take it; the bag is closed then, complete up to the last flush.
        """
        entry = self._topics[topic]
        self._guarded(lambda: self._mcap.add_message(entry.channel, log_ns, data, publish_ns, entry.count))
        if not self.message_count:
            self._first_ns = log_ns
        entry.count += 1
        self._first_ns = min(self._first_ns, log_ns)
        self._last_ns = max(self._last_ns, log_ns)

    def flush(self) -> None:
        """Put everything so far on disk.

        Raises:
            RecordingError: as :meth:`write`.
        """
        self._guarded(self._flush)

    def close(self) -> None:
        """Finish the file with its index.

        Raises:
            RecordingError: as :meth:`write`.
        """
        if self._open:
            self._guarded(self._finish)

    def _start(self, topics: Sequence[TopicSpec], definitions: Mapping[str, Definition]) -> None:
        self._mcap.start(profile="ros2", library="hiwm_data")
        self._mcap.add_metadata(METADATA_RECORD, self._metadata)
        schemas: dict[str, int] = {}
        for spec in topics:
            definition = definitions[spec.type]
            if spec.type not in schemas:
                schemas[spec.type] = self._mcap.register_schema(spec.type, "ros2msg", definition.text.encode())
            qos = {"offered_qos_profiles": spec.qos_yaml, "topic_type_hash": definition.digest}
            channel = self._mcap.register_channel(spec.name, "cdr", schemas[spec.type], qos)
            self._topics[spec.name] = _Topic(spec, definition.digest, channel)
        self._flush()

    def _flush(self) -> None:
        self._mcap.flush()
        self._safe_size = self._sink.tell()
        self._sink.sync()
        self._write_metadata()

    def _finish(self) -> None:
        self._flush()
        self._mcap.finish()
        self._sink.sync()
        self._sink.close()
        self._open = False

    def _guarded(self, action: Callable[[], object]) -> None:
        """Run a write; if the disk refuses, cut the file to what is complete and close it."""
        if not self._open:
            raise RecordingError(f"{self.file}: the bag is closed")
        try:
            action()
        except OSError as error:
            self._open = False
            self._sink.cut(self._safe_size)
            self._sink.close()
            raise RecordingError(f"{self.file}: cannot write: {error.strerror or error}; recording stopped") from error

    def _write_metadata(self) -> None:
        """``metadata.yaml``, aside and renamed, at every flush: a crash leaves a bag that tools can open."""
        span = {
            "duration": {"nanoseconds": self._last_ns - self._first_ns},
            "starting_time": {"nanoseconds_since_epoch": self._first_ns},
            "message_count": self.message_count,
        }
        information = {
            "version": _ROSBAG2_VERSION,
            "storage_identifier": "mcap",
            **span,
            "topics_with_message_count": [_topic_entry(t) for t in self._topics.values()],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self.file.name],
            "files": [{"path": self.file.name, **span}],
            "custom_data": self._metadata or None,
            "ros_distro": "jazzy",
        }
        text = yaml.dump({"rosbag2_bagfile_information": information}, Dumper=_PlainDumper, sort_keys=False)
        aside = self.path / "metadata.yaml.partial"
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(self.path / "metadata.yaml")
        except OSError:
            aside.unlink(missing_ok=True)
            raise


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors: not every reader of ``metadata.yaml`` knows them."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts again instead of pointing at the first."""
        return True


def _topic_entry(topic: _Topic) -> dict[str, Any]:
    return {
        "topic_metadata": {
            "name": topic.spec.name,
            "type": topic.spec.type,
            "serialization_format": "cdr",
            "offered_qos_profiles": yaml.safe_load(topic.spec.qos_yaml),
            "type_description_hash": topic.digest,
        },
        "message_count": topic.count,
    }
