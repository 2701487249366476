"""The dynamics of pictures: every pixel is kept, moved, remembered or drawn anew, as learned gates decide.

With closed gates and no motion the network repeats the last frame, and it starts there: it has to earn every change.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiwm_world_model.general.config import LATENT_STRIDE, GeneralConfig
from hiwm_world_model.nets.blocks import ResBlock, conv, initialise, mlp

GATE_BIAS = (4.0, 3.0, 0.0, 0.0)  # logits before training of keeping, moving, remembering, drawing
FLOW_GAIN = 0.5  # pixels of the half-resolution grid per unit of the motion head
CONDITION_GAIN = 5.0  # joint differences of one period are small beside the positions
STEM_PLANES = 48  # channels of canvas and memory at a quarter of the resolution


@dataclass(frozen=True)
class Picture:
    """Luma [N, 1, H, W] and chroma [N, 2, H/2, W/2] in 0..1; N = worlds x cameras."""

    luma: Tensor
    chroma: Tensor

    def quarter(self) -> Tensor:
        """All pixels as [N, 24, H/4, W/4]."""
        return torch.cat([F.pixel_unshuffle(self.luma, 4), F.pixel_unshuffle(self.chroma, 2)], 1)

    def detach(self) -> Picture:
        """Without gradient history."""
        return Picture(self.luma.detach(), self.chroma.detach())


@dataclass(frozen=True)
class Scene:
    """What the dynamics carry: the present picture without the arm, the first one, and the recurrent latent."""

    canvas: Picture
    memory: Picture
    latent: Tensor

    def detach(self) -> Scene:
        """Without gradient history."""
        return Scene(self.canvas.detach(), self.memory, self.latent.detach())


@dataclass(frozen=True)
class Change:
    """One period: the new scene and what was done to get there."""

    scene: Scene
    drawn: Picture
    flow: Tensor  # [N, 2, H/2, W/2] backward motion, in pixels of the half-resolution grid, x before y
    gates: Tensor  # [N, 4, H/2, W/2] shares of kept, moved, remembered, drawn


def _identity_grid(height: int, width: int, like: Tensor) -> Tensor:
    """[1, H, W, 2] sampling positions of pixel centres for ``align_corners=False``."""
    ys = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    xs = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([grid_x, grid_y], -1)[None]


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample [N, C, H, W] at positions displaced by ``flow`` [N, 2, h, w], given in pixels of its own h x w grid."""
    scale = torch.tensor([2 / flow.shape[3], 2 / flow.shape[2]], device=flow.device)
    if flow.shape[-2:] != image.shape[-2:]:
        flow = F.interpolate(flow, image.shape[-2:], mode="bilinear", align_corners=False)
    grid = _identity_grid(image.shape[2], image.shape[3], image) + flow.permute(0, 2, 3, 1) * scale
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


