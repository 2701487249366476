"""Training of the layered model: stages that resume, from recorded datasets only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from hiwm_rig.contract import load_rig

from hiwm_world_model.interface import CameraSpec, ModelSpec, TrainOptions
from hiwm_world_model.layered.augment import CropBank
from hiwm_world_model.layered.background import median_background
from hiwm_world_model.layered.config import LayeredConfig, Sizes, TrainSettings
from hiwm_world_model.layered.data import Recording
from hiwm_world_model.layered.discovery import find_clean_frames
from hiwm_world_model.layered.model import LayeredWorldModel
from hiwm_world_model.layered.motion import joint_error, train_dynamics, train_joints, train_success
from hiwm_world_model.layered.networks import LayeredNetworks
from hiwm_world_model.layered.objectives import ArmObjective, EncoderObjective, RenderObjective
from hiwm_world_model.layered.plane import PlaneView
from hiwm_world_model.layered.poses import InferredPoses, infer_poses
from hiwm_world_model.layered.rotation import angles, search_plane
from hiwm_world_model.layered.stages import Run, Tensors
from hiwm_world_model.nets import ArmRenderer, JointPredictor, make_accelerator
from hiwm_world_model.nets.fit import Batch


class Pipeline:
    """All stages in order; each reads what the earlier ones left."""

    def __init__(self, recording: Recording, spec: ModelSpec, run: Run) -> None:
        self.recording, self.spec, self.run = recording, spec, run
        self.training = recording.frame_numbers(validation=False)
        if len(self.training) == 0:
            raise ValueError("no training episodes in the datasets; expected episodes that are not marked 'val'")

    def rng(self, stage: int) -> np.random.Generator:
        """Random numbers of one stage, independent of which stages were skipped."""
        return np.random.default_rng([self.run.seed, 1000 + stage])

    def execute(self) -> LayeredWorldModel:
        """Run or resume every stage and return the model."""
        predictor = JointPredictor(self.recording.joints.shape[1])
        arm = self._arm(predictor)
        found, notes = self.run.once("discovery", lambda: self._discover(arm))
        config = self._config(Sizes.model_validate_json(notes["sizes"]))
        networks = LayeredNetworks(config)
        networks.joints.load_state_dict(predictor.state_dict())
        networks.arm.load_state_dict(arm.state_dict())
        view = PlaneView(float(notes["squash"]), float(notes["slope"]), float(networks.renderer.view.unit))
        networks.renderer.view.load_state_dict(view.state_dict())
        self.run.train("encoder", networks.encoder, lambda: self._encoder(networks, found, view))
        self.run.train("render", networks, lambda: self._render(networks))
        poses = self._poses(networks)
        self.run.train("dynamics", networks.dynamics, lambda: self._dynamics(networks, poses))
        self.run.train(
            "success",
            networks.success,
            lambda: train_success(self.run, self.recording, networks, poses, self.rng(7)),
        )
        return LayeredWorldModel(self.spec, config, networks)

    def _config(self, sizes: Sizes) -> LayeredConfig:
        height, width = self.recording.size
        return LayeredConfig(
            height=height, width=width, joints=self.recording.joints.shape[1],
            camera=self.spec.cameras[0].name, sizes=sizes,
        )  # fmt: skip

    def _frames(self, rng: np.random.Generator, progress: float) -> Batch:
        chosen = rng.choice(self.training, self.run.settings.image_batch)
        return {"image": self.recording.images(chosen), "joints": self.recording.joints[chosen]}

    def _arm(self, predictor: JointPredictor) -> ArmRenderer:
        self.run.train("joints", predictor, lambda: self._joints(predictor))
        arm = ArmRenderer(self.recording.joints.shape[1], self.recording.size)

        def fit() -> Mapping[str, float]:
            arm.background.copy_(median_background(self.recording, self.rng(1))[None])
            sample = self.rng(2).choice(self.training, min(256, len(self.training)), replace=False)
            noise = (self.recording.images(sample) - arm.background).abs().amax(1).flatten().median()
            arm.fit_contrast(float(noise))
            arm.fit_normalisation(self.recording.joints[self.training])
            objective = ArmObjective(arm)
            self.run.fit("arm", objective, self._frames, self.run.settings.arm_steps)
            return {"noise": float(noise), "heldout_l1": self._arm_error(arm)}

        self.run.train("arm", arm, fit)
        return arm

    def _joints(self, predictor: JointPredictor) -> Mapping[str, float]:
        train_joints(self.run, self.recording, predictor)
        return joint_error(self.recording, predictor)

    @torch.no_grad()
    def _arm_error(self, arm: ArmRenderer) -> float:
        held_out = self.recording.frame_numbers(validation=True)
        chosen = held_out[:: max(1, len(held_out) // 128)] if len(held_out) else self.training[:128]
        colour, _ = arm(self.recording.joints[chosen])
        return float((colour - self.recording.images(chosen)).abs().mean())

    def _discover(self, arm: ArmRenderer) -> tuple[Tensors, Mapping[str, str]]:
        rng = self.rng(3)
        count = min(self.run.settings.discovery_frames, len(self.training))
        clean = find_clean_frames(arm, self.recording, np.sort(rng.choice(self.training, count, replace=False)))
        view = search_plane(clean, rng)
        angle, match = angles(clean, view)
        good = match >= np.quantile(match, 0.04)
        tensors = {
            "frames": torch.from_numpy(clean.frames[good]),
            "centres": torch.from_numpy(clean.centres[good]),
            "angles": torch.from_numpy(angle[good]),
        }
        return tensors, {
            "sizes": clean.sizes.model_dump_json(),
            "squash": f"{view.squash.item():.3f}",
            "slope": f"{view.slope.item():.3f}",
            "clean": str(len(clean.frames)),
            "match": f"{match.mean():.4f}",
        }

    def _encoder(self, networks: LayeredNetworks, found: Tensors, view: PlaneView) -> Mapping[str, float]:
        rng = self.rng(4)
        others = rng.choice(self.training, min(800, len(self.training)), replace=False)
        bank = CropBank.collect(
            networks.arm, self.recording, found["frames"].numpy(), (found["centres"], found["angles"]),
            others, view, networks.encoder.sizes,
        )  # fmt: skip

        def sample(step_rng: np.random.Generator, progress: float) -> Batch:
            return bank.sample(step_rng, self.run.settings.encoder_batch, self.recording.size)

        self.run.fit("encoder", EncoderObjective(networks.encoder), sample, self.run.settings.encoder_steps)
        return {}

    def _render(self, networks: LayeredNetworks) -> Mapping[str, float]:
        objective = RenderObjective(networks, networks.encoder.sizes.residual_threshold)
        self.run.fit("render", objective, self._frames, self.run.settings.render_steps)
        held_out = self.recording.frame_numbers(validation=True)
        chosen = held_out[:: max(1, len(held_out) // 128)] if len(held_out) else self.training[:128]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            batch = {"image": self.recording.images(chosen), "joints": self.recording.joints[chosen]}
            error = objective(batch, 1.0)["l1"]
        return {"heldout_l1": float(error)}

    def _poses(self, networks: LayeredNetworks) -> InferredPoses:
        limit = self.run.settings.pose_frames
        tensors, _ = self.run.once("poses", lambda: infer_poses(networks, self.recording, limit))
        return InferredPoses(tensors["pose"], tensors["visible"])

    def _dynamics(self, networks: LayeredNetworks, poses: InferredPoses) -> Mapping[str, float]:
        networks.dynamics.view.load_state_dict(networks.renderer.view.state_dict())
        return train_dynamics(self.run, self.recording, networks, poses, self.rng(6))


def model_spec(rig_name: str, camera: str | None = None) -> ModelSpec:
    """Joints, rate and one camera (the first, unless named) of a rig file."""
    rig = load_rig(rig_name)
    chosen = next((c for c in rig.cameras if camera in (None, c.name)), None)
    if chosen is None:
        raise ValueError(f"rig '{rig_name}' has no camera '{camera}'; it has {[c.name for c in rig.cameras]}")
    return ModelSpec(
        rig=rig.name,
        joint_names=tuple(name for arm in rig.arms for name in arm.joint_names),
        cameras=(CameraSpec(name=chosen.name, height=chosen.height, width=chosen.width),),
        control_rate_hz=rig.control_rate_hz,
        context_frames=2,
    )


# The smallest run that passes through every stage: discovery needs an arm that is roughly explained.
SMOKE_BUDGET, SMOKE_ARM_STEPS = 0.005, 240


def train_from_options(options: TrainOptions) -> None:
    """Entry point of ``hiwm train world`` for this model.

    Overrides: ``budget`` (length of the stages, 1 is the shipped model), ``run`` (directory of the stages),
    ``camera``, and any key of :class:`TrainSettings`.
    """
    overrides = dict(options.overrides)
    budget = float(overrides.pop("budget", SMOKE_BUDGET if options.smoke else 1.0))
    directory = Path(overrides.pop("run", str(options.out.with_name(options.out.name + ".stages"))))
    spec = model_spec(options.rig, overrides.pop("camera", None))
    settings = TrainSettings().scaled(budget)
    if options.smoke:
        settings = settings.model_copy(update={"arm_steps": SMOKE_ARM_STEPS})
    unknown = set(overrides) - set(TrainSettings.model_fields)
    if unknown:
        raise ValueError(f"unknown training settings {sorted(unknown)}; known: budget, run, camera, "
                         f"{', '.join(TrainSettings.model_fields)}")  # fmt: skip
    settings = TrainSettings.model_validate({**settings.model_dump(), **overrides})
    if not options.resume and directory.exists():
        for left in [*directory.glob("*.safetensors"), *directory.glob("*.unfinished")]:
            left.unlink()
    run = Run(directory, settings, make_accelerator(options.device), options.seed, options.device)
    recording = Recording.open(options.data, spec.cameras[0].name)
    model = Pipeline(recording, spec, run).execute()
    if run.accelerator.is_main_process:
        model.save(options.out)


def main(argv: Sequence[str] | None = None) -> int:
    """Train from the command line: ``python -m hiwm_world_model.layered.train``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="dataset directories")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--run", type=Path, required=True, help="directory of the stages, checkpoints and logs")
    parser.add_argument("--rig", default="push_t")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget", type=float, default=1.0, help="length of every stage; 1 is the shipped model")
    parser.add_argument("--set", default="{}", help="JSON object of other settings")
    args = parser.parse_args(argv)
    extra = {str(k): str(v) for k, v in json.loads(args.set).items()}
    overrides = {"budget": str(args.budget), "run": str(args.run), **extra}
    train_from_options(TrainOptions(tuple(args.data), args.out, args.rig, args.seed, args.device, overrides=overrides))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
