"""What recording costs the control loop: one running graph, with and without a recorder in turn, its ticks compared."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hiwm_rig.codecs import stamp_to_ns
from tqdm import tqdm

from hiwm_bringup.bench import Figures, percentiles
from hiwm_bringup.bench_graph import WARM_UP_S, Running, on_time_share, world_graph
from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.paths import parameter_file
from hiwm_bringup.processes import Supervisor
from hiwm_msgs.msg import ControlState
from hiwm_msgs.srv import StartEpisode

if TYPE_CHECKING:
    from hiwm_bringup.bench import BenchOptions

_MINUTES = 4.0
"""Length of the whole measurement at most, without warm-up."""
_ROUNDS = 4
_SETTLE_S = 8.0
"""For a recorder to start, and for the graph to forget that it did."""


def measure_recorder(options: BenchOptions) -> Figures:
    """Ticks of one graph, without a recorder and with one, in turn: what else the machine does falls on both alike.

    ``recorder_effect``: for ``without`` and ``with``, ``ticks_on_time`` of the world rig (see
    :func:`hiwm_bringup.bench_graph.on_time_share`, mean of the rounds) and ``control_interval_ms``, p50 and p99 of
    the time between two ticks of the arbiter, by its own stamps.
    """
    part_s = 60 * min(options.minutes, _MINUTES) / (2 * _ROUNDS)
    shares: dict[str, list[float]] = {"without": [], "with": []}
    intervals: dict[str, list[float]] = {"without": [], "with": []}
    with (
        tempfile.TemporaryDirectory(prefix="hiwm_bench_") as folder,
        world_graph(options, Path(folder), record=False) as graph,
    ):
        graph.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request(note="bench"))
        control = graph.probe.listen(ControlState, graph.rig.topics.control_state, 100)
        graph.probe.spin_for(WARM_UP_S)
        for turn in tqdm(range(2 * _ROUNDS), desc="recorder off and on", leave=False):
            name = ("without", "with")[turn % 2]
            with _recorder(options, Path(folder) / f"bag_{turn}", record=name == "with"):
                graph.probe.spin_for(_SETTLE_S)
                stamps, ticks = _listen(graph, control, part_s)
            shares[name].append(on_time_share(stamps, graph.rig.period_s))
            intervals[name] += (np.diff(ticks) / 1e6).tolist()
    figures: dict[str, Any] = {
        name: {
            "ticks_on_time": round(float(np.mean(shares[name])), 5),
            "control_interval_ms": percentiles(intervals[name]),
        }
        for name in shares
    }
    return {"recorder_effect": figures}


@contextmanager
def _recorder(options: BenchOptions, bag: Path, record: bool) -> Iterator[None]:
    """A recorder beside the graph, or none; in the environment that :func:`world_graph` has set."""
    if not record:
        yield
        return
    parameters = {"rig_file": options.rig_file, "output": str(bag)}
    spec = NodeSpec("hiwm_data", "recorder", "recorder", parameters)
    with Supervisor([spec], os.environ, [parameter_file()]) as supervisor:
        yield
        supervisor.poll()


def _listen(graph: Running, control: list[Any], seconds: float) -> tuple[list[int], list[int]]:
    """Stamps, ns, of the world rig's frames and of the arbiter's ticks over a time."""
    graph.world.clear()
    control.clear()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        graph.supervisor.poll()
        graph.probe.spin_for(min(1.0, seconds))
    return [stamp_to_ns(w.header.stamp) for w in graph.world], [stamp_to_ns(c.header.stamp) for c in control]