class PictureDynamics(nn.Module):
    """One control period of all cameras; the cameras share the weights and differ by an embedding."""

    def __init__(self, config: GeneralConfig, joints: int, cameras: int) -> None:
        super().__init__()
        self.config, self.joints = config, joints
        width, latent = config.channels, config.latent
        self.condition = mlp(joints * 4 + config.embedding, 128, config.embedding)
        self.camera = nn.Embedding(cameras, config.embedding)
        self.stem = nn.Sequential(conv(48, STEM_PLANES), nn.SiLU(), conv(STEM_PLANES, width, 3, 2))
        self.recall = conv(latent, width, 1)
        self.arm = conv(2 * 64, width, 1) if config.arm_layer else None
        self.position = nn.Parameter(torch.randn(1, width, *config.grid) * 0.1)
        self.blocks = nn.ModuleList([ResBlock(width, config.embedding) for _ in range(config.blocks)])
        # Per half-resolution pixel: four gate logits, and flow x and y at rest and per unit of each joint's motion.
        self.motion = conv(width, 16 * (4 + 2 * (joints + 1)))
        self.draw = conv(width, 16 * 6)  # per half-resolution pixel: four luma and two chroma values
        self.update = conv(width, 2 * latent)
        self.begin = conv(2 * width, latent)
        self.base_luma = nn.Parameter(torch.full((cameras, 1, config.height, config.width), 0.5))
        self.base_chroma = nn.Parameter(torch.full((cameras, 2, config.height // 2, config.width // 2), 0.5))
        initialise(self)
        with torch.no_grad():
            for layer, scale in ((self.motion, 0.05), (self.draw, 0.1), (self.update, 0.3), (self.begin, 0.3)):
                layer.weight.mul_(scale)
            self.camera.weight.mul_(0.3)

    def look(self, canvas: Picture, memory: Picture) -> Tensor:
        """What the canvas and its difference to the first frame show, [N, channels, H/8, W/8]."""
        now = canvas.quarter()
        both = torch.cat([now - 0.5, now - memory.quarter()], 1)
        return self.stem(both.contiguous(memory_format=torch.channels_last))

    def start(self, canvas: Picture, previous: Picture) -> Scene:
        """The scene of a first frame; ``previous`` is the frame before it, or the same one."""
        seen = self.look(canvas, canvas)
        change = self.look(canvas, previous) - seen
        latent = torch.tanh(self.begin(torch.cat([F.silu(seen), change], 1)).float())
        return Scene(canvas, canvas, latent)

    def forward(
        self, scene: Scene, moves: Tensor, cameras: Tensor, coverage: Tensor | None, corners: Tensor | None = None
    ) -> Change:
        """One period.

        Args:
            scene: N = worlds x cameras pictures.
            moves: [N, 4 D] from :func:`joint_moves`.
            cameras: [N] camera index.
            coverage: [N, 2, H, W] where the arm is now and will be; None without an arm layer.
            corners: [N, 2] top and left pixel where the pictures are windows of the whole frame.
        """
        e = self.condition(torch.cat([moves, self.camera(cameras)], 1))
        x = self.look(scene.canvas, scene.memory) + self.recall(scene.latent)
        size = (int(x.shape[2]), int(x.shape[3]))
        x = x + window(self.position.expand(x.shape[0], -1, -1, -1), corners, size, LATENT_STRIDE)
        if self.arm is not None and coverage is not None:
            x = x + self.arm(F.pixel_unshuffle(coverage, 8))
        for block in self.blocks:
            x = block(x, e)
        x = F.silu(x)
        motion = F.pixel_shuffle(self.motion(x), 4).float()
        drawn = self._drawn(F.pixel_shuffle(self.draw(x), 4).float(), cameras, corners)
        gate, candidate = self.update(x).float().chunk(2, 1)
        latent = scene.latent + torch.sigmoid(gate - 1) * (torch.tanh(candidate) - scene.latent)
        flow = FLOW_GAIN * _flow(motion[:, 4:], moves[:, self.joints : 2 * self.joints])
        bias = torch.tensor(GATE_BIAS, device=motion.device)[None, :, None, None]
        gates = torch.softmax(motion[:, :4] + bias, 1)
        with torch.autocast(motion.device.type, enabled=False):
            canvas = _blend(scene, drawn, flow, gates)
        return Change(Scene(canvas, scene.memory, latent), drawn, flow, gates)

    def _drawn(self, values: Tensor, cameras: Tensor, corners: Tensor | None) -> Picture:
        height, width = values.shape[-2:]
        luma = window(self.base_luma[cameras], corners, (2 * height, 2 * width))
        chroma = window(self.base_chroma[cameras], corners, (height, width), 2)
        return Picture(F.pixel_shuffle(values[:, :4], 2) + luma, values[:, 4:] + chroma)


def window(whole: Tensor, corners: Tensor | None, size: tuple[int, int], stride: int = 1) -> Tensor:
    """Cut a window of ``size`` out of each of [N, C, H, W]; corners [N, 2] in pixels, ``stride`` of them per cell."""
    if corners is None:
        return whole
    places = (corners // stride).tolist()
    return torch.stack([w[:, y : y + size[0], x : x + size[1]] for w, (y, x) in zip(whole, places)])


def _flow(rates: Tensor, motion: Tensor) -> Tensor:
    """Flow [N, 2, h, w] from [N, 2 (D + 1), h, w]: a constant part, and an image Jacobian times the joints' motion."""
    constant, jacobian = rates[:, :2], rates[:, 2:].unflatten(1, (2, motion.shape[1]))
    return constant + (jacobian * motion[:, None, :, None, None]).sum(2)


def _blend(scene: Scene, drawn: Picture, flow: Tensor, gates: Tensor) -> Picture:
    """Kept, moved, remembered and drawn pictures in their shares."""
    fine = F.interpolate(gates, scene.canvas.luma.shape[-2:], mode="bilinear", align_corners=False)

    def mix(now: Tensor, first: Tensor, new: Tensor, share: Tensor) -> Tensor:
        kept, moved = share[:, 0:1] * now, share[:, 1:2] * warp(now, flow)
        return kept + moved + share[:, 2:3] * first + share[:, 3:4] * new

    return Picture(
        mix(scene.canvas.luma, scene.memory.luma, drawn.luma, fine),
        mix(scene.canvas.chroma, scene.memory.chroma, drawn.chroma, gates),
    )


def joint_moves(previous: Tensor, now: Tensor, following: Tensor, action: Tensor) -> Tensor:
    """[B, 4 D] what the joints do in this period, from normalised [B, D] positions and targets."""
    return torch.cat(
        [following, (following - now) * CONDITION_GAIN, (now - previous) * CONDITION_GAIN, action - following], 1
    )


class SuccessHead(nn.Module):
    """Whether the task is done, from the features of all cameras and the joints."""

    def __init__(self, config: GeneralConfig, joints: int, cameras: int) -> None:
        super().__init__()
        rows, columns = config.grid
        self.cameras = cameras
        self.squeeze = conv(config.channels, 6, 1)
        self.net = mlp(cameras * 6 * rows * columns + joints, 48, 1)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # untrained it says one half, not something
        nn.init.zeros_(last.bias)

    def forward(self, seen: Tensor, joints: Tensor) -> Tensor:
        """Logit [B] from :meth:`PictureDynamics.look` features [B x cameras, ...] and normalised joints [B, D]."""
        cells = F.silu(self.squeeze(F.silu(seen))).reshape(joints.shape[0], -1)
        return self.net(torch.cat([cells, joints], 1))[:, 0]
