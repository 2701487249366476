"""Open-loop check: what a policy proposes on recorded frames, beside what was done there. No ROS.

The policy sees every recorded frame as on a running rig and is asked as often as there, but what it proposes changes
nothing. Two rows to beat: holding still where the arm is when the policy is asked, and repeating the last action
before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_data.bag_reader import Bag, BagError, find_bags, rig_of_bag
from hiwm_data.convert import ConvertOptions, bag_episodes
from hiwm_data.dataset import ACTION, STATE, Dataset, DatasetError
from hiwm_data.features import IMAGE_PREFIX
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, Image, Observation
from tqdm import tqdm

from hiwm_policy.policy import Policy, PolicyError
from hiwm_policy.runner import ChunkedRunner

Joints = npt.NDArray[np.float64]
METHODS = ("policy", "hold", "repeat")


@dataclass(frozen=True)
class Recorded:
    """Consecutive frames of one branch or episode.

    Attributes:
        name: for plots.
        images: camera -> [T, H, W, 3] uint8 RGB.
        joints: [T, D] rad or m.
        actions: [T, D] targets that were in force.
        driver: [T] who drove, a value of :class:`Driver`; -1 where that was not recorded.
        proposals: [T, D] what the policy of the recording proposed; NaN where it proposed nothing.
    """

    name: str
    images: dict[str, npt.NDArray[np.uint8]]
    joints: Joints
    actions: Joints
    driver: npt.NDArray[np.int64]
    proposals: Joints


@dataclass(frozen=True)
class Predicted:
    """What was proposed on one recording, frame by frame.

    Attributes:
        recorded: the frames, without their images.
        by_method: each of :data:`METHODS` -> [T, D] targets.
        step: [T] steps since the policy was asked.
    """

    recorded: Recorded
    by_method: dict[str, Joints]
    step: npt.NDArray[np.int64]


@dataclass
class OpenLoopResult:
    """Errors over all recordings, and the longest of them for a plot.

    Attributes:
        joint_names, units: D of each; ``rad`` or ``m``.
        predictions: one per recording.
    """

    joint_names: tuple[str, ...]
    units: tuple[str, ...]
    predictions: list[Predicted] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Mean absolute errors against the recorded action.

        Keys: ``recordings``, ``frames``, ``joints`` (by joint: unit, ``policy``, ``hold``, ``repeat``, and
        ``recorded_policy``, the proposals that are in the recording, or null), ``by_step`` (steps since the policy was
        asked: frames and the mean over the revolute joints, rad, by method), ``by_driver`` (the same by who drove).
        """
        errors = {
            m: np.concatenate([np.abs(p.by_method[m] - p.recorded.actions) for p in self.predictions]) for m in METHODS
        }
        before = np.concatenate([np.abs(p.recorded.proposals - p.recorded.actions) for p in self.predictions])
        known = np.isfinite(before).all(axis=1)
        joints = {}
        for i, (name, unit) in enumerate(zip(self.joint_names, self.units, strict=True)):
            values: dict[str, Any] = {m: _rounded(errors[m][:, i].mean()) for m in METHODS}
            values["recorded_policy"] = _rounded(before[known, i].mean()) if known.any() else None
            joints[name] = {"unit": unit, **values}
        step = np.concatenate([p.step for p in self.predictions])
        driver = np.concatenate([p.recorded.driver for p in self.predictions])
        names = {int(d): Driver(d).name.lower() for d in Driver}
        return {
            "recordings": len(self.predictions),
            "frames": len(step),
            "joints": joints,
            "by_step": {str(int(s)): self._row(errors, step == s) for s in np.unique(step)},
            "by_driver": {names.get(int(d), "unknown"): self._row(errors, driver == d) for d in np.unique(driver)},
        }

    def _row(self, errors: dict[str, Joints], rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        revolute = [i for i, unit in enumerate(self.units) if unit == "rad"] or list(range(len(self.units)))
        means = {m: _rounded(errors[m][rows][:, revolute].mean()) for m in METHODS}
        return {"frames": int(rows.sum()), **means}


def open_loop(policy: Policy, rig: Rig, recordings: Iterable[Recorded], seed: int = 0) -> OpenLoopResult:
    """Run a policy over recordings.

    Args:
        policy: any policy.
        rig: that was recorded.
        recordings: see :func:`recordings_of_bags` and :func:`recordings_of_dataset`.
        seed: of the policy's noise.

    Raises:
        PolicyError: the policy is for another rig, or there is nothing to run it on.
    """
    policy.spec.check_rig(rig)
    units = tuple("rad" if j.type == "revolute" else "m" for j in rig.joints)
    result = OpenLoopResult(rig.joint_names, units)
    runner = ChunkedRunner(policy, rig.joints)
    for recorded in tqdm(recordings, desc="open loop", unit="recording"):
        result.predictions.append(predict(runner, recorded, seed))
    if not result.predictions:
        raise PolicyError("no recording to run the policy on")
    return result


def predict(runner: ChunkedRunner, recorded: Recorded, seed: int) -> Predicted:
    """What the policy, and the rows to beat, say on each frame of one recording."""
    runner.reset(seed)
    size = len(recorded.joints)
    found = {m: np.empty_like(recorded.actions) for m in METHODS}
    step = np.zeros(size, np.int64)
    asked = 0
    for t in range(size):
        images: dict[str, Image] = {name: frames[t] for name, frames in recorded.images.items()}
        found["policy"][t] = runner.act(Observation(images, recorded.joints[t], t))
        asked = t if t % runner.execute == 0 else asked
        step[t] = t - asked
        found["hold"][t] = recorded.joints[asked]
        found["repeat"][t] = recorded.actions[asked - 1] if asked else recorded.joints[0]
    return Predicted(replace(recorded, images={}), found, step)


def recordings_of_bags(bags: Sequence[str | Path], rig: Rig | None = None) -> tuple[Rig, Iterator[Recorded]]:
    """The branches that bags hold, cut and aligned as for training.

    Args:
        bags: bags, and folders of bags.
        rig: that was recorded; default: the one kept with the first bag.

    Raises:
        BagError: a bag that cannot be used, naming it.
    """
    opened = [Bag(path) for path in find_bags(bags)]
    known = rig or (rig_of_bag(opened[0]) if opened else None)
    if known is None:
        raise BagError(f"{bags[0]}: no rig file is kept with this bag; name the rig it was recorded on (--rig-file)")
    return known, _of_bags(opened, known)


def _of_bags(bags: Sequence[Bag], rig: Rig) -> Iterator[Recorded]:
    for bag in bags:
        for episode in bag_episodes(bag, rig, ConvertOptions()):
            yield _recorded(f"{bag.path.name} branch {episode.meta['branch_id']}", episode.columns, rig)


def recordings_of_dataset(root: str | Path, rig: Rig, split: str | None = None) -> Iterator[Recorded]:
    """The episodes of a dataset.

    Args:
        root: of the dataset.
        rig: that was recorded.
        split: only episodes of that split (those that carry none count as any); None for all.

    Raises:
        DatasetError: no dataset, or none with the joints and cameras of the rig.
    """
    dataset = Dataset(root)
    wanted = {STATE, ACTION, *(IMAGE_PREFIX + c.name for c in rig.cameras)}
    if missing := sorted(wanted - set(dataset.features)):
        raise DatasetError(f"{root}: no columns {missing}; is it a dataset of rig '{rig.name}'?")
    for episode in dataset.episodes:
        if split is not None and episode.meta.get("split", split) != split:
            continue
        rows = dataset.episode_slice(episode.index)
        optional = [k for k in ("driver", "policy_action", "policy_proposed") if k in dataset.features]
        columns = {k: dataset.column(k)[rows] for k in (STATE, ACTION, *optional)}
        columns |= {IMAGE_PREFIX + c.name: dataset.images(c.name)[rows] for c in rig.cameras}
        yield _recorded(f"episode {episode.index}", columns, rig)


def _recorded(name: str, columns: dict[str, npt.NDArray[Any]], rig: Rig) -> Recorded:
    actions = np.asarray(columns[ACTION], np.float64)
    proposals = np.full_like(actions, np.nan)
    if "policy_action" in columns:
        proposed = columns["policy_proposed"].astype(bool)
        proposals[proposed] = columns["policy_action"][proposed]
    return Recorded(
        name,
        {c.name: columns[IMAGE_PREFIX + c.name] for c in rig.cameras},
        np.asarray(columns[STATE], np.float64),
        actions,
        np.asarray(columns.get("driver", np.full(len(actions), -1)), np.int64),
        proposals,
    )


def _rounded(value: Any) -> float:
    return float(f"{float(value):.4g}")
