"""Shared by the tests of hiwm_sim."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hiwm_rig.contract import Rig, load_rig
from hiwm_sim.rig import SimRig


@pytest.fixture(scope="session")
def rig() -> Rig:
    return load_rig("push_t")


@pytest.fixture(scope="module")
def env(rig: Rig) -> Iterator[SimRig]:
    """With pictures."""
    with SimRig(rig) as env:
        yield env


@pytest.fixture(scope="module")
def blind(rig: Rig) -> Iterator[SimRig]:
    """Without pictures."""
    with SimRig(rig, render=False) as env:
        yield env
