"""Message definitions from the installed ``.msg`` files, as a bag embeds them. No ROS import."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SEPARATOR = "=" * 80
_PRIMITIVE = re.compile(r"^(bool|byte|char|float32|float64|u?int(8|16|32|64)|w?string)$")


class DefinitionError(LookupError):
    """A message type whose definition is not installed; the text names the type and where it was looked for."""


@dataclass(frozen=True)
class Definition:
    """A message type: its text with those of all types it uses, and its type hash (empty where none is installed)."""

    type: str
    text: str
    digest: str


def find_definition(message_type: str, prefixes: Iterable[Path] | None = None) -> Definition:
    """The definition of ``package/msg/Name``.

    Args:
        message_type: for example ``sensor_msgs/msg/Image``.
        prefixes: install prefixes to search; default those of ``AMENT_PREFIX_PATH``.

    Raises:
        DefinitionError: if it, or a type it uses, is not installed.
    """
    roots = list(prefixes) if prefixes is not None else _ament_prefixes()
    path = _locate(message_type, roots)
    parts = [path.read_text(encoding="utf-8")]
    seen = {message_type}
    pending = _used_types(message_type, parts[0])
    while pending:
        used = pending.pop(0)
        if used in seen:
            continue
        seen.add(used)
        text = _locate(used, roots).read_text(encoding="utf-8")
        package, _, name = used.split("/")
        parts.append(f"{_SEPARATOR}\nMSG: {package}/{name}\n{text}")
        pending += _used_types(used, text)
    return Definition(message_type, "\n".join(parts), _digest(message_type, path.with_suffix(".json")))


def _ament_prefixes() -> list[Path]:
    return [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]


def _locate(message_type: str, roots: list[Path]) -> Path:
    package, _, name = message_type.split("/")
    for root in roots:
        path = root / "share" / package / "msg" / f"{name}.msg"
        if path.is_file():
            return path
    where = ", ".join(str(r) for r in roots) or "AMENT_PREFIX_PATH is empty"
    raise DefinitionError(f"message type {message_type} is not installed; searched {where}")


def _used_types(message_type: str, text: str) -> list[str]:
    """Full names of the non-primitive field types of a definition."""
    package = message_type.split("/")[0]
    used = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        name = re.sub(r"(<=\d+)?(\[.*\])?$", "", words[0])
        if _PRIMITIVE.match(name):
            continue
        parts = name.split("/")
        used.append(f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}")
    return used


def _digest(message_type: str, path: Path) -> str:
    if not path.is_file():
        return ""
    for entry in json.loads(path.read_text(encoding="utf-8")).get("type_hashes", []):
        if entry["type_name"] == message_type:
            return str(entry["hash_string"])
    return ""
