"""The loop in small, with the real nodes in real processes over DDS and the shipped models."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hiwm_bringup.arm_session import ArmSession
from hiwm_bringup.graph import build_graph, parse_assignments
from hiwm_bringup.paths import project_root
from hiwm_bringup.probe import Probe
from hiwm_bringup.processes import Supervisor
from hiwm_bringup.testing import graph
from hiwm_data.convert import convert_bags
from hiwm_data.dataset import Dataset
from hiwm_rig.codecs import joint_state_to_sample, sample_to_joint_state, stamp_to_ns
from hiwm_rig.contract import load_rig
from hiwm_rig.rig_node import LATCHED, now_ns, qos_profile
from hiwm_rig.types import Driver, Outcome
from sensor_msgs.msg import JointState, Joy
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState, EpisodeEvent, WorldState
from hiwm_msgs.srv import Branch, EndEpisode, RequestControl, Rollback, StartEpisode

pytestmark = pytest.mark.timeout(600)
RIG = load_rig("push_t")
ARM = RIG.arms[0]


class Operator:
    """A hand on the leader and a finger on the services, from this process."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        node = probe.node
        self.control = probe.listen(ControlState, RIG.topics.control_state, 50)
        self.joints = probe.listen(JointState, ARM.joint_states, qos_profile(RIG.qos.joint_states))
        self.world = probe.listen(WorldState, RIG.topics.world_state)
        self.events = probe.listen(EpisodeEvent, RIG.topics.episode, LATCHED)
        self._leader = node.create_publisher(JointState, ARM.leader_joint_states, 10)
        self.offset = np.zeros(len(ARM.joints))
        self._held: np.ndarray | None = None
        node.create_timer(0.02, self._lead)

    def follower(self) -> np.ndarray:
        return joint_state_to_sample(self.joints[-1], ARM.joint_names).positions

    def _lead(self) -> None:
        """An actuated leader mirrors the follower until its operator takes over; then it is held still."""
        if self.joints:
            positions = (self.follower() if self._held is None else self._held) + self.offset
            self._leader.publish(sample_to_joint_state(ARM.joint_names, positions, now_ns(self.probe.node)))

    def drive(self, driver: Driver) -> None:
        self._held = self.follower() if driver == Driver.HUMAN else None
        request = RequestControl.Request(driver=int(driver), reason="test")
        assert self.probe.call(RequestControl, "/hiwm/request_control", request).success
        self.probe.spin_until(lambda: self.control[-1].driver == driver, 20, f"{driver.name} drives")

    def until_driving(self, timeout_s: float = 150) -> None:
        """Wait for the graph: the policy proposes, and the arbiter commands."""

        def ready() -> bool:
            return bool(self.control) and self.control[-1].policy_fresh and len(self.control[-1].command) > 0

        self.probe.spin_until(ready, timeout_s, "a policy that drives")


def specs(models: Path, *words: str) -> Any:
    own = [f"world:={models / 'push_t_world'}", f"policy:={models / 'push_t_base'}"]
    return build_graph(parse_assignments([*own, *words]), project_root())


def arguments(supervisor: Supervisor, name: str) -> list[str]:
    """A node's command line without the folder of its parameter file, and that file's text."""
    running = next(r for r in supervisor.running if r.spec.name == name)
    command: Sequence[str] = running.process.args  # type: ignore[assignment]
    return [*(Path(word).name for word in command), Path(command[-1]).read_text()]


def test_takeover_rollback_and_branch_end_up_in_the_data_set(models, domain, tmp_path):
    bag = tmp_path / "bag"
    with graph(specs(models, f"record:={bag}"), domain) as supervisor, Probe(domain) as probe:
        operator = Operator(probe)
        operator.until_driving()
        assert probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request(task="push_t")).success
        probe.spin_for(3.0)
        operator.drive(Driver.HUMAN)
        operator.offset[0] = 0.1
        probe.spin_for(1.5)
        back = probe.call(Rollback, "/hiwm/rollback", Rollback.Request(snapshot_id=-1, steps=10))
        assert back.success and back.branch_id > 0, back.message
        operator.drive(Driver.POLICY)
        probe.spin_for(1.5)
        twice = probe.call(Branch, "/hiwm/branch", Branch.Request(snapshot_id=back.snapshot.id))
        assert twice.success and twice.branch_id > back.branch_id
        probe.spin_for(1.0)
        end = EndEpisode.Request(outcome=int(Outcome.FAILURE))
        assert probe.call(EndEpisode, "/hiwm/end_episode", end).success
        probe.spin_for(0.5)
        supervisor.poll()
    kinds = [e.type for e in operator.events]
    assert kinds == [EpisodeEvent.BEGIN, EpisodeEvent.ROLLBACK, EpisodeEvent.BRANCH, EpisodeEvent.END]
    report = convert_bags([bag], tmp_path / "data")
    data = Dataset(tmp_path / "data")
    assert report.episodes >= 3
    assert 10 <= data.column("intervention").sum() < data.num_frames
    assert set(np.unique(data.column("driver"))) >= {int(Driver.POLICY), int(Driver.HUMAN)}
    branches = {int(e.meta["branch_id"]): int(e.meta["parent_id"]) for e in data.episodes}
    assert branches[back.branch_id] == 0 or branches[back.branch_id] in branches
    assert twice.branch_id in branches
    stamps = data.column("stamp_ns")
    published = {stamp_to_ns(w.header.stamp) for w in operator.world}
    assert set(stamps.tolist()) <= published  # the times at which it happened, as the rig told them
    assert all((np.diff(stamps[data.episode_slice(e.index)]) > 0).all() for e in data.episodes)
    assert data.images("front").shape[1:] == (128, 128, 3)


