"""The training loop of all policies: AdamW, cosine schedule, moving average, resumable checkpoints, TensorBoard.

Runs on one CPU core, on a GPU (``device="cuda"``) and under ``torchrun`` / ``accelerate launch`` without changes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from hiwm_data.dataset import Dataset
from hiwm_rig.files import write_json
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hiwm_policy.checkpoints import read_weights, write_weights
from hiwm_policy.data import (
    Batch,
    Frames,
    MixedSampler,
    WindowSource,
    demonstration_frames,
    has_split,
    infer_spec,
    open_dataset,
)
from hiwm_policy.diffusion import DiffusionConfig, DiffusionPolicy
from hiwm_policy.ema import Ema
from hiwm_policy.loader import batches
from hiwm_policy.policy import PolicyError
from hiwm_policy.trainable import Augmentation, TrainablePolicy

STATE_DIR = "training"


class TrainConfig(BaseModel):
    """How long and how fast to train."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=64, ge=1, description="per process")
    learning_rate: float = Field(default=6e-4, gt=0)
    final_learning_rate: float = Field(default=0.02, ge=0, le=1, description="as a fraction of the learning rate")
    warmup_steps: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["no", "bf16"] = "bf16"
    save_every: int = Field(default=1000, ge=1)
    log_every: int = Field(default=50, ge=1)
    keep_snapshots: bool = Field(default=False, description="keep the policy of every save, for learning curves")
    workers: int = Field(default=0, ge=0, description="processes that draw batches ahead; 0: the training process")
    augmentation: Augmentation = Augmentation()


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to ``final_learning_rate``."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


class Trainer:
    """Trains one policy from batches; everything it needs to continue after a kill lies in ``out/training``."""

    def __init__(
        self,
        policy: TrainablePolicy,
        sampler: MixedSampler,
        config: TrainConfig,
        out: Path,
        held_out: WindowSource | None = None,
    ) -> None:
        self.policy = policy
        self.sampler = sampler
        self.config = config
        self.out = out
        self.held_out = held_out
        self.step = 0
        self.seconds = 0.0
        self.accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision=config.precision)
        if config.device == "cuda" and self.accelerator.device.type != "cuda":
            raise PolicyError("--device cuda: no CUDA device is available")
        self.ema = Ema(policy.network.to(self.accelerator.device), config.ema_decay)
        self.optimizer = torch.optim.AdamW(
            policy.network.parameters(),
            lr=config.learning_rate,
            betas=(0.95, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.network = self.accelerator.prepare_model(policy.network)

    def run(self) -> None:
        """Train from :attr:`step` to the configured number of steps."""
        self.network.train()
        main = self.accelerator.is_main_process
        log = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step) if main else None
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc="training", unit="step", mininterval=1.0, disable=not main
        )
        started, before = time.monotonic(), self.seconds
        total, count = torch.zeros(()), 0
        steps = range(self.step, self.config.steps)
        for batch in batches(self.sampler, steps, self.accelerator.process_index, self.config.workers):
            total, count = total + self._advance(batch).cpu(), count + 1
            self.seconds = before + time.monotonic() - started
            bar.update()
            if log is not None and self.step % self.config.log_every == 0:
                self._log(log, bar, float(total) / count)
                total, count = torch.zeros(()), 0
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self._save(log)
        bar.close()
        if log is not None:
            log.close()

    def _advance(self, batch: Batch) -> Tensor:
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.network(**self._inputs(batch, self.step))
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.ema.update(self.accelerator.unwrap_model(self.network), self.step)
        self.step += 1
        return loss.detach()

    def _inputs(self, batch: Batch, step: int) -> dict[str, Any]:
        # Seeded by step and process, not by a running state: a resumed training draws the same numbers.
        generator = torch.Generator().manual_seed(
            (self.config.seed << 32) + (step << 8) + self.accelerator.process_index
        )
        inputs = self.policy.training_inputs(batch, self.config.augmentation, generator)
        return _to(inputs, self.accelerator.device)

    def _log(self, log: SummaryWriter, bar: tqdm, loss: float) -> None:
        log.add_scalar("loss/train", loss, self.step)
        log.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], self.step)
        log.add_scalar("steps_per_second", self.step / max(self.seconds, 1e-6), self.step)
        bar.set_postfix(loss=f"{loss:.4f}")

    @torch.no_grad()
    def _held_out_loss(self, batches: int = 4) -> float:
        assert self.held_out is not None
        sampler = MixedSampler([self.held_out], [1.0], self.config.batch_size, seed=1)
        losses = [float(self.ema.module(**self._inputs(sampler.batch(i), i))) for i in range(batches)]
        return sum(losses) / len(losses)

    def _save(self, log: SummaryWriter | None) -> None:
        if not self.accelerator.is_main_process:
            return
        if log is not None and self.held_out is not None:
            log.add_scalar("loss/held_out", self._held_out_loss(), self.step)
        save_state(self.out / STATE_DIR, self)
        trained = self.policy.network
        try:
            self.policy.network = self.ema.module
            self.policy.save(self.out)
            if self.config.keep_snapshots:
                self.policy.save(self.out / "snapshots" / f"{self.step:06d}")
        finally:
            self.policy.network = trained

    def resume(self) -> bool:
        """Continue from ``out/training`` where there is one; whether there was.

        Raises:
            PolicyError: if it belongs to another configuration.
        """
        return load_state(self.out / STATE_DIR, self)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return {key: _to(item, device) for key, item in value.items()}


