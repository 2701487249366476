"""Batches drawn ahead of the training step, in worker processes, in the order of the steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from hiwm_policy.data import Batch, MixedSampler

_AHEAD = 4


class _Steps(TorchDataset[Batch]):
    """Item ``step`` is the batch of that training step: the same whoever draws it, and whenever."""

    def __init__(self, sampler: MixedSampler, rank: int) -> None:
        self._sampler = sampler
        self._rank = rank

    def __getitem__(self, step: int) -> Batch:
        return self._sampler.batch(step, self._rank)


def batches(sampler: MixedSampler, steps: range, rank: int = 0, workers: int = 0) -> Iterator[Batch]:
    """The batches of ``steps``, in order; the number of workers changes nothing but the speed.

    Args:
        sampler: draws them.
        steps: of the training.
        rank: of this training process.
        workers: processes that draw; 0 draws in this one.
    """
    if not len(steps):
        return iter(())
    loader = DataLoader(
        _Steps(sampler, rank),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=_AHEAD if workers else None,
    )
    return iter(loader)


def _as_it_is(batch: Any) -> Any:
    return batch
