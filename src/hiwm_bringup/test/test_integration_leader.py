"""Leaders that are not aligned, that help, or that fail under a person's hand: real nodes, the servos emulated."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hiwm_bringup.arm_session import ArmSession, arm_nodes
from hiwm_bringup.testing import graph, unique_domain
from hiwm_rig.codecs import stamp_to_ns, target_to_trajectory
from hiwm_rig.contract import load_rig
from hiwm_rig.hardware_status import HardwareKind
from hiwm_rig.rig_node import LATCHED, qos_profile
from hiwm_rig.types import Driver
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hiwm_msgs.msg import ControlState, EpisodeEvent
from hiwm_msgs.srv import RequestControl, StartEpisode

pytestmark = pytest.mark.timeout(300)
RIG = load_rig("push_t")
ARM = RIG.arms[0]
HOME = np.array(ARM.home)
VMAX = np.array([j.max_velocity for j in ARM.joints])
START_S = 90.0


@contextmanager
def leading(folder: Path, leader: dict[str, Any], **arbiter: str | float) -> Iterator[ArmSession]:
    """The shipped rig with another leader, and other parameters of the arbiter."""
    content = yaml.safe_load(RIG.model_dump_json())
    content["arms"][0]["hardware"]["leader"].update(leader)
    rig_file = folder / "rig.yaml"
    rig_file.write_text(yaml.safe_dump(content))
    nodes = {s.name: s for s in arm_nodes(f"rig_file:={rig_file}")}
    spec = nodes["arbiter"]
    nodes["arbiter"] = replace(spec, parameters={**spec.parameters, **arbiter})
    with unique_domain() as domain, graph(list(nodes.values()), domain) as supervisor:
        session = ArmSession(load_rig(rig_file), domain)
        session.until(lambda: supervisor.poll() and session.started, "the arms", START_S)
        yield session
        supervisor.poll()
        session.close()


@pytest.fixture(scope="module")
def passive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArmSession]:
    slowly = {"align_speed": 0.1}  # that there is time to disturb it
    with leading(tmp_path_factory.mktemp("passive"), {"actuated": False}, **slowly) as session:
        yield session


@pytest.fixture(scope="module")
def helping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArmSession]:
    with leading(tmp_path_factory.mktemp("helping"), {"help_current_ma": 60.0}) as session:
        yield session


def limp(session: ArmSession) -> bool:
    return not any(servo["torque"] for servo in session.servos("leader").values())


def helps(session: ArmSession) -> bool:
    """Whether the leader's servos help a person; who is let go of on a stalled machine asks again."""
    if session.control[-1].driver == Driver.PAUSED:
        session.ask(Driver.HUMAN, 60)
    servos = session.servos("leader").values()
    return {(s["torque"], s["goal_current"]) for s in servos} == {(1, 60)}


def ask_for_control(session: ArmSession) -> RequestControl.Response:
    request = RequestControl.Request(driver=int(Driver.HUMAN), reason="test")
    return session.probe.call(RequestControl, "/hiwm/request_control", request)


def start_to_align(session: ArmSession, angle: float) -> None:
    """A hand holds the passive leader far from the follower, and asks to drive."""
    session.ask(Driver.PAUSED)
    session.hand(0, angle)
    session.until(lambda: abs(session.leader_joints()[0] - angle) < 0.01, "the leader in the hand")
    session.control.clear()
    assert ask_for_control(session).success
    session.until(lambda: any(c.driver == Driver.ALIGNING for c in session.control), "the ramp")


def press(session: ArmSession, button: int) -> None:
    session.pedal.publish(Joy(buttons=[0] * 4))
    session.pedal.publish(Joy(buttons=[int(i == button) for i in range(4)]))
    session.pedal.publish(Joy(buttons=[0] * 4))


def counter(session: ArmSession, key: str) -> int:
    values = [v for m in session.diagnostics for s in m.status if s.hardware_id == "leader_arm" for v in s.values]
    return max((int(v.value) for v in values if v.key == key), default=0)


def test_the_follower_ramps_to_a_passive_leader_which_never_has_torque(passive: ArmSession) -> None:
    commands = passive.arms[ARM.name].commands
    start_to_align(passive, 0.6)
    seen = len(commands)
    passive.drives(Driver.HUMAN)
    passive.until(lambda: passive.follows(0, 0.6), "the follower at the leader's side")
    rows = np.array([c.points[0].positions for c in commands[seen:]])
    times = np.array([stamp_to_ns(c.header.stamp) for c in commands[seen:]]) / 1e9
    assert (np.abs(np.diff(rows, axis=0)) <= VMAX * np.minimum(np.diff(times), RIG.period_s)[:, None] + 1e-6).all()
    assert limp(passive)
    passive.lead_to(0, 0.3)
    passive.ask(Driver.PAUSED)
    passive.probe.spin_for(0.5)
    assert limp(passive) and abs(passive.leader_joints()[0] - 0.3) < 0.01, "it does not mirror"


