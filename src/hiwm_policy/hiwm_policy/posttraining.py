"""Post-training: continue a policy on demonstrations and corrections, at a lower rate and with a fixed share of each.

The network, its normalisation and its configuration stay those of the base policy, so the two can be swapped in place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hiwm_data.dataset import Dataset
from pydantic import Field

from hiwm_policy.data import (
    DataError,
    Frames,
    MixedSampler,
    WindowSource,
    correction_frames,
    demonstration_frames,
    open_dataset,
)
from hiwm_policy.diffusion import DiffusionPolicy
from hiwm_policy.policy import CONFIG_FILE, PolicyError, load_policy
from hiwm_policy.training import TrainConfig, run_training


class PosttrainConfig(TrainConfig):
    """How to post-train; defaults that differ from training from nothing are shorter and gentler."""

    steps: int = Field(default=3000, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    correction_share: float = Field(default=0.5, gt=0, le=1, description="share of corrections in each batch")
    handback: int = Field(default=4, ge=0, description="frames after a correction whose targets still count")
    min_trust: float = Field(default=0.0, ge=0, le=1, description="correction frames below this trust are left out")


def posttrain_policy(
    base: Path,
    demonstrations: Sequence[Path],
    corrections: Sequence[Path],
    out: Path,
    config: PosttrainConfig,
    *,
    restart: bool = False,
) -> dict[str, Any]:
    """Post-train ``base``; the result goes to ``out``.

    Args:
        base: directory of the policy to start from; it is not changed.
        demonstrations: datasets the base was trained on (they keep it from forgetting).
        corrections: datasets with the column ``intervention``.
        out: another directory; an unfinished post-training there is continued.
        config: see :class:`PosttrainConfig`.
        restart: begin anew even where ``out`` holds an unfinished post-training.

    Returns:
        What a model card says about it.

    Raises:
        DataError: if a dataset cannot be used, or holds no correction at all.
        PolicyError: if ``base`` cannot be post-trained, or ``out`` is the same directory.
    """
    if out.resolve() == base.resolve():
        raise PolicyError(f"--out must differ from --base ({base}): the base policy is kept for comparison")
    torch.manual_seed(config.seed)
    policy = load_policy(base)
    if not isinstance(policy, DiffusionPolicy):
        raise PolicyError(f"{base / CONFIG_FILE}: policy '{policy.name}' has no training loop")
    image_steps = policy.config.image_steps

    def sources(roots: Sequence[Path], choose: Any) -> list[WindowSource]:
        opened = [(dataset, choose(dataset)) for dataset in map(open_dataset, roots)]
        return [WindowSource(dataset, frames, policy.spec, image_steps) for dataset, frames in opened if len(frames)]

    def chosen_corrections(dataset: Dataset) -> Frames:
        return correction_frames(dataset, config.handback, config.min_trust)

    kept, corrected = sources(demonstrations, demonstration_frames), sources(corrections, chosen_corrections)
    if not corrected:
        raise DataError(f"no corrections in {', '.join(map(str, corrections))} (trust threshold {config.min_trust})")
    sampler = MixedSampler([*kept, *corrected], _shares(kept, corrected, config), config.batch_size, config.seed)
    seconds = run_training(policy, sampler, config, out, None, restart)
    return {
        "base": base.name,
        "demonstrations": f"{sum(s.episodes for s in kept)} ({sum(map(len, kept))} frames)",
        "corrections": f"{sum(s.episodes for s in corrected)} ({sum(map(len, corrected))} frames)",
        "training": f"{config.steps} steps of {config.batch_size}, rate {config.learning_rate:g}, seed {config.seed}",
        "settings": json.dumps({k: getattr(config, k) for k in ("correction_share", "handback", "min_trust")}),
        "wall time": f"{seconds / 60:.1f} minutes",
    }


def _shares(kept: Sequence[WindowSource], corrected: Sequence[WindowSource], config: PosttrainConfig) -> list[float]:
    """Shares of the sources: the configured one for all corrections together, by frames within each kind."""
    share = config.correction_share if kept else 1.0
    old, new = sum(map(len, kept)), sum(map(len, corrected))
    return [(1 - share) * len(s) / old for s in kept] + [share * len(s) / new for s in corrected]
