"""MCAP files record by record, also without their end and with damage inside. No ROS."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk


class McapReadError(ValueError):
    """A file that is no MCAP file; the text names it."""


@dataclass(frozen=True)
class FileSummary:
    """What the index of a complete file says.

    Attributes:
        channels: by id.
        types: message type by topic.
        counts: messages by topic.
        definitions: text by message type.
        first_ns, last_ns: log times.
    """

    channels: dict[int, Channel]
    types: dict[str, str]
    counts: Counter[str]
    definitions: dict[str, str]
    first_ns: int
    last_ns: int


def file_summary(path: Path) -> FileSummary | None:
    """The index of a file; None where it has none (its writer was killed, or is still writing)."""
    try:
        with path.open("rb") as stream:
            summary = make_reader(stream).get_summary()
    except (McapError, EOFError, ValueError, OSError, struct.error):
        return None
    if summary is None or summary.statistics is None:
        return None
    names = {i: c.topic for i, c in summary.channels.items()}
    schemas = {c.topic: summary.schemas.get(c.schema_id) for c in summary.channels.values()}
    counts = Counter({names[i]: n for i, n in summary.statistics.channel_message_counts.items() if n})
    return FileSummary(
        channels=dict(summary.channels),
        types={topic: schema.name if schema else "" for topic, schema in schemas.items()},
        counts=counts,
        definitions={s.name: s.data.decode() for s in summary.schemas.values()},
        first_ns=summary.statistics.message_start_time,
        last_ns=summary.statistics.message_end_time,
    )


class FileScan:
    """Reads one file from its start to where it ends.

    Args:
        path: of the file.
        note: name of the metadata records to keep.
        since_ns: chunks that end before are skipped where the file's index makes that safe.

    Attributes:
        metadata: of the records of that name, as far as read.
        definitions: text by message type, as far as read.
        fresh: whether one of these two grew since the reader last set it to False.
        complete: whether the file had its end and no damage; known when it has been read.
        damaged: chunks left out.
    """

    def __init__(self, path: Path, note: str, since_ns: int = 0) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self.fresh = False
        self.complete = False
        self.damaged = 0
        self._note = note
        self._since_ns = since_ns
        self._topics: dict[int, tuple[str, str]] = {}
        self._schemas: dict[int, str] = {}

    def messages(self) -> Iterator[tuple[str, str, Message]]:
        """(topic, type, record) of each message in the order of the file.

        Raises:
            McapReadError: the file does not begin as an MCAP file does.
        """
        for record in self.records():
            if isinstance(record, Message) and record.channel_id in self._topics:
                yield *self._topics[record.channel_id], record

    def records(self) -> Iterator[McapRecord]:
        """All records, those inside chunks included.

        Raises:
            McapReadError: as :meth:`messages`.
        """
        indexed = file_summary(self.path) if self._since_ns else None
        if indexed is not None:
            # The chunks that announce the channels may be among those that are skipped.
            self._topics = {i: (c.topic, indexed.types[c.topic]) for i, c in indexed.channels.items()}
            self.definitions, self.fresh = dict(indexed.definitions), True
        with self.path.open("rb") as stream:
            records = iter(StreamReader(stream, emit_chunks=True).records)
            started = False
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    self.complete = not self.damaged
                    return
                except (McapError, EOFError, ValueError, struct.error) as error:
                    if not started:
                        raise McapReadError(f"{self.path}: not an MCAP file: {error}") from error
                    return
                started = True
                if isinstance(record, Chunk):
                    if indexed is not None and record.message_end_time < self._since_ns:
                        continue
                    yield from self._inside(record)
                else:
                    self._learn(record)
                    yield record

    def _inside(self, chunk: Chunk) -> list[McapRecord]:
        try:
            records = breakup_chunk(chunk, validate_crc=True)
        except Exception:  # each compression has its own kinds of errors; the chunks after this one may be whole
            self.damaged += 1
            return []
        for record in records:
            self._learn(record)
        return records

    def _learn(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record.name
            self.definitions[record.name] = record.data.decode()
            self.fresh = True
        elif isinstance(record, Channel):
            self._topics[record.id] = (record.topic, self._schemas.get(record.schema_id, ""))
        elif isinstance(record, Metadata) and record.name == self._note:
            self.metadata.update(record.metadata)
            self.fresh = True
