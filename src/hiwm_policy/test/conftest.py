"""Demonstrations of the tiny task of :mod:`hiwm_policy.testing`, recorded once."""

from __future__ import annotations

import pytest
from hiwm_data.dataset import Dataset
from hiwm_policy.testing import RIG_YAML, record
from hiwm_rig.contract import Rig, parse_rig


@pytest.fixture(scope="session")
def tiny_rig() -> Rig:
    return parse_rig(RIG_YAML, "tiny.yaml")


@pytest.fixture(scope="session")
def tiny_demos(tmp_path_factory: pytest.TempPathFactory, tiny_rig: Rig) -> Dataset:
    return record(tmp_path_factory.mktemp("tiny") / "demos", tiny_rig, 60)
