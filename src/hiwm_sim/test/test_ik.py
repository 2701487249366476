"""The closed-form kinematics agree with the simulated arm, and say so when a point is out of reach."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hiwm_sim.ik import ArmKinematics, UnreachableError
from hiwm_sim.rig import SimRig
from hypothesis import given
from hypothesis import strategies as st

ARM = ArmKinematics()


@given(x=st.floats(0.18, 0.44), y=st.floats(-0.15, 0.15), z=st.floats(0.005, 0.15), yaw=st.floats(-3, 3))
def test_inverse_then_forward_is_the_identity(x: float, y: float, z: float, yaw: float) -> None:
    np.testing.assert_allclose(ARM.tip(ARM.inverse([x, y, z], yaw=yaw)), [x, y, z], atol=1e-9)


def test_forward_kinematics_agree_with_mujoco_for_any_joints(blind: SimRig) -> None:
    rng = np.random.default_rng(0)
    blind.reset(0)
    adr = [int(blind.model.joint(n).qposadr[0]) for n in blind.rig.joint_names]
    for _ in range(20):
        joints = rng.uniform(-1.2, 1.2, 7)
        blind.data.qpos[adr] = joints
        mujoco.mj_kinematics(blind.model, blind.data)
        np.testing.assert_allclose(ARM.tip(joints), blind.tip(), atol=1e-9)


def test_a_point_out_of_reach_is_refused_with_the_point_named() -> None:
    with pytest.raises(UnreachableError, match=r"0\.700"):
        ARM.inverse([0.7, 0.0, 0.05])


def test_nearest_reachable_moves_only_what_is_out_of_reach() -> None:
    inside, outside = np.array([0.3, 0.1, 0.05]), np.array([0.6, 0.2, 0.05])
    np.testing.assert_array_equal(ARM.nearest_reachable(inside), inside)
    moved = ARM.nearest_reachable(outside)
    assert ARM.reachable(moved, margin=0.001)
    assert moved[1] / moved[0] == pytest.approx(1 / 3)
    assert moved[2] == outside[2]
