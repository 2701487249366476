"""Two followers, two leaders, one arbiter: the bimanual rig on emulated servos, with real nodes in real processes."""

from collections.abc import Iterator

import numpy as np
import pytest
from hiwm_bringup.arm_session import ArmSession, arm_nodes
from hiwm_bringup.testing import graph, unique_domain
from hiwm_rig.contract import load_rig
from hiwm_rig.types import Driver
from std_srvs.srv import SetBool

pytestmark = pytest.mark.timeout(300)
RIG = load_rig("bimanual")
LEFT, RIGHT = RIG.arms


@pytest.fixture(scope="module")
def session() -> Iterator[ArmSession]:
    with unique_domain() as domain, graph(arm_nodes("rig_file:=bimanual"), domain) as supervisor:
        running = ArmSession(RIG, domain)
        running.until(lambda: supervisor.poll() and running.started, "both arms", 90)
        yield running
        supervisor.poll()
        running.close()


def test_each_hand_moves_its_own_follower_through_one_arbiter(session: ArmSession) -> None:
    session.ask(Driver.HUMAN)
    assert list(session.control[-1].joint_names) == list(RIG.joint_names)
    session.lead_to(0, 0.4, LEFT)
    session.lead_to(0, -0.3, RIGHT)
    assert session.follows(0, 0.4, LEFT)
    assert session.follows(1, LEFT.home[1], LEFT) and session.follows(1, RIGHT.home[1], RIGHT)


def test_a_fault_of_one_arm_holds_both_and_heals(session: ArmSession) -> None:
    session.ask(Driver.HUMAN)
    session.order("follower", "missing 2", RIGHT)
    session.drives(Driver.PAUSED)
    assert "arm 'right'" in session.control[-1].reason
    session.probe.spin_for(0.2)  # the servos' lag
    session.hand(0, -0.4, LEFT)
    left = session.joints(LEFT)
    session.probe.spin_for(0.5)
    assert np.allclose(session.joints(LEFT), left, atol=0.005), "one arm does not go on alone"
    session.order("follower", "clear", RIGHT)
    session.ask(Driver.HUMAN)
    session.lead_to(0, -0.4, LEFT)


def test_one_emergency_stop_holds_both_arms(session: ArmSession) -> None:
    session.ask(Driver.HUMAN)
    assert session.probe.call(SetBool, "/hiwm/emergency_stop", SetBool.Request(data=True)).success
    session.drives(Driver.PAUSED)
    reason = session.control[-1].reason
    assert "arm 'left'" in reason or "arm 'right'" in reason
    where = [session.joints(arm) for arm in RIG.arms]
    for arm in RIG.arms:
        session.hand(1, 0.5, arm)
    session.probe.spin_for(0.5)
    for arm, before in zip(RIG.arms, where, strict=True):
        assert np.allclose(session.joints(arm), before, atol=0.005)
    assert session.probe.call(SetBool, "/hiwm/emergency_stop", SetBool.Request(data=False)).success
    session.healthy()