def test_the_command_never_jumps_through_takeover_and_hand_back(models, domain):
    limits = np.array([j.max_velocity for j in ARM.joints]) * RIG.period_s
    with graph(specs(models), domain), Probe(domain) as probe:
        operator = Operator(probe)
        commands = probe.listen(JointTrajectory, ARM.command, 50)
        operator.until_driving()
        operator.offset[:2] = 0.2
        operator.drive(Driver.HUMAN)
        probe.spin_for(1.0)
        operator.drive(Driver.POLICY)
        probe.spin_for(1.0)
    positions = np.array([c.points[0].positions for c in commands])
    times = np.array([stamp_to_ns(c.header.stamp) for c in commands]) / 1e9
    moved = np.abs(np.diff(positions, axis=0))
    allowed = limits / RIG.period_s * np.maximum(np.diff(times), 0.02)[:, None] + 1e-6
    assert len(positions) > 50 and (moved <= allowed * 1.05).all()


def test_policy_and_arbiter_run_unchanged_on_the_sim_and_the_world_rig(models, domain):
    seen = {}
    for rig in ("sim", "world"):
        with graph(specs(models, f"rig:={rig}"), domain) as supervisor, Probe(domain) as probe:
            seen[rig] = arguments(supervisor, "policy") + arguments(supervisor, "arbiter")
            operator = Operator(probe)
            operator.until_driving(120)
            probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request())
            first = operator.follower()
            probe.spin_for(4.0)
            last = operator.follower()
            assert operator.control[-1].driver == Driver.POLICY
            assert np.abs(last - first).max() > 0.01, f"the policy does not move the {rig} rig"
            supervisor.poll()
        time.sleep(0.5)
    assert seen["sim"] == seen["world"]


def test_a_recorded_leader_takes_over_rolls_back_and_branches(models, domain, tmp_path):
    steps = np.linspace(0, 1, 31)[:, None]
    target = np.array(ARM.home) + np.array([0.3, 0.1, 0, 0, 0, 0, 0])
    positions = (1 - steps) * np.array(ARM.home) + steps * target
    motion = {"joint_names": ARM.joint_names, "rate_hz": 10.0, "positions": positions.tolist(), "start": 0}
    (tmp_path / "leader.json").write_text(json.dumps(motion))
    words = ["policy:=none", "operator:=playback", f"playback:={tmp_path / 'leader.json'}"]
    with graph(specs(models, *words), domain) as supervisor, Probe(domain) as probe:
        events = probe.listen(EpisodeEvent, RIG.topics.episode, LATCHED)
        control = probe.listen(ControlState, RIG.topics.control_state, 50)
        probe.spin_until(lambda: not supervisor.poll(), 120, "the end of the playback")
    assert [e.type for e in events] == [
        EpisodeEvent.BEGIN,
        EpisodeEvent.ROLLBACK,
        EpisodeEvent.BRANCH,
        EpisodeEvent.END,
    ]
    assert any(c.driver == Driver.HUMAN for c in control)


def test_a_leader_arm_takes_over_inside_the_world_model_and_goes_back(models, domain):
    with graph(specs(models, "operator:=leader"), domain) as supervisor:
        session = ArmSession(RIG, domain)
        session.until(lambda: supervisor.poll() and session.started, "world and leader", 120)
        assert session.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request()).success
        session.until(lambda: session.control[-1].policy_fresh, "the policy", 60)
        press(session, 0)
        session.drives(Driver.HUMAN)
        goal = float(session.joints()[0]) + 0.1
        session.lead_to(0, goal)
        press(session, 3)
        session.until(lambda: session.control[-1].reason == "rollback", "the way back")
        session.order("leader", "release")
        press(session, 0)
        session.drives(Driver.POLICY)
        session.close()


def press(session: ArmSession, button: int) -> None:
    """Press and release a button of the pedal."""
    for pressed in (0, 1, 0):
        session.pedal.publish(Joy(buttons=[pressed * (i == button) for i in range(4)]))
