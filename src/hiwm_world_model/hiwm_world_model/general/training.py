"""Training of the general model in stages: joints, arm, picture dynamics, success.

Every stage checkpoints itself; a stage that is done is not run again when an interrupted training is resumed.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from hiwm_rig.contract import Rig, load_rig
from hiwm_rig.files import write_json, write_text, written_aside
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from hiwm_world_model.general.borrow import Borrowed, borrow
from hiwm_world_model.general.clips import ClipSource, Recordings, random_starts
from hiwm_world_model.general.colour import from_bytes, to_planes
from hiwm_world_model.general.config import PRESETS, GeneralConfig, TrainingConfig
from hiwm_world_model.general.cover import CoverageCache
from hiwm_world_model.general.model import GeneralWorldModel
from hiwm_world_model.general.objectives import (
    CHANGED,
    ArmObjective,
    DynamicsObjective,
    JointObjective,
    SuccessObjective,
    set_backgrounds,
)
from hiwm_world_model.general.worlds import GeneralNets, grow
from hiwm_world_model.interface import CameraSpec, ModelError, ModelSpec, TrainOptions
from hiwm_world_model.nets import FitOptions, Objective, fit
from hiwm_world_model.nets.fit import Sampler, make_accelerator

log = logging.getLogger(__name__)

C = TypeVar("C", bound=BaseModel)

JOINT_BATCH, JOINT_UNROLL = 128, 8
ARM_BATCH, SUCCESS_BATCH = 24, 32
MEDIAN_FRAMES = 192
LEAST_STEPS = {"joints": 150, "success": 150}  # small networks, useless with fewer however short the time
TIMED_AT = (0.02, 0.3, 0.55, 0.7, 0.85, 1.0)  # points of a stage's schedule at which its steps are timed
PLAN_FILE, SETTINGS_FILE = "plan.json", "settings.json"


def make_spec(rig: Rig) -> ModelSpec:
    """What a model of this rig takes and shows."""
    cameras = tuple(CameraSpec(name=c.name, height=c.height, width=c.width) for c in rig.cameras)
    return ModelSpec(
        rig=rig.name,
        joint_names=rig.joint_names,
        cameras=cameras,
        control_rate_hz=rig.control_rate_hz,
        context_frames=2,
    )


def read_overrides(rig: str, overrides: Mapping[str, str]) -> tuple[GeneralConfig, TrainingConfig]:
    """Network and training configuration: the preset of that name (else of the rig), then the overrides.

    Raises:
        ModelError: naming the key that is unknown or has a wrong value, and the keys there are.
    """
    values = dict(overrides)
    network, training = PRESETS.get(values.pop("preset", rig), PRESETS["push_t"])
    known = {**GeneralConfig.model_fields, **TrainingConfig.model_fields}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ModelError(f"unknown key '{unknown[0]}' for the general model; expected preset or one of {sorted(known)}")
    try:
        return _changed(network, values), _changed(training, values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"general model, key '{first['loc'][0]}': {first['msg']}, got {first['input']!r}") from error


def _changed(config: C, values: Mapping[str, str]) -> C:
    """``config`` with those of the values that it knows, validated again."""
    mine = {k: v for k, v in values.items() if k in type(config).model_fields}
    return type(config).model_validate(config.model_dump() | mine)


@dataclass(frozen=True)
class Stage:
    """One gradient stage: what is minimised, on what, for how long."""

    name: str
    objective: Objective
    sample: Sampler
    share: float


class Trainer:
    """One training run of a model directory."""

    def __init__(
        self, options: TrainOptions, spec: ModelSpec, network: GeneralConfig, training: TrainingConfig
    ) -> None:
        self.options, self.spec, self.settings = options, spec, training
        self.borrowed = self._borrow()
        if self.borrowed is not None:
            network = network.model_copy(update={"arm_channels": self.borrowed.arm_channels})
        self.work = options.out / "training"
        self.accelerator = make_accelerator(options.device)
        if self.accelerator.is_main_process:
            if not options.resume:
                shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True, exist_ok=True)
            self._check_settings(network)
        self.accelerator.wait_for_everyone()
        torch.manual_seed(options.seed)
        self.model = GeneralWorldModel(spec, network)
        self.nets: GeneralNets = self.model.nets
        size = (network.height, network.width)
        self.data = Recordings(options.data, [c.name for c in spec.cameras], size)
        self.train_spans = self.data.of("train")
        self.source = ClipSource(self.data, self.train_spans)
        self.cover: CoverageCache | None = None
        self.unroll = min(training.unroll, max(1, max(s.length for s in self.train_spans) - 2))

    def run(self) -> GeneralWorldModel:
        """All stages; returns the trained model, on the CPU."""
        share = 1.0
        for make in (self.joint_stage, self.arm_stage, self.dynamics_stage, self.success_stage):
            stage = make(share)
            if stage is not None:
                share -= stage.share
                self.fit(stage)
        for tensor in self.nets.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())  # as it will be saved
        return self.model

    def _check_settings(self, network: GeneralConfig) -> None:
        """Remember the settings of this run, or refuse to continue a run that had others."""
        path = self.work / SETTINGS_FILE
        settings = {"spec": self.spec.model_dump(mode="json"), "network": network.model_dump(mode="json")}
        settings["training"] = self.settings.model_dump(mode="json")
        text = json.dumps({**settings, "seed": self.options.seed}, indent=2)
        if not path.exists():
            write_text(path, text)
        elif path.read_text() != text:
            raise ModelError(
                f"{path}: an unfinished or finished run with other settings; give another directory or do not resume"
            )

    def _borrow(self) -> Borrowed | None:
        if not self.settings.start_from:
            return None
        if len(self.spec.cameras) != 1:
            raise ModelError(
                f"start_from: only for rigs with one camera, '{self.spec.rig}' has {len(self.spec.cameras)}"
            )
        return borrow(self.settings.start_from)

    # --- stages ----------------------------------------------------------------------------------------------------
    def joint_stage(self, left: float) -> Stage | None:
        """The joint predictor, on its own rollouts; None where it is taken over."""
        if self.borrowed is not None:
            self.nets.joints.load_state_dict(self.borrowed.joints)
            return None
        data = self.data
        train = np.concatenate([data.joints[s.start : s.stop] for s in self.train_spans])
        self.nets.joints.fit_normalisation(torch.from_numpy(train))
        unroll = min(JOINT_UNROLL, self.unroll)

        def sample(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            rows = random_starts(self.train_spans, unroll + 1, JOINT_BATCH, rng)[:, None] + np.arange(unroll + 2)
            actions = data.actions[rows[:, 1:-1]]
            return {"joints": torch.from_numpy(data.joints[rows]), "actions": torch.from_numpy(actions)}

        return Stage("joints", JointObjective(self.nets.joints), sample, self.settings.joint_share)

    def arm_stage(self, left: float) -> Stage | None:
        """The arm renderers; None without an arm layer, or where it is taken over."""
        rng = np.random.default_rng([self.options.seed, 1])
        rows = np.sort(random_starts(self.train_spans, 0, MEDIAN_FRAMES, rng))
        frames = self.data.frames(rows)
        self._set_base(frames)
        if not self.nets.config.arm_layer:
            return None
        if self.borrowed is not None:
            self.nets.arms[0].load_state_dict(self.borrowed.arm)
            return None
        set_backgrounds(self.nets.arms, frames, torch.from_numpy(self.data.joints[rows]))

        def sample(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            rows = random_starts(self.train_spans, 0, ARM_BATCH, rng)
            return {"frames": self.data.frames(rows), "joints": torch.from_numpy(self.data.joints[rows])}

        return Stage("arm", ArmObjective(self.nets.arms), sample, self.settings.arm_share)

    @torch.no_grad()
    def _set_base(self, frames: Tensor) -> None:
        """Start the drawn pictures at the median frame of each camera."""
        for index in range(frames.shape[1]):
            luma, chroma = to_planes(from_bytes(frames[:, index]).median(0).values[None])
            self.nets.dynamics.base_luma[index].copy_(luma[0])
            self.nets.dynamics.base_chroma[index].copy_(chroma[0])

    def dynamics_stage(self, left: float) -> Stage:
        """The picture dynamics, on their own rollouts: short ones first."""
        self.cover = CoverageCache(self.nets, self.data) if self.nets.config.arm_layer else None
        self._find_motion()
        settings = self.settings

        def sample(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            unroll = max(1, min(self.unroll, round(self.unroll * progress * 2)))
            room = min(settings.burn_in, max(s.length for s in self.train_spans) - 2 - unroll)
            burn_in = int(rng.integers(0, 1 + max(0, round(room * min(1.0, max(0.0, 2 * progress - 0.8))))))
            share, crop = settings.contact_share, settings.crop
            rows, corners = self.source.draw(rng, settings.batch, burn_in, unroll, share, crop)
            return self.source.clip(rows, burn_in, unroll, corners, crop, self.cover)

        if self.borrowed is not None and self.borrowed.dynamics:
            self.nets.dynamics.load_state_dict(self.borrowed.dynamics)
        objective = DynamicsObjective(self.nets, settings.motion_weight, settings.learning_rate)
        labelled = self.data.success is not None and 0 < self.data.success.mean() < 1
        return Stage("dynamics", objective, sample, left - (settings.success_share if labelled else 0.0))

    def success_stage(self, left: float) -> Stage | None:
        """The success head; None where no labels, or only one kind, were recorded."""
        labels = self.data.success
        rows = np.concatenate([np.arange(s.start, s.stop) for s in self.train_spans])
        if labels is None or not 0 < labels[rows].mean() < 1:
            log.warning("success: no labels of both kinds in the data; the head keeps saying one half")
            return None
        done, open_ = rows[labels[rows]], rows[~labels[rows]]

        def sample(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            half = SUCCESS_BATCH // 2
            now = np.concatenate([rng.choice(done, half), rng.choice(open_, SUCCESS_BATCH - half)])
            earlier = np.maximum(self.source.first[now], now - rng.integers(0, 60, len(now)))
            both = np.stack([earlier, now], 1)
            return {
                "frames": self.data.frames(both),
                "joints": torch.from_numpy(self.data.joints[both]),
                "labels": torch.from_numpy(labels[now].astype(np.float32)),
            }

        return Stage("success", SuccessObjective(self.nets), sample, left)

    @torch.no_grad()
    def _find_motion(self) -> None:
        """Score random places by how much the picture changes outside the arm within one rollout."""
        rng = np.random.default_rng([self.options.seed, 2])
        horizon = max(1, self.unroll - 1)
        wanted = int(self.settings.windows_per_minute * self.settings.minutes)
        count = 16 if self.options.smoke else min(max(wanted, 64), len(self.data.joints))
        rows = np.unique(random_starts(self.train_spans, horizon, count, rng))
        scores, centres = [], []
        for part in tqdm(np.array_split(rows, max(1, len(rows) // 64)), desc="looking for motion", mininterval=2.0):
            both = np.stack([part, part + horizon], 1)
            frames = from_bytes(self.data.frames(both))
            changed = ((frames[:, 1] - frames[:, 0]).abs().amax(2) > CHANGED).float()
            if self.cover is not None:
                hidden = from_bytes(self.cover.frames(both)).amax(1).flatten(0, 1)
                changed = changed * (1 - grow(hidden)).view_as(changed)
            scores.append(changed.mean((1, 2, 3)).numpy())
            centres.append(_centres(changed))
        self.source.use(rows, np.concatenate(scores), np.concatenate(centres))

    # --- running a stage -------------------------------------------------------------------------------------------
    def fit(self, stage: Stage) -> None:
        """Run a stage, or take its result where it is done already."""
        result = self.work / f"{stage.name}.safetensors"
        if result.exists():
            self.nets.load_state_dict(load_file(result))
            return
        began = time.monotonic()
        checkpoint = self.work / f"{stage.name}.checkpoint.safetensors"
        steps = self._steps(stage)
        options = FitOptions(
            name=stage.name,
            steps=steps,
            warmup=min(80, 1 + steps // 10),
            seed=self.options.seed,
            device=self.options.device,
            precision="bf16",
            checkpoint=checkpoint,
            log_dir=self.options.out / "tensorboard",
        )
        fit(stage.objective, stage.sample, options, self.accelerator)
        self.nets.cpu().eval()
        log.info("%s: %d steps in %.0f s", stage.name, options.steps, time.monotonic() - began)
        if self.accelerator.is_main_process:
            with written_aside(result) as partial:
                save_file({k: v.contiguous() for k, v in self.nets.state_dict().items()}, partial)
            checkpoint.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def _steps(self, stage: Stage) -> int:
        """Steps that fit into the stage's time; written down, so that a resumed run takes as many."""
        if self.options.smoke:
            return 3
        if stage.name == "dynamics" and self.settings.steps:
            return self.settings.steps
        path = self.work / PLAN_FILE
        plan: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        if stage.name not in plan and self.accelerator.is_main_process:
            seconds = self.settings.minutes * 60 * stage.share
            plan[stage.name] = max(LEAST_STEPS.get(stage.name, 20), int(seconds / time_step(stage, self.options)))
            write_json(path, plan)
        self.accelerator.wait_for_everyone()
        return int(json.loads(path.read_text())[stage.name])


