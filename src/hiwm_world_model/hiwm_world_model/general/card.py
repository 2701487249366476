"""The card of a trained general model: what it is, how it was made, how good it measured."""

from __future__ import annotations

import json
from pathlib import Path

from hiwm_world_model.interface import read_config

CARD_FILE, FACTS_FILE = "README.md", "training.json"

_TEXT = """# World model `general` for the rig `{rig}`

Pixels of every camera are moved, remembered or drawn anew under the motion of the joints; nothing in it assumes objects
(`hiwm_world_model/general`). {layer}

- Working picture: {height} x {width}, shown at {cameras}. Joints: {joints}. Rate: {rate:g} Hz.
- Data: {data}; training saw the `train` split only. Seed {seed}, {seconds:.0f} s wall time.
- Command: `{command}`

## Measured
{measured}
## Limits
Regression of uncertain motion: what it cannot foresee gets soft, more so the longer it runs open loop. What was never
seen (behind the arm, outside the picture) is made up.
"""


def card(directory: Path, measured: str, command: str = "") -> str:
    """Markdown for a model directory.

    Args:
        directory: of the trained model, with ``config.json`` and ``training.json``.
        measured: table of errors, in Markdown.
        command: that made it; by default the one that ``training.json`` describes.
    """
    raw, facts = read_config(directory), json.loads((directory / FACTS_FILE).read_text(encoding="utf-8"))
    spec, config = raw["spec"], raw["config"]
    arm = "The arm is drawn from the joints by its own layer." if config["arm_layer"] else "It has no arm layer."
    return _TEXT.format(
        rig=spec["rig"],
        layer=arm,
        height=config["height"],
        width=config["width"],
        cameras=", ".join(f"{c['name']} {c['height']} x {c['width']}" for c in spec["cameras"]),
        joints=len(spec["joint_names"]),
        rate=spec["control_rate_hz"],
        data=", ".join(Path(d).name for d in facts["data"]),
        seed=facts["seed"],
        seconds=facts["wall_seconds"],
        command=command or facts["command"],
        measured=measured,
    )
