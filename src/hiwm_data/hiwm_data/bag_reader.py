"""Reading a bag: rosbag2 folders and single files, MCAP or SQLite, complete or cut off by a crash. No ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hiwm_rig.codecs import CodecError
from hiwm_rig.contract import Rig, parse_rig
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from hiwm_data.bag_metadata import custom_data, read_information
from hiwm_data.bag_writer import METADATA_RECORD
from hiwm_data.images import SUFFIX, decompress
from hiwm_data.mcap_records import FileScan, McapReadError, file_summary
from hiwm_data.topics import COMPRESSED_IMAGE, IMAGE

_STORAGE = (".mcap", ".db3")


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
    """What a bag holds, as recorded (compressed images by their own topic).

    Attributes:
        types: message type by topic, for topics with messages.
        counts: messages by topic.
        start_ns: log time of the first message; 0 in an empty bag.
        end_ns: log time of the last message.
        metadata: texts kept by the recorder; empty in foreign bags.
        complete: False where a file ends without its index (the recorder was killed) or is damaged.
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
        self._metadata: dict[str, str] = custom_data(self.path)
        self._complete = True
        self._scanned = False
        self.damage: Counter[str] = Counter()
        """Chunks that could not be read, by file, as far as the bag has been read."""

    @property
    def complete(self) -> bool:
        """Whether the files had their ends and no damage, as far as they have been read."""
        return self._complete

    @property
    def metadata(self) -> dict[str, str]:
        """Texts kept by the recorder (``rig``, ``checkpoints``, ``git_revision``, ...); empty in foreign bags."""
        if not self._metadata and not self._scanned:
            self._scanned = True
            # The record lies before the first message.
            next(self.recorded(), None)
        return dict(self._metadata)

    def messages(self, topics: Collection[str] | None = None, since_ns: int = 0) -> Iterator[BagMessage]:
        """Messages as the rig published them: ``X/compressed`` comes as ``sensor_msgs/Image`` on ``X``.

        In the order of the files. A compressed topic is left out where the bag holds the raw one as well.

        Args:
            topics: only these, by the names of the rig; None for all.
            since_ns: only messages recorded then or later.

        Raises:
            BagError: if a file is no bag at all, or a compressed image cannot be decoded.
        """
        wanted = None if topics is None else {*topics, *(t + SUFFIX for t in topics)}
        raw: set[str] = set()
        for message in self.recorded(wanted, since_ns):
            base = rig_topic(message.topic, message.type)
            if base == message.topic:
                raw.add(base)
                if topics is None or message.topic in topics:
                    yield message
            elif base not in raw:
                yield self._decompressed(message, base)

    def recorded(self, topics: Collection[str] | None = None, since_ns: int = 0) -> Iterator[BagMessage]:
        """Messages as they are in the files.

        A file that is cut off ends where its last complete chunk ends; damaged chunks are left out (see ``damage``).

        Raises:
            BagError: if a file is no bag at all.
        """
        self._complete = True
        self.damage.clear()
        for file in self.files:
            read = self._mcap if file.suffix == ".mcap" else self._sqlite
            yield from read(file, topics, since_ns)

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
        """What the bag holds: from the files' own indices, and by reading through those that lack one."""
        types: dict[str, str] = {}
        counts: Counter[str] = Counter()
        first: list[int] = []
        last: list[int] = []
        complete = True
        for file in self.files:
            known = file_summary(file) if file.suffix == ".mcap" else None
            if known is not None:
                for name, text in known.definitions.items():
                    self._register(name, text)
                found_types, found, span = known.types, known.counts, (known.first_ns, known.last_ns)
            else:
                found_types, found, span = self._count(file)
                complete = complete and self._complete
            types |= {t: kind for t, kind in found_types.items() if found[t]}
            counts += found
            first += [span[0]] if found.total() else []
            last += [span[1]] if found.total() else []
        return BagSummary(types, dict(counts), min(first, default=0), max(last, default=0), self.metadata, complete)

    def _count(self, file: Path) -> tuple[dict[str, str], Counter[str], tuple[int, int]]:
        types: dict[str, str] = {}
        counts: Counter[str] = Counter()
        first = last = 0
        self._complete = True
        for message in (self._mcap if file.suffix == ".mcap" else self._sqlite)(file, None, 0):
            types[message.topic] = message.type
            counts[message.topic] += 1
            first = min(first or message.log_ns, message.log_ns)
            last = max(last, message.log_ns)
        return types, counts, (first, last)

    def _decompressed(self, message: BagMessage, base: str) -> BagMessage:
        try:
            return BagMessage(base, IMAGE, message.log_ns, decompress(self.decode(message), self._store))
        except CodecError as error:
            raise BagError(f"{self.path}: a message on {message.topic} cannot be used: {error}") from error

    def _mcap(self, file: Path, topics: Collection[str] | None, since_ns: int) -> Iterator[BagMessage]:
        scan = FileScan(file, METADATA_RECORD, since_ns)
        try:
            for topic, kind, message in scan.messages():
                if scan.fresh:
                    self._take_headers(scan)
                if (topics is None or topic in topics) and message.log_time >= since_ns:
                    yield BagMessage(topic, kind, message.log_time, message.data)
        except McapReadError as error:
            # Nothing at all in one of several files: the power went just when it was begun.
            if len(self.files) == 1:
                raise BagError(str(error)) from error
            self._complete = False
        self._take_headers(scan)
        self._complete = self._complete and scan.complete
        self.damage.update({file.name: scan.damaged} if scan.damaged else {})

    def _take_headers(self, scan: FileScan) -> None:
        self._metadata.update(scan.metadata)
        for name, text in scan.definitions.items():
            self._register(name, text)
        scan.fresh = False

    def _sqlite(self, file: Path, topics: Collection[str] | None, since_ns: int) -> Iterator[BagMessage]:
        try:
            with Reader(file) as reader:
                for connection in reader.connections:
                    self._register(connection.msgtype, connection.msgdef.data)
                wanted = [c for c in reader.connections if topics is None or c.topic in topics]
                if not wanted:
                    return
                for connection, log_ns, data in reader.messages(wanted, start=since_ns or None):
                    yield BagMessage(connection.topic, connection.msgtype, log_ns, bytes(data))
        except ReaderError as error:
            raise BagError(f"{file}: {error}") from error

    def _register(self, name: str, text: str) -> None:
        if not text or name in self._definitions:
            return
        self._definitions[name] = text
        types = get_types_from_msg(text, name)
        self._store.register({k: v for k, v in types.items() if k not in self._store.fielddefs})


