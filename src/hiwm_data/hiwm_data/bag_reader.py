"""Reading a bag: rosbag2 folders and single files, MCAP or SQLite, complete or cut off by a crash. No ROS."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hiwm_rig.contract import Rig, parse_rig
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from hiwm_data.bag_writer import METADATA_RECORD


class BagError(ValueError):
    """A bag that cannot be read; the text names the file or topic and what was expected."""


class BagMessage(NamedTuple):
    """One recorded message; ``data`` is serialised CDR."""

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass(frozen=True)
class BagSummary:
    """What a bag holds.

    Attributes:
        types: message type by topic, for topics with messages.
        counts: messages by topic.
        start_ns: log time of the first message; 0 in an empty bag.
        end_ns: log time of the last message.
        metadata: texts kept by the recorder; empty in foreign bags.
        complete: False where the file ends without its index (the recorder was killed).
    """

    types: dict[str, str]
    counts: dict[str, int]
    start_ns: int
    end_ns: int
    metadata: dict[str, str]
    complete: bool


class Bag:
    """A recorded bag.

    Args:
        path: rosbag2 folder, or an ``.mcap`` or ``.db3`` file.

    Raises:
        BagError: if there is no bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = _storage_files(self.path)
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._definitions: dict[str, str] = {}
        self._metadata: dict[str, str] = _folder_metadata(self.path)
        self._complete = True
        self._scanned = False

    @property
    def complete(self) -> bool:
        """Whether the files had their ends, as far as they have been read."""
        return self._complete

    @property
    def metadata(self) -> dict[str, str]:
        """Texts kept by the recorder (``rig``, ``checkpoints``, ``git_revision``, ...); empty in foreign bags."""
        if not self._metadata and not self._scanned:
            self._scanned = True
            # The record lies before the first message.
            next(self.messages(), None)
        return dict(self._metadata)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Messages in the order of the file; a file that is cut off ends where its last complete chunk ends.

        Raises:
            BagError: if a file is no bag at all.
        """
        self._complete = True
        for file in self.files:
            yield from self._mcap(file, topics) if file.suffix == ".mcap" else self._sqlite(file, topics)

    def definition(self, message_type: str) -> str:
        """The text of a message type, as the bag holds it, once its topics have been read; empty where it does not."""
        return self._definitions.get(message_type, "")

    def decode(self, message: BagMessage) -> Any:
        """The message with the fields of its ROS type, arrays as numpy.

        Raises:
            BagError: if its bytes do not fit its type.
        """
        try:
            return self._store.deserialize_cdr(message.data, message.type)
        except Exception as error:  # the library raises many kinds for bytes that do not fit
            raise BagError(f"{self.path}: a message on {message.topic} is no {message.type}: {error}") from error

    def summary(self) -> BagSummary:
        """Read through the bag and count."""
        types: dict[str, str] = {}
        counts: dict[str, int] = {}
        first = last = 0
        for message in self.messages():
            types[message.topic] = message.type
            counts[message.topic] = counts.get(message.topic, 0) + 1
            first = min(first or message.log_ns, message.log_ns)
            last = max(last, message.log_ns)
        return BagSummary(types, counts, first, last, dict(self._metadata), self._complete)

    def _mcap(self, file: Path, topics: Collection[str] | None) -> Iterator[BagMessage]:
        channels: dict[int, tuple[str, str]] = {}
        schemas: dict[int, str] = {}
        with file.open("rb") as stream:
            records = iter(StreamReader(stream).records)
            started = False
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    return
                except (McapError, EOFError, ValueError) as error:
                    if not started:
                        raise BagError(f"{file}: not an MCAP file: {error}") from error
                    self._complete = False
                    return
                started = True
                if isinstance(record, Message):
                    topic, kind = channels[record.channel_id]
                    if topics is None or topic in topics:
                        yield BagMessage(topic, kind, record.log_time, record.data)
                elif isinstance(record, Schema):
                    schemas[record.id] = record.name
                    self._register(record.name, record.data.decode())
                elif isinstance(record, Channel):
                    channels[record.id] = (record.topic, schemas.get(record.schema_id, ""))
                elif isinstance(record, Metadata) and record.name == METADATA_RECORD:
                    self._metadata.update(record.metadata)

    def _sqlite(self, file: Path, topics: Collection[str] | None) -> Iterator[BagMessage]:
        try:
            with Reader(file) as reader:
                for connection in reader.connections:
                    self._register(connection.msgtype, connection.msgdef.data)
                wanted = [c for c in reader.connections if topics is None or c.topic in topics]
                if not wanted:
                    return
                for connection, log_ns, data in reader.messages(wanted):
                    yield BagMessage(connection.topic, connection.msgtype, log_ns, bytes(data))
        except ReaderError as error:
            raise BagError(f"{file}: {error}") from error

    def _register(self, name: str, text: str) -> None:
        if not text or name in self._definitions:
            return
        self._definitions[name] = text
        types = get_types_from_msg(text, name)
        self._store.register({k: v for k, v in types.items() if k not in self._store.fielddefs})


def rig_of_bag(bag: Bag) -> Rig | None:
    """The rig whose file is kept with the bag; None in foreign bags.

    Raises:
        RigFileError: if the kept text is no rig file.
    """
    text = bag.metadata.get("rig")
    return None if text is None else parse_rig(text, f"{bag.path} (rig file kept with the bag)")


def _storage_files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix in (".mcap", ".db3"):
        return [path]
    if not path.is_dir():
        raise BagError(f"{path}: no such bag; expected a rosbag2 folder, an .mcap or a .db3 file")
    files = sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    if not files:
        raise BagError(f"{path}: holds no .mcap or .db3 file")
    return files


def _folder_metadata(path: Path) -> dict[str, str]:
    file = path / "metadata.yaml"
    if not file.is_file():
        return {}
    information = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("rosbag2_bagfile_information") or {}
    return {str(k): str(v) for k, v in (information.get("custom_data") or {}).items()}
