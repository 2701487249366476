"""``metadata.yaml`` of a rosbag2 folder (version 9, as ROS 2 Jazzy writes it). No ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hiwm_rig.files import write_text

METADATA_FILE = "metadata.yaml"
_VERSION = 9


@dataclass(frozen=True)
class FileSpan:
    """One storage file of a bag.

    Attributes:
        name: relative to the bag's folder.
        first_ns, last_ns: log times of the first and last message; 0 without messages.
        count: messages.
    """

    name: str
    first_ns: int
    last_ns: int
    count: int


@dataclass(frozen=True)
class TopicEntry:
    """One topic: ``qos_yaml`` holds a list of profiles as rosbag2 stores it, ``digest`` the type hash (or nothing)."""

    name: str
    type: str
    qos_yaml: str
    digest: str
    count: int


def write_metadata(
    folder: Path, files: Sequence[FileSpan], topics: Sequence[TopicEntry], custom: Mapping[str, str]
) -> None:
    """Write ``metadata.yaml`` aside and rename it: whatever happens, there is a whole one.

    Raises:
        OSError: the disk does not take it; the file that was there stays.
    """
    spans = [f for f in files if f.count]
    first = min((f.first_ns for f in spans), default=0)
    last = max((f.last_ns for f in spans), default=0)
    information = {
        "version": _VERSION,
        "storage_identifier": "mcap",
        **_span(first, last, sum(f.count for f in files)),
        "topics_with_message_count": [_topic(t) for t in topics],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [f.name for f in files],
        "files": [{"path": f.name, **_span(f.first_ns, f.last_ns, f.count)} for f in files],
        "custom_data": dict(custom) or None,
        "ros_distro": "jazzy",
    }
    text = yaml.dump({"rosbag2_bagfile_information": information}, Dumper=_PlainDumper, sort_keys=False)
    write_text(folder / METADATA_FILE, text)


def read_information(folder: Path) -> dict[str, Any]:
    """``rosbag2_bagfile_information``; empty where the file is missing or was not written to its end."""
    file = folder / METADATA_FILE
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    information = content.get("rosbag2_bagfile_information") if isinstance(content, dict) else None
    return information if isinstance(information, dict) else {}


def custom_data(folder: Path) -> dict[str, str]:
    """The texts that a recorder keeps with its bag; empty in bags of other recorders."""
    return {str(k): str(v) for k, v in (read_information(folder).get("custom_data") or {}).items()}


# In C where PyYAML has it: this is written twice a second.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _PlainDumper(_Dumper):
    """YAML without anchors: not every reader of ``metadata.yaml`` knows them."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts again instead of pointing at the first."""
        return True


def _span(first_ns: int, last_ns: int, count: int) -> dict[str, Any]:
    return {
        "duration": {"nanoseconds": last_ns - first_ns},
        "starting_time": {"nanoseconds_since_epoch": first_ns},
        "message_count": count,
    }


def _topic(topic: TopicEntry) -> dict[str, Any]:
    return {
        "topic_metadata": {
            "name": topic.name,
            "type": topic.type,
            "serialization_format": "cdr",
            "offered_qos_profiles": _profiles(topic.qos_yaml),
            "type_description_hash": topic.digest,
        },
        "message_count": topic.count,
    }


@cache
def _profiles(qos_yaml: str) -> list[Any]:
    return yaml.safe_load(qos_yaml) or []
