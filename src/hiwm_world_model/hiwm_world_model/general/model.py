"""The general model behind the world-model interface: encode, advance, render, save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiwm_world_model.general.colour import from_bytes, resize, to_bytes, to_planes, to_rgb
from hiwm_world_model.general.config import GeneralConfig
from hiwm_world_model.general.network import Change, Picture, Scene
from hiwm_world_model.general.worlds import GeneralNets, grow
from hiwm_world_model.interface import Context, Floats, Images, ModelSpec, State, Tensors, TrainOptions, WorldModel
from hiwm_world_model.registry import register_world_model

LATENT_SCALE = 127.0  # the latent is bounded by tanh and kept in 8 bits
SAME, OTHER = 0.02, 0.08  # change of a pixel up to which, and from which, the first frame has no say in it
NOTES = ("age", "drawn", "moved", "disagreement")  # what the state remembers for trust, accumulated per step


def unchanged(canvas: Picture, memory: Picture) -> Tensor:
    """[N, 1, H, W] in 0..1: 1 where the canvas still shows what the first frame showed, with a margin."""
    colour = F.interpolate((canvas.chroma - memory.chroma).abs().amax(1, keepdim=True), scale_factor=2)
    change = torch.maximum((canvas.luma - memory.luma).abs(), colour)
    return 1 - ((F.max_pool2d(change, 3, 1, 1) - SAME) / (OTHER - SAME)).clamp(0, 1)


@register_world_model("general")
class GeneralWorldModel(WorldModel):
    """Keeps, moves, remembers and redraws pixels of every camera under the joints' motion.

    A state row holds, per camera, luma H x W, chroma 2 x H/2 x W/2 and the latent C x H/8 x W/8, 8 bits each, then the
    joints of this and the previous period: 26.2 KB for one 128x128 camera, 62.0 KB for three of 88x144. The context is
    the first frame in the same form, and what that form loses of it: pixels that never changed are shown as recorded.
    """

    def __init__(self, spec: ModelSpec, config: GeneralConfig) -> None:
        super().__init__(spec)
        self.settings = config
        self.nets = GeneralNets(config, len(spec.joint_names), len(spec.cameras)).eval()
        self.nets.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = torch.device("cpu")

    # --- real frames -> state --------------------------------------------------------------------------------------
    def working_frames(self, images: Mapping[str, Images]) -> Tensor:
        """camera -> [B, T, H, W, 3] uint8 as [T, B x cameras, 3, h, w] in 0..1 at the working resolution.

        Raises:
            ValueError: naming the camera that is missing or has another shape.
        """
        size = (self.settings.height, self.settings.width)
        views = []
        for camera in self.spec.cameras:
            if camera.name not in images:
                raise ValueError(f"camera '{camera.name}' is missing; got {sorted(images)}")
            batch = np.asarray(images[camera.name])
            if batch.ndim != 5 or batch.shape[2:] != (camera.height, camera.width, 3):
                expected = ("B", "T", camera.height, camera.width, 3)
                raise ValueError(f"camera '{camera.name}': expected {expected}, got {batch.shape}")
            frames = from_bytes(torch.tensor(batch, device=self.device).flatten(0, 1)).permute(0, 3, 1, 2)
            views.append(resize(frames, size).unflatten(0, batch.shape[:2]))
        stacked = torch.stack(views, 2)  # [B, T, cameras, 3, h, w]
        return stacked.transpose(0, 1).flatten(1, 2)

    @torch.inference_mode()
    def encode(self, images: Mapping[str, Images], joints: Floats) -> State:
        """See :meth:`WorldModel.encode`; uses the last two frames."""
        frames = self.working_frames(images)[-2:]
        positions = torch.tensor(np.asarray(joints, np.float32), device=self.device)
        now, previous = positions[:, -1], positions[:, -min(2, positions.shape[1])]
        canvases = [self._canvas(f, q) for f, q in zip((frames[0], frames[-1]), (previous, now))]
        scene = self.nets.dynamics.start(canvases[1], canvases[0])
        worlds = now.shape[0]
        memory = {f"first_{k}": v for k, v in self._pack_picture(scene.canvas, worlds).items()}
        context = Context({**memory, **self._details(images, canvases[1], now)})
        tensors = self._pack_scene(scene, worlds)
        notes = torch.zeros(worlds, len(NOTES), device=self.device)
        return State({**tensors, "joints": now.clone(), "previous": previous.clone(), "notes": notes}, context)

    def _details(self, images: Mapping[str, Images], canvas: Picture, joints: Tensor) -> dict[str, Tensor]:
        """camera -> int8 [B, 3, H, W]: what the working resolution loses of the last real frame, where no arm is."""
        working = to_rgb(from_bytes(to_bytes(canvas.luma)), from_bytes(to_bytes(canvas.chroma)))
        views = working.unflatten(0, (joints.shape[0], -1))
        hidden = None
        if self.settings.arm_layer:
            hidden = grow(self.nets.draw_arms(joints)[1]).unflatten(0, (joints.shape[0], -1))
        details = {}
        for index, camera in enumerate(self.spec.cameras):
            size = (camera.height, camera.width)
            real = from_bytes(torch.tensor(np.asarray(images[camera.name])[:, -1], device=self.device))
            lost = (real.permute(0, 3, 1, 2) - resize(views[:, index], size)) * 255
            if hidden is not None:
                lost = lost * (1 - resize(hidden[:, index], size))
            details[f"detail_{camera.name}"] = lost.round().clamp(-127, 127).to(torch.int8)
        return details

    def _canvas(self, rgb: Tensor, joints: Tensor) -> Picture:
        if not self.settings.arm_layer:
            return Picture(*to_planes(rgb))
        return self.nets.uncover(rgb, self.nets.draw_arms(joints)[1])

    def _pack_picture(self, picture: Picture, worlds: int) -> dict[str, Tensor]:
        shape = (worlds, len(self.spec.cameras))
        planes = {"luma": picture.luma, "chroma": picture.chroma}
        return {k: to_bytes(v).unflatten(0, shape) for k, v in planes.items()}

    def _pack_scene(self, scene: Scene, worlds: int) -> dict[str, Tensor]:
        latent = (scene.latent.float() * LATENT_SCALE).round().to(torch.int8)
        shape = (worlds, len(self.spec.cameras))
        return {**self._pack_picture(scene.canvas, worlds), "latent": latent.unflatten(0, shape)}

    def _scene(self, state: State) -> Scene:
        t, c = state.tensors, state.context.tensors
        canvas = Picture(from_bytes(t["luma"].flatten(0, 1)), from_bytes(t["chroma"].flatten(0, 1)))
        memory = Picture(from_bytes(c["first_luma"].flatten(0, 1)), from_bytes(c["first_chroma"].flatten(0, 1)))
        return Scene(canvas, memory, t["latent"].flatten(0, 1).float() / LATENT_SCALE)

    # --- state -> state --------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def advance(self, state: State, action: Tensor) -> State:
        """See :meth:`WorldModel.advance`."""
        now, previous = state.tensors["joints"], state.tensors["previous"]
        following = self.nets.joints(now, previous, action)
        coverage = None
        if self.settings.arm_layer:
            both = self.nets.draw_arms(torch.cat([now, following]))[1]
            coverage = torch.cat(both.chunk(2), 1)
        change = self.nets.change(self._scene(state), self.nets.moves(previous, now, following, action), coverage)
        notes = state.tensors["notes"] + self._notes(change, state.batch)
        tensors = self._pack_scene(change.scene, state.batch)
        return state.replace({**tensors, "joints": following, "previous": now, "notes": notes})

    def _notes(self, change: Change, worlds: int) -> Tensor:
        """[B, 4] of one step: a period, the share drawn, the motion, how far the drawn differs from what was there."""
        difference = (change.drawn.chroma - change.scene.canvas.chroma).abs().mean(1, keepdim=True)
        drawn, moved = change.gates[:, 3:4], change.gates[:, 1:2] * change.flow.abs().sum(1, keepdim=True)
        parts = (drawn, moved, difference * drawn)
        means = torch.stack([p.mean((1, 2, 3)) for p in parts], 1).unflatten(0, (worlds, -1)).mean(1)
        return torch.cat([torch.ones_like(means[:, :1]), means], 1)

    # --- state -> what it shows ------------------------------------------------------------------------------------
    @torch.inference_mode()
    def render(self, state: State) -> dict[str, Images]:
        """See :meth:`WorldModel.render`."""
        scene = self._scene(state)
        rgb = to_rgb(scene.canvas.luma, scene.canvas.chroma)
        still = unchanged(scene.canvas, scene.memory)
        if self.settings.arm_layer:
            colour, coverage = self.nets.draw_arms(state.tensors["joints"])
            rgb = coverage * colour.clamp(0, 1) + (1 - coverage) * rgb
            still = still * (1 - coverage)
        views, stills = (x.unflatten(0, (state.batch, -1)) for x in (rgb, still))
        shown = {}
        for index, camera in enumerate(self.spec.cameras):
            size = (camera.height, camera.width)
            detail = state.context.tensors[f"detail_{camera.name}"].float() / 255
            image = to_bytes(resize(views[:, index], size) + resize(stills[:, index], size) * detail)
            shown[camera.name] = np.ascontiguousarray(image.permute(0, 2, 3, 1).cpu().numpy())
        return shown

    def joints(self, state: State) -> Tensor:
        """See :meth:`WorldModel.joints`."""
        return state.tensors["joints"]

    @torch.inference_mode()
    def success(self, state: State) -> Tensor:
        """See :meth:`WorldModel.success`; one half everywhere when no labels were recorded."""
        return torch.sigmoid(self.nets.success_logit(self._scene(state), state.tensors["joints"]))

    @torch.inference_mode()
    def features(self, state: State) -> Tensor:
        """[B, 6 + D]: accumulated notes (age first), present doubt about success, latent size, normalised joints."""
        success = self.success(state)
        latent = state.tensors["latent"].float().abs().mean((1, 2, 3, 4)) / LATENT_SCALE
        doubt = (success * (1 - success))[:, None]
        reach = self.nets.joints.normalise(state.tensors["joints"]).abs()
        return torch.cat([state.tensors["notes"], doubt, latent[:, None], reach], 1)

    # --- saving ----------------------------------------------------------------------------------------------------
    def config(self) -> dict[str, Any]:
        """See :meth:`WorldModel.config`."""
        return self.settings.model_dump(mode="json")

    def weights(self) -> Tensors:
        """All weights, in half precision: they are averages of noisy ones, and the file is half as large."""
        return {k: v.half() if v.is_floating_point() else v for k, v in self.nets.state_dict().items()}

    @classmethod
    def from_parts(cls, spec: ModelSpec, config: Mapping[str, Any], weights: Tensors) -> Self:
        """See :meth:`WorldModel.from_parts`."""
        model = cls(spec, GeneralConfig.model_validate(config))
        model.nets.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
        return model

    def to(self, device: str | torch.device) -> Self:
        """See :meth:`WorldModel.to`."""
        self.device = torch.device(device)
        self.nets.to(self.device)
        return self

    @classmethod
    def train(cls, options: TrainOptions) -> None:
        """See :mod:`hiwm_world_model.general.training`."""
        from hiwm_world_model.general.training import train

        train(options)
