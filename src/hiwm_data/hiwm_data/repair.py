"""Giving a bag whose recorder was killed its index back, in place. No ROS."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from hiwm_rig.files import written_aside
from mcap.records import Channel, Message, Metadata, Schema
from tqdm import tqdm

from hiwm_data.bag_metadata import METADATA_FILE, FileSpan, TopicEntry, custom_data, write_metadata
from hiwm_data.bag_reader import Bag, BagError
from hiwm_data.bag_writer import METADATA_RECORD
from hiwm_data.mcap_file import McapFile, RecordingError
from hiwm_data.mcap_records import FileScan, McapReadError, file_summary

_UNREADABLE = ".unreadable"


@dataclass
class RepairReport:
    """What a repair did.

    Attributes:
        messages: in the whole bag now.
        repaired: files that got their index back.
        damaged_chunks: chunks that could not be read and are gone.
        set_aside: files without any complete record; they are kept under this name.
    """

    messages: int = 0
    repaired: list[Path] = field(default_factory=list)
    damaged_chunks: int = 0
    set_aside: list[Path] = field(default_factory=list)


def repair_bag(path: str | Path) -> RepairReport:
    """Make a bag complete: every file with its index, and ``metadata.yaml`` that lists what is there.

    Each file is written aside from its complete chunks and then takes the name of the old one, so an interrupted
    repair loses nothing. A complete bag is left as it is.

    Raises:
        BagError: no bag, no MCAP bag, or nothing readable in it.
        RecordingError: the disk does not take the new files.
    """
    bag = Bag(path)
    if any(file.suffix != ".mcap" for file in bag.files):
        raise BagError(f"{path}: only MCAP bags can be repaired; for .db3 use 'ros2 bag reindex'")
    report = RepairReport()
    unreadable = []
    for file in tqdm(bag.files, desc="repairing", unit="file", disable=len(bag.files) == 1):
        if file_summary(file) is None and not _repair_file(file, report):
            unreadable.append(file)
    if len(unreadable) == len(bag.files):
        raise BagError(f"{path}: not one complete chunk in it; nothing to repair")
    for file in unreadable:
        report.set_aside.append(file.rename(file.with_name(file.name + _UNREADABLE)))
    left = [file for file in bag.files if file not in unreadable]
    if bag.path.is_dir() and (report.repaired or unreadable or not (bag.path / METADATA_FILE).is_file()):
        _rewrite_metadata(bag.path, left)
    report.messages = sum(Bag(path).summary().counts.values())
    return report


def _repair_file(path: Path, report: RepairReport) -> bool:
    """Write a file again with its index; False where it holds nothing that can be read."""
    scan = FileScan(path, METADATA_RECORD)
    try:
        with written_aside(path) as aside:
            _copy(scan, aside)
    except McapReadError:
        return False
    report.repaired.append(path)
    report.damaged_chunks += scan.damaged
    return True


def _copy(scan: FileScan, aside: Path) -> None:
    out: McapFile | None = None
    schemas: dict[int, int] = {}
    channels: dict[int, int] = {}
    for record in scan.records():
        out = out or McapFile(aside)
        if isinstance(record, Schema) and record.id not in schemas:
            schemas[record.id] = out.schema(record.name, record.data, record.encoding)
        elif isinstance(record, Channel) and record.id not in channels:
            schema = schemas.get(record.schema_id, 0)
            channels[record.id] = out.channel(record.topic, schema, record.metadata, record.message_encoding)
        elif isinstance(record, Message) and record.channel_id in channels:
            times = (record.log_time, record.publish_time)
            out.write(channels[record.channel_id], record.data, *times, record.sequence)
        elif isinstance(record, Metadata):
            out.note(record.name, record.metadata)
    if out is None:
        raise McapReadError(f"{scan.path}: holds no record")
    out.close()


def _rewrite_metadata(folder: Path, files: list[Path]) -> None:
    spans: list[FileSpan] = []
    topics: dict[str, TopicEntry] = {}
    counts: Counter[str] = Counter()
    custom = custom_data(folder)
    for file in files:
        summary = file_summary(file)
        if summary is None:
            raise BagError(f"{file}: still without an index after its repair")
        for channel in summary.channels.values():
            qos = channel.metadata.get("offered_qos_profiles", "")
            digest = channel.metadata.get("topic_type_hash", "")
            topics[channel.topic] = TopicEntry(channel.topic, summary.types[channel.topic], qos, digest, 0)
        counts += summary.counts
        spans.append(FileSpan(file.name, summary.first_ns, summary.last_ns, summary.counts.total()))
        custom |= Bag(file).metadata
    entries = [replace(t, count=counts[t.name]) for t in topics.values()]
    try:
        write_metadata(folder, spans, entries, custom)
    except OSError as error:
        raise RecordingError(f"{folder / METADATA_FILE}: cannot write: {error.strerror or error}") from error
