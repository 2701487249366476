"""Measurements of the running node graph, from outside: real processes over DDS."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil
from hiwm_rig.codecs import NS_PER_S, image_to_array, joint_state_to_sample, sample_to_joint_state, stamp_to_ns
from hiwm_rig.contract import Rig, load_rig
from hiwm_rig.rig_node import now_ns, qos_profile
from hiwm_rig.types import Driver
from sensor_msgs.msg import Image, JointState
from tqdm import tqdm

from hiwm_bringup.bench import Figures, percentiles
from hiwm_bringup.graph import build_graph, parse_assignments
from hiwm_bringup.paths import parameter_file, project_root
from hiwm_bringup.probe import Probe
from hiwm_bringup.processes import Supervisor, node_environment
from hiwm_bringup.testing import unique_domain
from hiwm_msgs.msg import ControlState, WorldState
from hiwm_msgs.srv import RequestControl, Rollback, StartEpisode

if TYPE_CHECKING:
    from hiwm_bringup.bench import BenchOptions

WARM_UP_S = 20.0
LATE = 0.5
"""Fraction of a period after which a frame no longer counts as on time."""
EARLY = 0.1
_LEADER_HZ = 100.0
_MOTION_RAD = 0.15
_SETTLE_PERIODS = 8
_STILL, _STILL_FRAMES = 12.0, 4
"""Change of any pixel, grey levels, below which this many frames show an arm that stands still."""


@dataclass
class Running:
    """A graph with a probe in its domain."""

    rig: Rig
    supervisor: Supervisor
    probe: Probe
    world: list[Any]

    def newest(self) -> Any:
        """The newest world state."""
        return self.world[-1]


@contextmanager
def world_graph(options: BenchOptions, folder: Path, record: bool = True) -> Iterator[Running]:
    """World rig, policy, arbiter and recorder, running; with a probe that listens to the world state."""
    words = [f"world:={options.world}", f"policy:={options.policy}", f"rig_file:={options.rig_file}"]
    words += [f"journal:={folder / 'world.sqlite'}", *([f"record:={folder / 'bag'}"] if record else [])]
    specs = build_graph(parse_assignments(words), project_root())
    rig = load_rig(options.rig_file)
    with unique_domain() as domain:
        os.environ.update(node_environment(os.environ, domain))
        with Supervisor(specs, os.environ, [parameter_file()]) as supervisor, Probe(domain) as probe:
            world = probe.listen(WorldState, rig.topics.world_state)

            def ready() -> bool:
                supervisor.poll()
                return len(world) >= 5

            probe.spin_until(ready, 60, "the first frames of the world rig")
            yield Running(rig, supervisor, probe, world)


def measure_latency(options: BenchOptions) -> Figures:
    """Rollback and leader latency."""
    with tempfile.TemporaryDirectory(prefix="hiwm_bench_") as folder, world_graph(options, Path(folder)) as graph:
        request = StartEpisode.Request(note="bench")
        graph.probe.call(StartEpisode, "/hiwm/start_episode", request)
        graph.probe.spin_for(3.0)
        rollbacks = rollback_latencies(graph, options.repeats)
        leader = leader_latencies(graph, max(20, options.repeats // 2))
    return {"rollback_to_frame_ms": percentiles(rollbacks), "leader_to_frame_periods": percentiles(leader)}


def rollback_latencies(graph: Running, repeats: int) -> list[float]:
    """Milliseconds from the service call to the first image of the new branch, at random moments of the period."""
    probe, rig = graph.probe, graph.rig
    arrivals: dict[int, float] = {}

    def on_image(msg: Any) -> None:
        arrivals[stamp_to_ns(msg.header.stamp)] = time.perf_counter()

    subscription = probe.node.create_subscription(
        Image, rig.cameras[0].image_topic, on_image, qos_profile(rig.qos.images)
    )
    client = probe.node.create_client(Rollback, "/hiwm/rollback")
    probe.spin_until(client.service_is_ready, 20, "service /hiwm/rollback")
    rng = np.random.default_rng(0)
    latencies = []
    for _ in tqdm(range(repeats), desc="rollbacks", leave=False):
        probe.spin_for(rig.period_s * float(rng.uniform(1.5, 3.0)))
        graph.world.clear()
        start = time.perf_counter()
        future = client.call_async(Rollback.Request(snapshot_id=-1, steps=1))
        probe.spin_until(future.done, 10, "the answer of /hiwm/rollback")
        answer = future.result()
        if not answer.success:
            raise ValueError(f"rollback refused: {answer.message}")

        def shown(branch: int = answer.branch_id) -> bool:
            first = next((w for w in graph.world if w.branch_id == branch), None)
            return first is not None and stamp_to_ns(first.header.stamp) in arrivals

        probe.spin_until(shown, 10, "the first frame after a rollback")
        first = next(w for w in graph.world if w.branch_id == answer.branch_id)
        latencies.append(1e3 * (arrivals[stamp_to_ns(first.header.stamp)] - start))
    probe.node.destroy_subscription(subscription)
    return latencies


class _Leader:
    """A leader arm held by this process, published at 100 Hz while the probe spins."""

    def __init__(self, graph: Running) -> None:
        arm = graph.rig.arms[0]
        self._node = graph.probe.node
        self._names = arm.joint_names
        self._publisher = self._node.create_publisher(
            JointState, arm.leader_joint_states, qos_profile(graph.rig.qos.joint_states)
        )
        self.position: npt.NDArray[np.float64] | None = None
        self._node.create_timer(1 / _LEADER_HZ, self.publish)

    def publish(self) -> None:
        """Publish where the leader is."""
        if self.position is not None:
            self._publisher.publish(sample_to_joint_state(self._names, self.position, now_ns(self._node)))


def leader_latencies(graph: Running, repeats: int) -> list[float]:
    """Control periods from a sudden motion of the leader to the first image that shows the arm move."""
    probe, rig = graph.probe, graph.rig
    frames: list[tuple[float, npt.NDArray[np.int16]]] = []
    joints = probe.listen(JointState, rig.arms[0].joint_states, qos_profile(rig.qos.joint_states))

    def on_image(msg: Any) -> None:
        frames.append((time.perf_counter(), image_to_array(msg).astype(np.int16)))

    probe.node.create_subscription(Image, rig.cameras[0].image_topic, on_image, qos_profile(rig.qos.images))
    control = probe.listen(ControlState, rig.topics.control_state)
    leader = _Leader(graph)
    probe.spin_until(lambda: bool(joints), 10, "joint states")
    leader.position = joint_state_to_sample(joints[-1], rig.arms[0].joint_names).positions.copy()
    _take_over(graph)
    rng = np.random.default_rng(1)
    latencies = []
    for i in tqdm(range(repeats), desc="leader motions", leave=False):
        probe.spin_for(rig.period_s * (_SETTLE_PERIODS + float(rng.uniform())))
        if control[-1].driver != Driver.HUMAN:
            _take_over(graph)  # a stalled machine made the leader stale, and the arbiter let go of it
        probe.spin_until(lambda: _stillness(frames) < _STILL, 20, "an arm that stands still")
        still = [f for _, f in frames[-_STILL_FRAMES:]]
        reference = still[-1]
        frames.clear()
        leader.position[0] += _MOTION_RAD if i % 2 == 0 else -_MOTION_RAD
        start = time.perf_counter()
        leader.publish()

        def moved(reference: npt.NDArray[np.int16] = reference, limit: float = 2 * _STILL + 10) -> bool:
            return bool(frames) and float(np.abs(frames[-1][1] - reference).max()) > limit

        probe.spin_until(moved, 5, "a frame that shows the leader's motion")
        latencies.append((frames[-1][0] - start) / rig.period_s)
    return latencies


def _stillness(frames: list[tuple[float, npt.NDArray[np.int16]]]) -> float:
    """Largest change of any pixel over the last frames, grey levels; infinite where there are too few."""
    last = [f for _, f in frames[-_STILL_FRAMES:]]
    if len(last) < _STILL_FRAMES:
        return float("inf")
    return max(float(np.abs(a - b).max()) for a, b in pairwise(last))


def _take_over(graph: Running) -> None:
    request = RequestControl.Request(driver=int(Driver.HUMAN), reason="bench")
    graph.probe.spin_for(0.5)
    answer = graph.probe.call(RequestControl, "/hiwm/request_control", request)
    if not answer.success:
        raise ValueError(f"the arbiter refused control: {answer.message}")
    graph.probe.spin_for(2.0)


def measure_endurance(options: BenchOptions) -> Figures:
    """Share of ticks on time and growth of memory over ``options.minutes`` at the control rate.

    A slot counts as on time where a frame was begun between a tenth of a period before it and half a period after it.
    Memory is the sum over all nodes; growth is the median of the last tenth of the run less that of its first tenth,
    after a warm-up.
    """
    with tempfile.TemporaryDirectory(prefix="hiwm_bench_") as folder, world_graph(options, Path(folder)) as graph:
        graph.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request(note="bench"))
        graph.probe.spin_for(WARM_UP_S)
        graph.world.clear()
        memory: list[float] = []
        deadline = time.monotonic() + 60 * options.minutes
        with tqdm(total=round(60 * options.minutes), desc="endurance", unit="s", leave=False) as bar:
            while time.monotonic() < deadline:
                graph.supervisor.poll()
                memory.append(_resident_mib(graph.supervisor))
                graph.probe.spin_for(1.0)
                bar.update()
        stamps = [stamp_to_ns(w.header.stamp) for w in graph.world]
    tenth = max(1, len(memory) // 10)
    growth = float(np.median(memory[-tenth:]) - np.median(memory[:tenth]))
    return {"ticks_on_time": round(on_time_share(stamps, graph.rig.period_s), 5), "rss_growth_mib": round(growth, 2)}


def _resident_mib(supervisor: Supervisor) -> float:
    return sum(psutil.Process(r.process.pid).memory_info().rss for r in supervisor.running) / 2**20


def on_time_share(stamps_ns: list[int], period_s: float) -> float:
    """Share of control slots in which a frame was begun on time.

    Slots lie on a grid of ``period_s`` whose phase is the median phase of the stamps, so that neither one early nor
    one late frame moves it.
    """
    if len(stamps_ns) < 2:
        return 0.0
    times = (np.array(stamps_ns) - stamps_ns[0]) / NS_PER_S / period_s
    phase = float(np.median((times + 0.5) % 1.0)) - 0.5
    lateness = times - phase
    slots = np.floor(lateness + EARLY).astype(int)
    good = slots[lateness - slots <= LATE]
    expected = slots[-1] - slots[0] + 1
    return float(np.unique(good).size / expected)
