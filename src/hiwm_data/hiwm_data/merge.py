"""Putting datasets together: merging into a new one, appending to one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiwm_data.assemble import Part, assemble
from hiwm_data.features import DatasetError
from hiwm_data.reader import Dataset


def merge_datasets(roots: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Path:
    """Merge datasets of the same robot with the same columns and frame rate, in the order given.

    Raises:
        DatasetError: if there is none, ``out`` exists, or robots, columns or rates differ (naming both datasets).
    """
    return assemble([Part(Dataset(root)) for root in roots], out, overwrite=overwrite)


def append_datasets(root: str | Path, others: Sequence[str | Path]) -> Path:
    """Add the episodes of other datasets to the end of ``root``; its own files are neither read nor copied.

    The longer dataset takes the place of ``root`` when it is complete.

    Raises:
        DatasetError: if there is nothing to add, or robots, columns or rates differ (naming both datasets).
    """
    if not others:
        raise DatasetError(f"{root}: nothing to append")
    parts = [Part(Dataset(root), link=True), *(Part(Dataset(other)) for other in others)]
    return assemble(parts, root, overwrite=True)