def test_a_leader_unplugged_while_the_follower_aligns_stops_it_where_it_is(passive: ArmSession) -> None:
    start_to_align(passive, -2.5)
    passive.order("leader", "unplug 1.0")
    passive.drives(Driver.PAUSED)
    where = passive.joints()[0]
    assert where > -2.4, "it was still on its way"
    passive.healthy()
    passive.probe.spin_for(0.5)
    assert passive.control[-1].driver == Driver.PAUSED and passive.follows(0, where, tolerance=0.1)


def test_a_clutched_passive_leader_moves_the_follower_from_where_it_is(tmp_path: Path) -> None:
    with leading(tmp_path, {"actuated": False}, alignment="clutch") as session:
        session.ask(Driver.PAUSED)
        session.hand(0, 0.6)
        session.until(lambda: abs(session.leader_joints()[0] - 0.6) < 0.01, "the leader in the hand")
        session.probe.spin_for(0.5)  # at rest, and the arbiter knows
        session.ask(Driver.HUMAN)
        session.probe.spin_for(0.5)
        assert session.follows(0, HOME[0]), "nothing to align"
        session.hand(0, 0.9)
        session.until(lambda: session.follows(0, HOME[0] + 0.3), "the leader's motion, from there", 60)
        assert limp(session)


def test_a_leader_unplugged_while_it_helps_comes_back_and_helps_again(helping: ArmSession) -> None:
    helping.lead_to(0, 0.3)
    helping.until(lambda: helps(helping), "a person with help", 60)
    helping.order("leader", "unplug 1.0")
    helping.drives(Driver.PAUSED)
    helping.hand(0, -0.3)
    helping.healthy(60)
    assert helping.follows(0, 0.3, tolerance=0.05), "the person has to ask again"
    helping.lead_to(0, -0.3)
    helping.until(lambda: helps(helping), "help again", 60)
    helping.order("leader", "release")


def test_the_failure_pedal_ends_the_episode_as_a_failure(helping: ArmSession) -> None:
    events = helping.probe.listen(EpisodeEvent, RIG.topics.episode, LATCHED)
    helping.healthy()
    assert helping.probe.call(StartEpisode, "/hiwm/start_episode", StartEpisode.Request()).success
    press(helping, 2)
    helping.until(lambda: bool(events) and events[-1].type == EpisodeEvent.END, "the end")
    assert (events[-1].outcome, events[-1].note) == (EpisodeEvent.OUTCOME_FAILURE, "leader arm")


def test_the_rollback_pedal_on_a_rig_that_cannot_go_back_is_refused_and_counted(helping: ArmSession) -> None:
    before = counter(helping, "failed_requests")
    press(helping, 3)
    helping.until(lambda: counter(helping, "failed_requests") > before, "the refusal")


def test_wrong_mirror_targets_and_an_unknown_driver_are_counted_and_the_leader_lives(helping: ArmSession) -> None:
    node = helping.probe.node
    mirror = node.create_publisher(JointTrajectory, ARM.leader_command, qos_profile(RIG.qos.commands))
    control = node.create_publisher(ControlState, RIG.topics.control_state, 10)
    wrong = {"not_finite_mirror": np.nan, "out_of_limits_mirror": 1e12}
    helping.ask(Driver.PAUSED)
    helping.until(lambda: mirror.get_subscription_count() > 0 and control.get_subscription_count() > 1, "the leader")

    def counted() -> bool:
        control.publish(ControlState(driver=77))
        for value in wrong.values():
            mirror.publish(target_to_trajectory(ARM.joint_names, np.where(np.arange(7) == 1, value, HOME), 1, 0.1))
        return all(counter(helping, f"rejected_{key}") > 0 for key in [*wrong, "malformed_control"])

    helping.until(counted, "the counters")
    helping.until(lambda: not limp(helping), "the leader mirrors")


def test_only_a_servo_with_a_hardware_error_is_restarted_and_nobody_leads_with_one(helping: ArmSession) -> None:
    helping.ask(Driver.PAUSED)
    reply = helping.probe.call(Trigger, "/follower_leader/restart", Trigger.Request())
    assert not reply.success and "nothing to restart" in reply.message
    helping.diagnostics.clear()
    helping.order("leader", "overload 3")
    helping.until(lambda: 2 in helping.levels(ARM.name, HardwareKind.LEADER), "the fault")
    helping.until(lambda: "overload" in ask_for_control(helping).message, "the arbiter refuses, and says why")
    assert not ask_for_control(helping).success
    assert helping.probe.call(Trigger, "/follower_leader/restart", Trigger.Request()).success
    helping.ask(Driver.HUMAN)
