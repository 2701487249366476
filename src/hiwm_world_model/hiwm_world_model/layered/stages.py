"""Stages that finish once: each leaves its result in the run directory, and a later run picks it up there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from hiwm_rig.files import written_aside
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hiwm_world_model.layered.config import TrainSettings
from hiwm_world_model.nets import FitOptions, Objective, fit
from hiwm_world_model.nets.fit import Sampler

Tensors = dict[str, Tensor]
Notes = Mapping[str, str]


@dataclass
class Run:
    """One training run: where it keeps its stages and how its gradient stages run."""

    directory: Path
    settings: TrainSettings
    accelerator: Accelerator
    seed: int = 0
    device: str = "cpu"
    precision: str = "bf16"
    progress: bool = True

    def once(self, name: str, compute: Callable[[], tuple[Tensors, Notes]]) -> tuple[Tensors, dict[str, str]]:
        """The result of stage ``name``: read if it is there, else computed and written aside, then renamed."""
        path = self.directory / f"{name}.safetensors"
        if not path.exists():
            wall, cpu = time.monotonic(), time.process_time()
            tensors, notes = compute()
            spent = {"wall_s": f"{time.monotonic() - wall:.1f}", "cpu_s": f"{time.process_time() - cpu:.1f}"}
            if self.accelerator.is_main_process:
                packed = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
                with written_aside(path) as partial:
                    save_file(packed, partial, metadata={**notes, **spent})
                self._announce(name, {**notes, **spent})
            self.accelerator.wait_for_everyone()
        with safe_open(str(path), "pt") as stored:
            return {k: stored.get_tensor(k) for k in stored.keys()}, dict(stored.metadata() or {})  # noqa: SIM118

    def fit(self, name: str, objective: Objective, sample: Sampler, steps: int) -> None:
        """A gradient stage; interrupted ones continue from their own checkpoint."""
        options = FitOptions(
            name=name,
            steps=steps,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            checkpoint=self.directory / f"{name}.unfinished",
            log_dir=self.directory / "tensorboard",
            progress=self.progress,
        )
        fit(objective, sample, options, self.accelerator)

    def train(self, name: str, module: nn.Module, run: Callable[[], Mapping[str, float]]) -> dict[str, str]:
        """A gradient stage whose result is the state of ``module``; ``run`` fits it and returns what it measured."""

        def compute() -> tuple[Tensors, Mapping[str, str]]:
            measured = run()
            return dict(module.state_dict()), {k: f"{v:.6g}" for k, v in measured.items()}

        tensors, notes = self.once(name, compute)
        module.load_state_dict(tensors)
        module.eval()
        (self.directory / f"{name}.unfinished").unlink(missing_ok=True)
        return notes

    def _announce(self, name: str, notes: Mapping[str, str]) -> None:
        with (self.directory / "stages.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"stage": name, **notes}) + "\n")
        if self.progress:
            print(f"stage {name}: " + ", ".join(f"{k} {v}" for k, v in notes.items()), flush=True)
