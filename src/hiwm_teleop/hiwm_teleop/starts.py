"""Choosing where rollouts start: real first frames that look like the task to the operator. No ROS.

The starts a world model ships with are those of the demonstrations, where the policy is at its best. Other recordings
hold first frames that it was never trained from, and there it fails in ways that are worth correcting.
"""

from __future__ import annotations

import numpy as np
from hiwm_data.dataset import Dataset
from hiwm_data.features import IMAGE_PREFIX, STATE
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver
from hiwm_world_model.library import StartLibrary

from hiwm_teleop.skill import Skill, View

MAX_FITTING = 256


def fitting_starts(dataset: Dataset, rig: Rig, skill: Skill, max_distance: float) -> StartLibrary:
    """First frames of a dataset in which the task is neither done nor hopeless, by what the operator sees.

    Args:
        dataset: recorded episodes.
        rig: gives the cameras.
        skill: looks at the frames.
        max_distance: of a start from done, in the unit of the skill.

    Raises:
        ValueError: if no first frame fits.
    """
    rows = np.array([e.start for e in dataset.episodes])
    images = {c.name: np.asarray(dataset.images(c.name)[rows]) for c in rig.cameras}
    joints = np.asarray(dataset.column(STATE)[rows], np.float32)
    keep = []
    for i in range(len(rows)):
        skill.reset()
        seen = skill.look(View({k: v[i] for k, v in images.items()}, joints[i], 0, Driver.PAUSED))
        if seen.clear and not seen.solved and seen.distance <= max_distance:
            keep.append(i)
        if len(keep) == MAX_FITTING:
            break
    if not keep:
        raise ValueError(f"{dataset.root}: no first frame within {max_distance} of done ({IMAGE_PREFIX}*)")
    episodes = np.array([dataset.episodes[i].index for i in keep])
    return StartLibrary({k: v[keep] for k, v in images.items()}, joints[keep], episodes)