def rig_topic(topic: str, message_type: str) -> str:
    """The topic a recorded one stands for: that of the raw images for compressed ones, else itself."""
    return topic.removesuffix(SUFFIX) if message_type == COMPRESSED_IMAGE else topic


def rig_of_bag(bag: Bag) -> Rig | None:
    """The rig whose file is kept with the bag; None in foreign bags.

    Raises:
        RigFileError: if the kept text is no rig file.
    """
    text = bag.metadata.get("rig")
    return None if text is None else parse_rig(text, f"{bag.path} (rig file kept with the bag)")


def find_bags(paths: Sequence[str | Path]) -> list[Path]:
    """The bags that these paths name: bags, and folders of bags (one bag per episode), in order.

    Raises:
        BagError: a path that is neither.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir() and not _storage_in(path):
            inside = [p for p in sorted(path.iterdir()) if p.is_dir() and _storage_in(p)]
            if not inside:
                raise BagError(f"{path}: holds no .mcap or .db3 file, and no folder in it does")
            found += inside
        else:
            _storage_files(path)
            found.append(path)
    return found


def _storage_in(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix in _STORAGE]


def _storage_files(path: Path) -> list[Path]:
    """Storage files in the order of ``metadata.yaml``, then those it does not know (begun just before a crash)."""
    if path.is_file() and path.suffix in _STORAGE:
        return [path]
    if not path.is_dir():
        raise BagError(f"{path}: no such bag; expected a rosbag2 folder, an .mcap or a .db3 file")
    there = {p.name: p for p in _storage_in(path)}
    if not there:
        raise BagError(f"{path}: holds no .mcap or .db3 file")
    listed = [str(name) for name in read_information(path).get("relative_file_paths") or []]
    missing = [name for name in listed if name not in there]
    if missing:
        rest = "to read the rest, delete metadata.yaml and run hiwm record --repair"
        raise BagError(f"{path}: {missing[0]} is missing; metadata.yaml lists it ({rest})")
    others = sorted(set(there) - set(listed), key=lambda name: (len(name), name))
    return [there[name] for name in (*listed, *others)]
