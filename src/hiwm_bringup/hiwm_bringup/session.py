"""A recorded session: the node graph brought up, watched, and brought down again, with a progress bar."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiwm_rig.contract import load_rig
from tqdm import tqdm

from hiwm_bringup.graph import build_graph, parse_assignments
from hiwm_bringup.meter import SessionCounts, SessionMeter
from hiwm_bringup.paths import parameter_file, project_root
from hiwm_bringup.probe import Probe
from hiwm_bringup.processes import Supervisor, node_environment
from hiwm_bringup.testing import unique_domain

_BAR = "{l_bar}{bar}| {n:.0f}/{total} s {postfix}"
_GRACE = 0.5
"""Share of the session's length that a running episode may go on for after it."""


@dataclass(frozen=True)
class Session:
    """What came of it.

    Attributes:
        counts: what the operator did.
        bag: the recording.
    """

    counts: SessionCounts
    bag: Path


def run_session(words: Sequence[str], out: Path, seconds: float) -> Session:
    """Bring up the graph of ``hiwm up`` with these options, recording into ``out/bag``, for about this long.

    It ends with the first episode that ends after ``seconds``, or when the operator has finished.

    Args:
        words: ``name:=value`` options of the graph.
        out: receives ``bag/``, ``world.sqlite`` and ``logs/``.
        seconds: counted from the first frame of the rig.

    Raises:
        NodeDiedError: with the node's last lines.
        GraphError: options that describe no graph.
        TimeoutError: the rig shows nothing.
    """
    out.mkdir(parents=True, exist_ok=True)
    bag = out / "bag"
    assigned = [*words, f"record:={bag}", f"journal:={out / 'world.sqlite'}"]
    options = parse_assignments(assigned)
    specs = build_graph(options, project_root())
    with unique_domain() as domain:
        env = node_environment(os.environ, domain)
        # This process listens in the same domain, with the same transport.
        os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = env["FASTRTPS_DEFAULT_PROFILES_FILE"]
        supervisor = Supervisor(specs, env, [parameter_file()], log_dir=out / "logs")
        with supervisor, Probe(domain) as probe:
            meter = SessionMeter(probe, load_rig(options["rig_file"]))
            _watch(supervisor, probe, meter, seconds)
    return Session(meter.counts, bag)


def _watch(supervisor: Supervisor, probe: Probe, meter: SessionMeter, seconds: float) -> None:
    def started() -> bool:
        supervisor.poll()
        return bool(meter.counts.world)

    probe.spin_until(started, 120, "the first frame of the rig")
    begin = time.monotonic()
    with tqdm(
        total=round(seconds), desc="session", unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total} s {postfix}"
    ) as bar:
        while supervisor.poll():
            probe.spin_for(0.5)
            elapsed = time.monotonic() - begin
            bar.n = min(round(elapsed), bar.total)
            bar.set_postfix_str(meter.counts.line())
            if elapsed >= seconds and (not meter.in_episode or elapsed >= seconds * (1 + _GRACE)):
                return