def save_state(directory: Path, trainer: Trainer) -> None:
    """Write weights, average, optimiser state and position; one file, renamed into place: whole or not there."""
    directory.mkdir(parents=True, exist_ok=True)
    network = trainer.accelerator.unwrap_model(trainer.network)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in trainer.ema.module.state_dict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    tensors |= {"step": torch.tensor(trainer.step), "seconds": torch.tensor(trainer.seconds, dtype=torch.float64)}
    write_weights(
        directory / "state.safetensors", {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    )
    write_json(directory / "config.json", trainer.config.model_dump(mode="json"))


def load_state(directory: Path, trainer: Trainer) -> bool:
    """The inverse of :func:`save_state`; False where there is nothing to load."""
    if not (directory / "state.safetensors").is_file():
        return False
    found = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    wanted = trainer.config.model_dump(mode="json")
    changed = sorted(
        k
        for k in wanted
        if k not in ("device", "save_every", "log_every", "keep_snapshots", "workers") and found.get(k) != wanted[k]
    )
    if changed:
        raise PolicyError(
            f"{directory}: trained with another configuration ({', '.join(changed)}); use another --out, or --restart"
        )
    tensors = read_weights(directory / "state.safetensors")
    network = trainer.accelerator.unwrap_model(trainer.network)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    trainer.ema.module.load_state_dict({k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    trainer.optimizer.load_state_dict({"state": state, "param_groups": trainer.optimizer.state_dict()["param_groups"]})
    trainer.step, trainer.seconds = int(tensors["step"]), float(tensors["seconds"])
    return True


def train_policy(
    data: Sequence[Path],
    out: Path,
    config: TrainConfig,
    *,
    model: dict[str, Any] | None = None,
    demos: int | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Train a diffusion policy on demonstrations; the averaged weights go to ``out``.

    Args:
        data: roots of demonstration datasets with the same cameras and joints.
        out: where the policy, its training state and its TensorBoard log go.
        config: see :class:`TrainConfig`.
        model: overrides of :class:`DiffusionConfig` (all but ``spec``).
        demos: use only the first so many demonstrations of each dataset.
        restart: begin anew even where ``out`` holds a training that could continue.

    Returns:
        What a model card says about it.

    Raises:
        DataError: if a dataset cannot be used.
        PolicyError: if ``out`` holds a training with another configuration.
    """
    torch.manual_seed(config.seed)
    datasets = [open_dataset(root) for root in data]
    model_config = DiffusionConfig(spec=infer_spec(datasets[0]), **(model or {}))
    policy = DiffusionPolicy(model_config)

    def source(dataset: Dataset, frames: Frames) -> WindowSource:
        return WindowSource(dataset, frames, policy.spec, model_config.image_steps)

    sources = [source(d, demonstration_frames(d, "train", demos)) for d in datasets]
    held_out = [source(d, f) for d in datasets if has_split(d, "val") and len(f := demonstration_frames(d, "val"))]
    policy.fit_normalizer(sources)
    sampler = MixedSampler(sources, [len(s) for s in sources], config.batch_size, config.seed)
    seconds = run_training(policy, sampler, config, out, held_out[0] if held_out else None, restart)
    return {
        "data": ", ".join(
            f"{root.name} ({source.episodes} demonstrations, {len(source)} frames)"
            for root, source in zip(data, sources)
        ),
        "training": f"{config.steps} steps of {config.batch_size}, seed {config.seed}, {config.device}",
        "wall time": f"{seconds / 60:.1f} minutes",
        "parameters": f"{sum(p.numel() for p in policy.network.parameters()) / 1e6:.2f} million",
    }


def run_training(
    policy: TrainablePolicy,
    sampler: MixedSampler,
    config: TrainConfig,
    out: Path,
    held_out: WindowSource | None,
    restart: bool,
) -> float:
    """Train, continuing where ``out`` holds an unfinished training; returns seconds of training in all."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(policy, sampler, config, out, held_out)
    if not restart:
        trainer.resume()
    trainer.run()
    return trainer.seconds
