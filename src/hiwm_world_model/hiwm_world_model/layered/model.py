"""The layered world model behind the common interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hiwm_world_model.interface import Context, Floats, Images, ModelSpec, State, Tensors, TrainOptions, WorldModel
from hiwm_world_model.layered.background import episode_background
from hiwm_world_model.layered.config import LayeredConfig
from hiwm_world_model.layered.dynamics import mean_pose, spread
from hiwm_world_model.layered.encoder import pose_of
from hiwm_world_model.layered.networks import LayeredNetworks, encoded
from hiwm_world_model.layered.plane import wrap
from hiwm_world_model.registry import register_world_model

BYTES = 255.0


@register_world_model("layered")
class LayeredWorldModel(WorldModel):
    """Arm from joints, one rigid object as a layer with a pose, background from the first frame.

    A state holds joints now and one period ago, the object's pose, one pose per ensemble member that lived on its own
    predictions since the first frame (their spread is the doubt of the whole rollout), the disagreement summed over
    the steps so far, and the age. The picture is drawn from the pose and joints only.
    """

    def __init__(self, spec: ModelSpec, config: LayeredConfig, networks: LayeredNetworks | None = None) -> None:
        super().__init__(spec)
        self.settings = config
        self.networks = (networks or LayeredNetworks(config)).eval()
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = torch.device("cpu")

    # --- real frames -> state --------------------------------------------------------------------------------------
    @torch.inference_mode()
    def encode(self, images: Mapping[str, Images], joints: Floats) -> State:
        """State at the last of T real frames; earlier frames only give the previous joints."""
        frames = images[self.settings.camera]
        if frames.shape[2:] != (self.settings.height, self.settings.width, 3):
            expected = (self.settings.height, self.settings.width, 3)
            raise ValueError(f"camera '{self.settings.camera}': expected images {expected}, got {frames.shape[2:]}")
        positions = torch.as_tensor(np.array(joints, np.float32), device=self.device)
        now = positions[:, -1].clone()
        image = torch.from_numpy(np.array(frames[:, -1])).to(self.device).permute(0, 3, 1, 2).float()
        image = image / BYTES
        with self._autocast():
            pose = pose_of(self.networks.encode(image, now))
        tensors = {
            "joints": now,
            "previous": (positions[:, -2] if positions.shape[1] > 1 else now).clone(),
            "pose": pose,
            "members": pose[:, None].repeat(1, self.settings.members, 1),
            "doubt": torch.zeros(len(pose), 2, device=self.device),
            "last_doubt": torch.zeros(len(pose), 2, device=self.device),
            "age": torch.zeros(len(pose), 1, device=self.device),
        }
        background = self._background(image, pose, now)
        stored = (background.permute(0, 2, 3, 1) * BYTES).round().clamp(0, BYTES).to(torch.uint8)
        return State(tensors, Context({"background": stored.contiguous()}))

    def _background(self, image: Tensor, pose: Tensor, joints: Tensor) -> Tensor:
        """[B, 3, H, W] background of the episode."""
        median = self.networks.arm.background
        with self._autocast():
            _, patch, coverage = self.networks.draw(encoded(pose), joints, median.expand(len(pose), -1, -1, -1))
        hidden = torch.maximum(coverage, patch.paste_coverage(image))
        near = torch.zeros_like(coverage)
        for row in range(len(pose)):
            near[row, 0, patch.rows[row], patch.columns[row]] = 1.0
        return episode_background(image, hidden, median, self.settings.sizes.residual_threshold, near)

    # --- state -> next state ---------------------------------------------------------------------------------------
    @torch.inference_mode()
    def advance(self, state: State, action: Tensor) -> State:
        """Next state after one control period."""
        t, n = state.tensors, self.networks
        following = n.joints(t["joints"], t["previous"], action)
        count = state.batch
        start = torch.cat([t["pose"][None].expand(self.settings.members, -1, -1), t["members"].transpose(0, 1)], 1)
        before, after = n.joints.normalise(t["joints"]), n.joints.normalise(following)
        end = n.dynamics(n.dynamics.to_plane(start), before.repeat(2, 1)[None], after.repeat(2, 1)[None])
        together, alone = end[:, :count], end[:, count:]
        doubt = spread(together)
        return state.replace(
            {
                "joints": following,
                "previous": t["joints"],
                "pose": n.dynamics.to_image(mean_pose(together)),
                "members": _wrapped(n.dynamics.to_image(alone)).transpose(0, 1).contiguous(),
                "doubt": t["doubt"] + doubt,
                "last_doubt": doubt,
                "age": t["age"] + 1,
            }
        )

    # --- state -> what it shows ------------------------------------------------------------------------------------
    @torch.inference_mode()
    def render(self, state: State) -> dict[str, Images]:
        """Camera -> [B, H, W, 3] uint8."""
        background = state.context.tensors["background"].permute(0, 3, 1, 2).float() / BYTES
        with self._autocast():
            image, _, _ = self.networks.draw(encoded(state.tensors["pose"]), state.tensors["joints"], background)
        pixels = (image.permute(0, 2, 3, 1) * BYTES).round().clamp(0, BYTES).to(torch.uint8)
        return {self.settings.camera: pixels.contiguous().cpu().numpy()}

    def joints(self, state: State) -> Tensor:
        """[B, D] rad or m."""
        return state.tensors["joints"]

    @torch.inference_mode()
    def success(self, state: State) -> Tensor:
        """[B] learned probability that the task is done."""
        n = self.networks
        out: Tensor = n.success(state.tensors["pose"], n.joints.normalise(state.tensors["joints"]))
        return out

    @torch.inference_mode()
    def features(self, state: State) -> Tensor:
        """[B, 12] doubt of this step, of the sum of steps and of the members on their own; age; contact; novelty."""
        t, n = state.tensors, self.networks
        plane = n.dynamics.to_plane(t["pose"])
        normal = n.joints.normalise(t["joints"])
        tool = n.dynamics.tool_point(normal)
        alone = spread(n.dynamics.to_plane(t["members"].transpose(0, 1)))
        columns = [
            (t["last_doubt"] + 1e-4).log(),
            (t["doubt"] + 1e-4).log(),
            (alone + 1e-4).log(),
            t["age"].log1p(),
            (tool - plane[:, :2]).norm(dim=-1, keepdim=True),
            normal.abs().amax(-1, keepdim=True),
            t["pose"][:, :2].abs(),
            ((t["joints"] - t["previous"]) / n.joints.std).norm(dim=-1, keepdim=True),
        ]
        return torch.cat(columns, -1).float()

    # --- saving ----------------------------------------------------------------------------------------------------
    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return self.settings.model_dump(mode="json")

    def weights(self) -> Tensors:
        """All weights by name."""
        return dict(self.networks.state_dict())

    @classmethod
    def from_parts(cls, spec: ModelSpec, config: Mapping[str, Any], weights: Tensors) -> Self:
        """The inverse of :meth:`config` and :meth:`weights`."""
        settings = LayeredConfig.model_validate(dict(config))
        networks = LayeredNetworks(settings)
        networks.load_state_dict(dict(weights))
        return cls(spec, settings, networks)

    def to(self, device: str | torch.device) -> Self:
        """Move the weights."""
        self.device = torch.device(device)
        self.networks.to(self.device)
        return self

    @classmethod
    def train(cls, options: TrainOptions) -> None:
        """Train from recorded datasets and write ``options.out``."""
        from hiwm_world_model.layered.train import train_from_options

        train_from_options(options)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)


def _wrapped(pose: Tensor) -> Tensor:
    return torch.cat([pose[..., :2], wrap(pose[..., 2:])], -1)
