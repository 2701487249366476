"""Choosing episodes of a dataset: by who drove, how it ended, what was asked for, how far a world model was trusted."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiwm_data.assemble import Part, assemble
from hiwm_data.features import DatasetError
from hiwm_data.reader import Dataset, Episode

DRIVERS = ("human", "policy", "mixed")
OUTCOMES = ("success", "failure", "unknown")
GROUPS = ("task", "outcome", "driver", "source", "split")


@dataclass(frozen=True)
class Criteria:
    """What an episode must be like; an empty field asks for nothing, all fields must hold.

    Attributes:
        driver: any of ``human`` (every frame), ``policy`` (no frame by a person), ``mixed``.
        outcome: any of these.
        task: any of these instructions; ``*`` and ``?`` match as in file names.
        source, split: any of these.
        min_trust: lowest trust of its frames.
        min_frames: length.
    """

    driver: Sequence[str] = ()
    outcome: Sequence[str] = ()
    task: Sequence[str] = ()
    source: Sequence[str] = ()
    split: Sequence[str] = ()
    min_trust: float = 0.0
    min_frames: int = 0


def driver_of(dataset: Dataset, episode: Episode) -> str:
    """``human``, ``policy`` or ``mixed``.

    Raises:
        DatasetError: if the dataset does not record who drove.
    """
    human = _column(dataset, "intervention", episode).astype(bool)
    return "human" if human.all() else "mixed" if human.any() else "policy"


def select(dataset: Dataset, criteria: Criteria) -> list[int]:
    """Indices of the episodes that fulfil all criteria.

    Raises:
        DatasetError: if the dataset lacks a column that is asked about.
    """
    return [e.index for e in dataset.episodes if _fits(dataset, e, criteria)]


def _fits(dataset: Dataset, episode: Episode, criteria: Criteria) -> bool:
    for key in ("outcome", "source", "split"):
        wanted = getattr(criteria, key)
        if wanted and str(episode.meta.get(key, "unknown")) not in wanted:
            return False
    if criteria.task and not any(fnmatch.fnmatchcase(episode.task, pattern) for pattern in criteria.task):
        return False
    if episode.length < criteria.min_frames:
        return False
    if criteria.driver and driver_of(dataset, episode) not in criteria.driver:
        return False
    return not (criteria.min_trust > 0 and _column(dataset, "trust", episode).min() < criteria.min_trust)


def _column(dataset: Dataset, name: str, episode: Episode) -> np.ndarray:
    if name not in dataset.features:
        raise DatasetError(f"{dataset.root}: no column '{name}'; only recordings (hiwm data convert) have it")
    return dataset.column(name)[episode.frames]


def filter_dataset(root: str | Path, out: str | Path, criteria: Criteria, *, overwrite: bool = False) -> list[int]:
    """Write the episodes that fulfil the criteria as a dataset; returns their indices.

    Raises:
        DatasetError: if there is none (naming what episodes there are), or ``out`` exists.
    """
    dataset = Dataset(root)
    chosen = select(dataset, criteria)
    if not chosen:
        raise DatasetError(f"{root}: none of {dataset.num_episodes} episodes fits; {_offered(dataset)}")
    assemble([Part(dataset, chosen)], out, overwrite=overwrite)
    return chosen


def _offered(dataset: Dataset) -> str:
    groups = [k for k in GROUPS if k != "driver" or "intervention" in dataset.features]
    return "; ".join(f"{key}: {', '.join(sorted(group_by(dataset, key)))}" for key in groups)


def group_by(dataset: Dataset, key: str) -> dict[str, list[int]]:
    """Episode indices by task, outcome, driver, source or split.

    Raises:
        DatasetError: if the key is another, or the dataset does not record who drove.
    """
    if key not in GROUPS:
        raise DatasetError(f"cannot group by '{key}'; expected one of {', '.join(GROUPS)}")
    groups: dict[str, list[int]] = {}
    for episode in dataset.episodes:
        if key == "driver":
            value = driver_of(dataset, episode)
        else:
            value = episode.task if key == "task" else str(episode.meta.get(key, "unknown"))
        groups.setdefault(value, []).append(episode.index)
    return groups


def split_by_share(dataset: Dataset, shares: Mapping[str, float], seed: int = 0) -> dict[str, list[int]]:
    """Episode indices by name, drawn at random; branches of one recorded episode stay together.

    Raises:
        DatasetError: if shares are not positive or do not add up to one, or a name gets no episode.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DatasetError(f"shares must be positive and add up to 1, got {dict(shares)}")
    families: dict[tuple[str, str], list[int]] = {}
    for episode in dataset.episodes:
        known = "episode_id" in episode.meta
        family = (str(episode.meta.get("bag", "")), str(episode.meta["episode_id"])) if known else ("", "")
        families.setdefault(family if known else ("alone", str(episode.index)), []).append(episode.index)
    order = [list(families.values())[i] for i in np.random.default_rng(seed).permutation(len(families))]
    bounds = np.round(np.cumsum(list(shares.values())) * len(order)).astype(int).tolist()
    result, first = {}, 0
    for name, last in zip(shares, bounds, strict=True):
        result[name] = sorted(i for family in order[first:last] for i in family)
        first = last
        if not result[name]:
            raise DatasetError(f"{dataset.root}: no episode left for '{name}' of {len(order)} recorded episodes")
    return result


def write_groups(
    dataset: Dataset, groups: Mapping[str, Sequence[int]], out: str | Path, *, mark: bool, overwrite: bool = False
) -> dict[str, Path]:
    """Write each group as a dataset ``out/<name>``; with ``mark`` its episodes say ``split`` = name.

    Raises:
        DatasetError: if one of them exists.
    """
    folders = {name: Path(out) / _folder_name(name) for name in groups}
    if len(set(folders.values())) < len(folders):
        raise DatasetError(f"{out}: groups {sorted(groups)} would share a folder name")
    taken = [str(f) for f in folders.values() if f.exists()]
    if taken and not overwrite:
        raise DatasetError(f"{', '.join(taken)}: exists already; choose another folder or ask for overwriting")
    for name, folder in folders.items():
        meta = {"split": name} if mark else {}
        assemble([Part(dataset, groups[name], meta=meta)], folder, overwrite=overwrite)
    return folders


def _folder_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "none"
