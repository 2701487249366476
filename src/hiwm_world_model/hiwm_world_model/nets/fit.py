"""One gradient stage: schedule, averaging of weights, checkpoints, progress bar, TensorBoard, one device or many."""

from __future__ import annotations

import copy
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from hiwm_rig.files import written_aside
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

Batch = Mapping[str, Tensor]
# (random generator of this step, progress 0..1) -> batch on the CPU
Sampler = Callable[[np.random.Generator, float], Batch]


class Objective(nn.Module):
    """The networks that a stage trains and their loss, as one module: a distributed wrapper sees one forward."""

    autocast = True  # convolutions gain 1.3-1.6x from bf16; small MLPs lose precision for nothing

    @abstractmethod
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return scalars; ``loss`` is the one that is minimised."""

    def groups(self) -> list[dict[str, Any]]:
        """Optimiser groups with their peak learning rates."""
        return [{"params": list(self.parameters()), "lr": 2e-3}]


@dataclass(frozen=True)
class FitOptions:
    """How a stage runs; what it minimises is the objective's business."""

    name: str
    steps: int
    seed: int = 0
    device: str = "cpu"
    precision: str = "bf16"  # or "no"
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 80
    final_lr: float = 0.02  # fraction of the peak at the end of the cosine
    clip: float = 1.0
    average: float = 0.995  # weight averaging; 0 switches it off
    checkpoint: Path | None = None  # unfinished state of this stage
    checkpoint_seconds: float = 60.0
    log_dir: Path | None = None
    log_every: int = 50
    progress: bool = True


def make_accelerator(device: str) -> Accelerator:
    """The process group and device of this process (one process unless started by torchrun or accelerate)."""
    return Accelerator(
        cpu=device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


class _Average:
    """Exponential average of the floating parameters, quick at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 20)) if self.decay else 0.0
        for a, b in zip(self.module.parameters(), module.parameters()):
            a.lerp_(b, 1 - decay)


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{i}.{k}": v for i, row in state.items() for k, v in row.items() if torch.is_tensor(v)}


def _save_progress(path: Path, step: int, module: nn.Module, average: _Average, optimiser: Any) -> None:
    tensors = {f"module.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.module.state_dict().items()}
    tensors |= _optimiser_tensors(optimiser)
    tensors["step"] = torch.tensor(step)
    with written_aside(path) as partial:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial)


def _load_progress(path: Path, module: nn.Module, average: _Average, optimiser: Any) -> int:
    tensors = load_file(str(path))
    module.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("module.")})
    average.module.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(tensors["step"])


def _rates(optimiser: Any, peaks: list[float], step: int, options: FitOptions) -> None:
    cosine = 0.5 * (1 + math.cos(math.pi * step / options.steps))
    factor = min(1.0, (step + 1) / options.warmup) * (options.final_lr + (1 - options.final_lr) * cosine)
    for group, peak in zip(optimiser.param_groups, peaks):
        group["lr"] = peak * factor


class _Log:
    """Means of the scalars since the last line, to TensorBoard and the progress bar; main process only."""

    def __init__(self, options: FitOptions, main: bool) -> None:
        self.options, self.main = options, main
        self.sums: dict[str, list[float]] = {}
        self.writer = SummaryWriter(str(options.log_dir / options.name)) if main and options.log_dir else None
        self.bar = tqdm(
            total=options.steps, desc=options.name, disable=not (main and options.progress), mininterval=2.0
        )

    def add(self, step: int, values: Mapping[str, Tensor]) -> None:
        for key, value in values.items():
            self.sums.setdefault(key, []).append(float(value.detach()))
        self.bar.update()
        if (step + 1) % self.options.log_every == 0:
            means = {k: float(np.mean(v)) for k, v in self.sums.items()}
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in means.items()}, refresh=False)
            if self.writer is not None:
                for key, mean in means.items():
                    self.writer.add_scalar(key, mean, step + 1)
            self.sums = {}

    def close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def fit(objective: Objective, sample: Sampler, options: FitOptions, accelerator: Accelerator | None = None) -> None:
    """Minimise ``objective`` in place; afterwards it holds the averaged weights, on the CPU, in eval mode.

    Interrupted runs continue from ``options.checkpoint``; batches depend on seed, rank and step only, so a resumed
    run sees the batches it would have seen.
    """
    accelerator = accelerator or make_accelerator(options.device)
    device = accelerator.device
    objective.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    groups = objective.groups()
    peaks = [float(g["lr"]) for g in groups]
    optimiser = torch.optim.AdamW(groups, weight_decay=options.weight_decay, betas=options.betas)
    average = _Average(objective, options.average)
    first = 0
    if options.checkpoint is not None and options.checkpoint.exists():
        first = _load_progress(options.checkpoint, objective, average, optimiser)
    wrapped, prepared = accelerator.prepare(objective, optimiser)
    log = _Log(options, accelerator.is_main_process)
    log.bar.update(first)
    saved = time.monotonic()
    for step in range(first, options.steps):
        _rates(optimiser, peaks, step, options)
        rng = np.random.default_rng([options.seed, accelerator.process_index, step])
        batch = {k: v.to(device) for k, v in sample(rng, step / options.steps).items()}
        torch.manual_seed(int(rng.integers(2**31)))
        enabled = objective.autocast and options.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            values = wrapped(batch, step / options.steps)
        prepared.zero_grad(set_to_none=True)
        accelerator.backward(values["loss"])
        for group in groups:
            nn.utils.clip_grad_norm_(group["params"], options.clip)
        prepared.step()
        average.update(objective, step)
        log.add(step, values)
        if options.checkpoint is not None and time.monotonic() - saved > options.checkpoint_seconds:
            if accelerator.is_main_process:
                _save_progress(options.checkpoint, step + 1, objective, average, optimiser)
            saved = time.monotonic()
    log.close()
    objective.load_state_dict(average.module.state_dict())
    objective.cpu().eval()
    accelerator.free_memory()