def _centres(changed: Tensor) -> np.ndarray:
    """[N, cameras, H, W] masks -> [N, cameras, 2] row and column of their centres, the image's centre where empty."""
    height, width = changed.shape[-2:]
    mass = changed.sum((2, 3)).clamp(min=1e-6)
    rows = (changed.sum(3) * torch.arange(height)).sum(2) / mass
    columns = (changed.sum(2) * torch.arange(width)).sum(2) / mass
    empty = mass < 1
    rows, columns = rows.masked_fill(empty, height / 2), columns.masked_fill(empty, width / 2)
    return torch.stack([rows, columns], -1).long().numpy()


def time_step(stage: Stage, options: TrainOptions) -> float:
    """Mean seconds of one step over the stage's schedule, measured on a copy."""
    objective = copy.deepcopy(stage.objective).to(options.device)
    times = []
    for index, progress in enumerate((1.0, *TIMED_AT)):  # the first one warms up
        stage.sample(np.random.default_rng([options.seed, index]), progress)  # what is read once and kept is no step
        rng = np.random.default_rng([options.seed, index])
        began = time.monotonic()
        batch = {k: v.to(options.device) for k, v in stage.sample(rng, progress).items()}
        with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=objective.autocast):
            loss = objective(batch, progress)["loss"]
        loss.backward()
        objective.zero_grad(set_to_none=True)
        times.append(time.monotonic() - began)
    return float(np.mean(times[1:]))


def train(options: TrainOptions) -> GeneralWorldModel:
    """Train from ``options.data`` and write the model directory ``options.out``.

    Raises:
        ModelError: for an override that is unknown or out of range.
        hiwm_data.DatasetError: for data that lacks a camera or a column, or is too short.
    """
    rig = load_rig(options.rig)
    network, training = read_overrides(rig.name, options.overrides)
    began = time.monotonic()
    trainer = Trainer(options, make_spec(rig), network, training)
    model = trainer.run()
    if not trainer.accelerator.is_main_process:
        return model
    model.save(options.out)
    changed = " ".join(f"{k}={v}" for k, v in options.overrides.items())
    sets = f" --set {changed}" if changed else ""
    data = " ".join(str(d) for d in options.data)
    facts = {
        "command": f"./hiwm train world --model general --rig {options.rig} --data {data} --out {options.out}{sets}",
        "data": [str(d) for d in options.data],
        "seed": options.seed,
        "training": training.model_dump(),
        "wall_seconds": round(time.monotonic() - began, 1),
    }
    write_json(options.out / "training.json", facts)
    return model
