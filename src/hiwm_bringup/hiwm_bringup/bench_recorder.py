"""What recording costs the control loop: the same graph with and without the recorder, its ticks compared."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hiwm_rig.codecs import stamp_to_ns
from tqdm import tqdm

from hiwm_bringup.bench import Figures, percentiles
from hiwm_bringup.bench_graph import WARM_UP_S, Running, on_time_share, world_graph
from hiwm_msgs.msg import ControlState
from hiwm_msgs.srv import StartEpisode

if TYPE_CHECKING:
    from hiwm_bringup.bench import BenchOptions

_MINUTES = 2.0
"""Length of each of the two runs at most."""


def measure_recorder(options: BenchOptions) -> Figures:
    """Ticks of the graph without a recorder and with one.

    ``recorder_effect``: for ``without`` and ``with``, ``ticks_on_time`` of the world rig (see
    :func:`hiwm_bringup.bench_graph.on_time_share`) and ``control_interval_ms``, p50 and p99 of the time between two
    ticks of the arbiter, by its own stamps.
    """
    figures: dict[str, Any] = {}
    for name, record in (("without", False), ("with", True)):
        with (
            tempfile.TemporaryDirectory(prefix="hiwm_bench_") as folder,
            world_graph(options, Path(folder), record=record) as graph,
        ):
            figures[name] = _ticks(graph, min(options.minutes, _MINUTES), f"{name} recorder")
    return {"recorder_effect": figures}


def _ticks(graph: Running, minutes: float, title: str) -> dict[str, Any]:
    control = graph.probe.listen(ControlState, graph.rig.topics.control_state, 100)
    graph.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request(note="bench"))
    graph.probe.spin_for(WARM_UP_S)
    graph.world.clear()
    control.clear()
    deadline = time.monotonic() + 60 * minutes
    with tqdm(total=round(60 * minutes), desc=title, unit="s", leave=False) as bar:
        while time.monotonic() < deadline:
            graph.supervisor.poll()
            graph.probe.spin_for(1.0)
            bar.update()
    stamps = [stamp_to_ns(w.header.stamp) for w in graph.world]
    intervals = np.diff([stamp_to_ns(c.header.stamp) for c in control]) / 1e6
    return {
        "ticks_on_time": round(on_time_share(stamps, graph.rig.period_s), 5),
        "control_interval_ms": percentiles(intervals.tolist()),
    }
