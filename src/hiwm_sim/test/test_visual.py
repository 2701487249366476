"""Visual variations change the picture and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hiwm_rig.contract import Rig
from hiwm_sim.rig import SimRig
from hiwm_sim.visual import VARIATIONS, make_visual


@pytest.mark.parametrize("name", sorted(set(VARIATIONS) - {"default"}) + ["background+object"])
def test_a_variation_changes_the_picture_but_not_the_state(env: SimRig, rig: Rig, name: str) -> None:
    plain = env.reset(4)
    with SimRig(rig, visual=name) as other:
        varied = other.reset(4)
        np.testing.assert_array_equal(other.environment_state(), env.environment_state())
        np.testing.assert_array_equal(varied.joints, plain.joints)
        assert np.abs(varied.images["front"].astype(int) - plain.images["front"]).mean() > 0.2
        for step in range(3):
            action = env.kinematics.inverse([0.3, 0.05 * step, 0.03])
            np.testing.assert_array_equal(other.step(action).joints, env.step(action).joints)


def test_looks_belong_to_the_seed(rig: Rig) -> None:
    with SimRig(rig, visual="background+distractors") as env:
        first, other, again = (env.reset(seed).images["front"] for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_an_unknown_variation_is_named_with_the_known() -> None:
    with pytest.raises(KeyError, match=r"neon.*background"):
        make_visual("background+neon")
