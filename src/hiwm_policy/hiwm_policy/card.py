"""The README.md of a model directory: what it is, what made it, and what was measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiwm_rig.files import write_text

MEASURED = "## Measured"


def write_card(directory: Path, title: str, facts: Mapping[str, Any]) -> None:
    """Write README.md with the command that is running now and ``facts``, one per line; measurements come later."""
    command = "./hiwm " + shlex.join(sys.argv[1:])
    lines = [f"# {title}", "", "```", command, "```", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    write_text(directory / "README.md", "\n".join(lines))


def add_measurement(directory: Path, rig: str, seed: int, result: Mapping[str, Any]) -> None:
    """Add one line about an evaluation to the card's measurements."""
    path = directory / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {directory.name}\n"
    if MEASURED not in text:
        text = f"{text.rstrip()}\n\n{MEASURED}\n"
    low, high = result["ci95"]
    episodes = result["episodes"]
    line = (
        f"- {rig} rig, {episodes} episodes, seeds {seed} to {seed + episodes - 1}: "
        f"success {result['success']:.1%}, 95 % interval {low:.1%} to {high:.1%}"
    )
    write_text(path, f"{text.rstrip()}\n{line}\n")
