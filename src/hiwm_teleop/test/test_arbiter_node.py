"""The arbiter node over DDS: one command source, reasons for what it rejects, the same on every kind of rig."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hiwm_bringup.graph import NodeSpec
from hiwm_bringup.processes import NodeDiedError
from hiwm_bringup.testing import Probe, graph, unique_domain
from hiwm_rig.codecs import Chunk as CodecChunk
from hiwm_rig.codecs import chunk_to_trajectory, ns_to_stamp, sample_to_joint_state
from hiwm_rig.contract import load_rig
from hiwm_rig.hardware_status import FORGOTTEN_S, HardwareKind, hardware_id
from hiwm_rig.rig_node import LATCHED
from hiwm_rig.types import Driver
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState, EpisodeEvent, WorldState
from hiwm_msgs.srv import EndEpisode, RequestControl, StartEpisode

RIG = load_rig("push_t")
ARM = RIG.arms[0]
HOME = np.array(RIG.home)
ARBITER = NodeSpec("hiwm_teleop", "arbiter", "arbiter", {"rig_file": "push_t"})
SECOND = NodeSpec("hiwm_teleop", "arbiter", "second_arbiter", {"rig_file": "push_t"})


class Bench:
    """A rig, a leader and a policy made of nothing but topics."""

    def __init__(self, domain: int) -> None:
        self.probe = Probe(domain)
        node = self.probe.node
        self.joints = HOME.copy()
        self.commands = self.probe.listen(JointTrajectory, ARM.command)
        self.states = self.probe.listen(ControlState, RIG.topics.control_state)
        self.diagnostics = self.probe.listen(DiagnosticArray, RIG.topics.diagnostics)
        self.events = self.probe.listen(EpisodeEvent, RIG.topics.episode, LATCHED)
        self._rig = node.create_publisher(JointState, ARM.joint_states, 10)
        self.leader = node.create_publisher(JointState, ARM.leader_joint_states, 10)
        self.policy = node.create_publisher(JointTrajectory, ARM.policy_command, 1)
        self.episode = node.create_publisher(EpisodeEvent, RIG.topics.episode, LATCHED)
        self.leading: np.ndarray | None = None
        self.hardware = node.create_publisher(DiagnosticArray, RIG.topics.diagnostics, 10)
        node.create_timer(0.05, self.show)
        node.create_timer(0.02, self.lead)

    def now(self) -> int:
        return int(self.probe.node.get_clock().now().nanoseconds)

    def show(self) -> None:
        self._rig.publish(sample_to_joint_state(ARM.joint_names, self.joints, self.now()))

    def lead(self) -> None:
        if self.leading is not None:
            self.leader.publish(sample_to_joint_state(ARM.joint_names, self.leading, self.now()))

    def propose(self, target: np.ndarray) -> None:
        rows = np.tile(target, (16, 1))
        chunk = CodecChunk(self.now(), 0.1 * np.arange(1, 17), rows)
        self.policy.publish(chunk_to_trajectory(ARM.joint_names, chunk))

    def says(self, kind: HardwareKind, message: str) -> None:
        """An arm, its leader or a camera of the same name has a fault."""
        status = DiagnosticStatus(level=DiagnosticStatus.ERROR, hardware_id=hardware_id(kind, ARM.name))
        status.message = message
        self.hardware.publish(DiagnosticArray(status=[status]))

    def driver(self, wanted: Driver) -> None:
        self.probe.spin_until(lambda: bool(self.states) and self.states[-1].driver == wanted, what=f"{wanted!r} drives")

    def ask(self, driver: Driver) -> RequestControl.Response:
        return self.probe.call(RequestControl, "/hiwm/request_control", RequestControl.Request(driver=int(driver)))

    def counters(self) -> dict[str, str]:
        found = [s for m in self.diagnostics for s in m.status if s.name == "/arbiter"]
        return {v.key: v.value for v in found[-1].values} if found else {}


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    with unique_domain() as number:
        yield number


@pytest.fixture(scope="module")
def bench(domain: int) -> Iterator[Bench]:
    with graph([ARBITER], domain):
        bench = Bench(domain)
        bench.probe.spin_until(lambda: bool(bench.commands and bench.states), 60, "the first command")
        yield bench
        bench.probe.close()


def test_the_policy_is_followed_and_then_the_leader_without_a_jump(bench: Bench) -> None:
    target = HOME + [0.1, 0, 0, 0, 0, 0, 0]
    bench.propose(target)
    bench.probe.spin_until(
        lambda: np.allclose(bench.commands[-1].points[0].positions, target), what="the policy's target"
    )
    bench.leading = HOME + [0.4, 0, 0, 0, 0, 0, 0]
    bench.probe.spin_until(lambda: bench.states[-1].leader_fresh, what="a fresh leader")
    seen = len(bench.states)
    assert bench.ask(Driver.HUMAN).success
    bench.driver(Driver.HUMAN)
    commands = np.array([s.command for s in bench.states[seen - 1 :]])
    stamps = np.array([s.header.stamp.sec + 1e-9 * s.header.stamp.nanosec for s in bench.states[seen - 1 :]])
    speed = np.abs(np.diff(commands[:, 0])) / np.minimum(np.diff(stamps), RIG.period_s)
    assert speed.max() <= 3.0 + 1e-6
    drivers = [s.driver for s in bench.states[seen:]]
    assert drivers.index(Driver.ALIGNING) < drivers.index(Driver.HUMAN)
    assert bench.ask(Driver.POLICY).success
    bench.leading = None


@pytest.mark.parametrize(
    ("names", "values", "reason"),
    [
        (ARM.joint_names, np.where(np.arange(7) == 1, np.nan, HOME), "rejected_malformed_leader"),
        ((*ARM.joint_names[:-1], "tail"), HOME, "rejected_malformed_leader"),
        (ARM.joint_names, np.where(np.arange(7) == 1, 5.0, HOME), "rejected_out_of_limits_leader"),
    ],
)
def test_a_bad_leader_is_rejected_with_its_reason_in_diagnostics(
    bench: Bench, names: tuple[str, ...], values: np.ndarray, reason: str
) -> None:
    before = int(bench.counters().get(reason, "0"))
    bench.leader.publish(sample_to_joint_state(names, values, bench.now()))
    bench.probe.spin_until(lambda: int(bench.counters().get(reason, "0")) > before, what=reason)
    assert "leader" in bench.counters()["last_rejection"]
    assert np.isfinite(bench.commands[-1].points[0].positions).all()


def test_a_takeover_without_a_leader_is_refused_in_words(bench: Bench) -> None:
    bench.leading = None
    bench.probe.spin_until(lambda: not bench.states[-1].leader_fresh, what="a stale leader")
    reply = bench.ask(Driver.HUMAN)
    assert not reply.success
    assert "stale" in reply.message


def test_a_fault_refuses_in_its_own_words_whoever_needs_the_arm_until_nobody_repeats_it(bench: Bench) -> None:
    bench.leading = HOME.copy()
    bench.probe.spin_until(lambda: bench.states[-1].leader_fresh, what="a fresh leader")
    bench.says(HardwareKind.CAMERA, "no frames")
    bench.says(HardwareKind.LEADER, "leader overload")
    bench.probe.spin_until(lambda: not bench.states[-1].leader_fresh, what="the leader's fault")
    reply = bench.ask(Driver.HUMAN)
    assert not reply.success and "leader overload" in reply.message
    assert bench.ask(Driver.POLICY).success, "neither camera nor leader is the arm"
    bench.says(HardwareKind.ARM, "arm unplugged")
    bench.driver(Driver.PAUSED)
    assert bench.states[-1].reason == "arm unplugged"
    reply = bench.ask(Driver.POLICY)
    assert not reply.success and "arm unplugged" in reply.message
    reply = bench.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request())
    assert not reply.success and "arm unplugged" in reply.message
    fresh = lambda: bench.states[-1].leader_fresh and bench.states[-1].rig_fresh and bool(bench.states[-1].command)  # noqa: E731
    bench.probe.spin_until(fresh, FORGOTTEN_S + 20, "arms that nobody complains of any more")
    assert bench.states[-1].driver == Driver.PAUSED
    assert bench.ask(Driver.POLICY).success
    bench.leading = None


def test_episodes_are_announced_with_one_id_and_cannot_overlap(bench: Bench) -> None:
    first = bench.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request(note="test"))
    assert first.success
    assert not bench.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request()).success
    assert bench.probe.call(EndEpisode, "/hiwm/end_episode", EndEpisode.Request(outcome=1)).success
    bench.probe.spin_until(lambda: len(bench.events) >= 2, what="begin and end")
    assert [(e.type, e.episode_id) for e in bench.events[:2]] == [(0, first.episode_id), (1, first.episode_id)]
    assert bench.events[1].outcome == EpisodeEvent.OUTCOME_SUCCESS
    assert not bench.probe.call(EndEpisode, "/hiwm/end_episode", EndEpisode.Request()).success


def test_after_a_rollback_of_a_world_rig_the_command_starts_from_the_new_state(bench: Bench) -> None:
    """The same process serves a rig with snapshots: it only listens to one more event."""
    bench.ask(Driver.PAUSED)
    bench.probe.spin_until(lambda: len(bench.states[-1].command) == 7, what="a command")
    publisher = bench.probe.node.create_publisher(WorldState, RIG.topics.world_state, 10)
    publisher.publish(WorldState())
    event = EpisodeEvent(type=EpisodeEvent.ROLLBACK, branch_id=1, parent_branch_id=0, snapshot_id=3)
    event.header.stamp = ns_to_stamp(bench.now())
    bench.joints = HOME + [-0.3, 0, 0, 0, 0, 0, 0]
    bench.episode.publish(event)
    bench.probe.spin_until(
        lambda: len(bench.states[-1].command) == 7 and bool(np.allclose(bench.states[-1].command, bench.joints)),
        what="the new anchor",
    )


def test_a_second_arbiter_stops_with_an_error_that_names_the_topic(bench: Bench, domain: int) -> None:
    bench.probe.spin_until(lambda: bool(bench.states), what="the first arbiter's tick")
    with pytest.raises(NodeDiedError) as died, graph([SECOND], domain) as second:
        second.wait(60)
    assert f"error: {ARM.command} is already published" in str(died.value)
    assert "exit code 2" in str(died.value)
