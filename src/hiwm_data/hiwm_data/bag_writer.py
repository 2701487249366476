"""Writing a rosbag2 folder (MCAP files and ``metadata.yaml``) that stays readable whatever happens to the process.

No ROS. A long bag is a row of files, as rosbag2 splits them: the index that an open MCAP file keeps in memory stays
small, and a file that is damaged takes only its own minutes with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiwm_data.bag_metadata import FileSpan, TopicEntry, write_metadata
from hiwm_data.definitions import Definition
from hiwm_data.mcap_file import COMPRESSION, McapFile, RecordingError
from hiwm_data.topics import TopicSpec

__all__ = ["METADATA_RECORD", "BagFormat", "BagWriter", "RecordingError"]

METADATA_RECORD = "hiwm"


@dataclass(frozen=True)
class BagFormat:
    """How a bag lies on disk.

    Attributes:
        compression: of the chunks: ``zstd``, ``lz4`` or ``none``.
        max_file_s: a new file begins after so many seconds; 0: never.
        max_file_mb: a new file begins after so many megabytes; 0: never.
    """

    compression: str = "zstd"
    max_file_s: float = 300.0
    max_file_mb: float = 2000.0


@dataclass
class _Topic:
    spec: TopicSpec
    digest: str
    channel: int = 0
    count: int = 0


class BagWriter:
    """One bag: a folder with MCAP files ``NAME_0.mcap``, ``NAME_1.mcap``, ... and ``metadata.yaml``.

    Messages are serialised CDR and written as they are. After :meth:`flush` everything so far is on disk as complete
    chunks; a reader that reads from the start gets it even if the process dies. Not thread-safe.

    Args:
        path: folder to make.
        topics: what will be written.
        definitions: by message type, for every type in ``topics``.
        metadata: texts to keep with the bag (rig file, checkpoints, revision, host).
        form: compression and size of the files.

    Raises:
        RecordingError: if ``path`` exists or cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        topics: Sequence[TopicSpec],
        definitions: Mapping[str, Definition],
        metadata: Mapping[str, str],
        form: BagFormat | None = None,
    ) -> None:
        self.path = Path(path)
        self._form = form or BagFormat()
        if self._form.compression not in COMPRESSION:
            raise RecordingError(f"compression must be one of {sorted(COMPRESSION)}, got '{self._form.compression}'")
        make_folder(self.path)
        self._metadata = dict(metadata)
        self._definitions = dict(definitions)
        self._topics = {spec.name: _Topic(spec, definitions[spec.type].digest) for spec in topics}
        self._finished: list[FileSpan] = []
        self._file = self._begin_file()
        self.flush()

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        return sum(t.count for t in self._topics.values())

    @property
    def size(self) -> int:
        """Bytes of the file that is being written."""
        return self._file.size

    def counts(self) -> dict[str, int]:
        """Messages by topic."""
        return {name: t.count for name, t in self._topics.items()}

    def write(self, topic: str, data: bytes, log_ns: int, publish_ns: int) -> None:
        """Write one serialised message.

        Raises:
            RecordingError: if the disk does not take it; the bag is closed then, complete up to the last flush.
        """
        if self._is_full(log_ns):
            self._next_file()
        entry = self._topics[topic]
        self._file.write(entry.channel, data, log_ns, publish_ns, entry.count)
        entry.count += 1

    def flush(self) -> None:
        """Put everything so far on disk.

        Raises:
            RecordingError: as :meth:`write`.
        """
        self._file.flush()
        self._file.guarded(self._write_metadata)

    def annotate(self, values: Mapping[str, str]) -> None:
        """Keep more texts with the bag, known only now (how an episode ended).

        Raises:
            RecordingError: as :meth:`write`.
        """
        self._metadata |= values
        self._file.note(METADATA_RECORD, values)

    def close(self) -> None:
        """Finish the bag with its index.

        Raises:
            RecordingError: as :meth:`write`.
        """
        if self._file.is_open:
            self.flush()
            self._file.close()

    def _begin_file(self) -> McapFile:
        name = f"{self.path.resolve().name}_{len(self._finished)}.mcap"
        file = McapFile(self.path / name, self._form.compression)
        # Every file holds all that is needed to read it alone.
        file.note(METADATA_RECORD, self._metadata)
        schemas: dict[str, int] = {}
        for topic in self._topics.values():
            definition = self._definitions[topic.spec.type]
            if topic.spec.type not in schemas:
                schemas[topic.spec.type] = file.schema(topic.spec.type, definition.text.encode())
            qos = {"offered_qos_profiles": topic.spec.qos_yaml, "topic_type_hash": topic.digest}
            topic.channel = file.channel(topic.spec.name, schemas[topic.spec.type], qos)
        return file

    def _is_full(self, log_ns: int) -> bool:
        span, form = self._file.span, self._form
        if not span.count:
            return False
        too_long = form.max_file_s and log_ns - span.first_ns > form.max_file_s * 1e9
        return bool(too_long or (form.max_file_mb and self._file.size > form.max_file_mb * 1e6))

    def _next_file(self) -> None:
        self._file.close()
        self._finished.append(self._file.span)
        self._file = self._begin_file()
        self.flush()

    def _write_metadata(self) -> None:
        topics = [
            TopicEntry(t.spec.name, t.spec.type, t.spec.qos_yaml, t.digest, t.count) for t in self._topics.values()
        ]
        write_metadata(self.path, [*self._finished, self._file.span], topics, self._metadata)


def make_folder(path: Path) -> None:
    """Make the folder of a recording.

    Raises:
        RecordingError: it exists (a recording never overwrites), or the disk refuses.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        raise RecordingError(f"{path}: exists already; a recording never overwrites") from error
    except OSError as error:
        raise RecordingError(f"{path}: cannot make the folder: {error.strerror or error}") from error
