"""What each stage of the training minimises."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiwm_world_model.general.colour import from_bytes, to_planes
from hiwm_world_model.general.config import GeneralConfig
from hiwm_world_model.general.network import Change, Picture, Scene
from hiwm_world_model.general.worlds import GeneralNets, grow
from hiwm_world_model.nets import ArmRenderer, JointPredictor
from hiwm_world_model.nets.fit import Batch, Objective

CHANGED = 0.05  # difference in 0..1 units that counts as another picture; above video noise
COARSE = 4  # pixels averaged for the second scale: it pulls edges that are further than a pixel apart
DRAWN_SHARE = 0.1  # the drawn picture learns everywhere a little, else its gate never opens
EDGE = 6  # pixels at the edge of a training window without evidence
SMOOTHNESS = 0.02  # of the flow: moves what has no texture along with its edges


class JointObjective(Objective):
    """L1 of joints rolled out on their own predictions, in deviations."""

    autocast = False

    def __init__(self, predictor: JointPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``joints`` [B, T + 2, D] from one period before the start, ``actions`` [B, T, D]."""
        joints, actions = batch["joints"], batch["actions"]
        before, now = joints[:, 0], joints[:, 1]
        errors = []
        for k in range(actions.shape[1]):
            following = self.predictor(now, before, actions[:, k])
            errors.append(((following - joints[:, k + 2]) / self.predictor.std).abs().mean())
            before, now = now, following
        return {"loss": torch.stack(errors).mean()}


class ArmObjective(Objective):
    """L1 on whole frames: converges to the median picture per joint configuration, which is the arm alone."""

    def __init__(self, arms: nn.ModuleList) -> None:
        super().__init__()
        self.arms = arms

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``frames`` uint8 [B, cameras, 3, h, w], ``joints`` [B, D]."""
        loss = torch.zeros((), device=batch["joints"].device)
        for index, arm in enumerate(self.arms):
            colour, _ = arm(batch["joints"])
            difference = colour - from_bytes(batch["frames"][:, index])
            # Squares pull faster at first; they would end in the mean, so they fade out.
            squares = max(0.0, 1 - 4 * progress) * 20 * difference.square().mean()
            loss = loss + 10 * difference.abs().mean() + squares
        return {"loss": loss / len(self.arms)}


class DynamicsObjective(Objective):
    """Picture error of the model's own rollouts outside the arm, weighted by change."""

    def __init__(self, nets: GeneralNets, motion_weight: float, learning_rate: float) -> None:
        super().__init__()
        self.dynamics = nets.dynamics
        self.frozen = [nets]  # a list: its other networks are not this stage's parameters
        self.motion_weight, self.learning_rate = motion_weight, learning_rate

    def groups(self) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": list(self.dynamics.parameters()), "lr": self.learning_rate}]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """A clip as :meth:`ClipSource.clip` makes it."""
        joints, actions, corners = batch["joints"], batch["actions"], _corners(batch)
        coverage = None
        if "coverage" in batch:
            coverage = list(from_bytes(batch["coverage"]).transpose(0, 1).flatten(1, 2))  # from before the start on
        scene, burn_in = self._begin(batch, coverage), actions.shape[1] - batch["targets"].shape[1]
        first = scene.canvas.detach()
        total: dict[str, Tensor] = {}
        for k in range(actions.shape[1]):
            with torch.set_grad_enabled(k >= burn_in and torch.is_grad_enabled()):
                change = self._advance(scene, joints, actions, coverage, k, corners)
            scene = change.scene if k >= burn_in else change.scene.detach()
            if k >= burn_in:
                hidden = None if coverage is None else coverage[k + 2]
                target = Picture(*to_planes(from_bytes(batch["targets"][:, k - burn_in].flatten(0, 1))))
                for key, value in self._errors(change, first, target, hidden, corners).items():
                    total[key] = total.get(key, torch.zeros_like(value)) + value / batch["targets"].shape[1]
        return total

    def _begin(self, batch: Batch, coverage: list[Tensor] | None) -> Scene:
        nets = self.frozen[0].to(batch["joints"].device)
        frames = from_bytes(batch["first"]).transpose(0, 1).flatten(1, 2)
        if coverage is None:
            pictures = [Picture(*to_planes(f)) for f in frames]
        else:
            pictures = [nets.uncover(f, c, _corners(batch)) for f, c in zip(frames, coverage)]
        return self.dynamics.start(pictures[1], pictures[0])

    def _advance(
        self,
        scene: Scene,
        joints: Tensor,
        actions: Tensor,
        coverage: list[Tensor] | None,
        k: int,
        corners: Tensor | None,
    ) -> Change:
        nets = self.frozen[0]
        moves = nets.moves(joints[:, k], joints[:, k + 1], joints[:, k + 2], actions[:, k])
        pair = None if coverage is None else torch.cat([coverage[k + 1], coverage[k + 2]], 1)
        return self.dynamics(scene, moves, nets.camera_index(joints.shape[0], joints.device), pair, corners)

    def _errors(
        self, change: Change, first: Picture, target: Picture, hidden: Tensor | None, corners: Tensor | None
    ) -> dict[str, Tensor]:
        changed = ((target.luma - first.luma).abs() > CHANGED).float()
        weight = 1 + self.motion_weight * F.max_pool2d(changed, 5, 1, 2)
        if hidden is not None:
            weight = weight * (1 - grow(hidden))
        if corners is not None:
            weight = weight * inside(corners, tuple(weight.shape[-2:]), self.frozen[0].config)
        half = F.avg_pool2d(weight, 2)
        canvas = change.scene.canvas
        picture = _error(canvas.luma - target.luma, weight) + _error(canvas.chroma - target.chroma, half)
        blurred = F.avg_pool2d((canvas.luma - target.luma) * weight.clamp(max=1), COARSE)
        coarse = _error(blurred, F.avg_pool2d(weight, COARSE))
        drawn = _error(change.drawn.luma - target.luma, weight) + _error(change.drawn.chroma - target.chroma, half)
        rough = change.flow.diff(dim=2).abs().mean() + change.flow.diff(dim=3).abs().mean()
        loss = picture + coarse + DRAWN_SHARE * drawn + SMOOTHNESS * rough
        return {"loss": loss, "picture": picture, "coarse": coarse, "drawn": drawn, "rough": rough}


def _corners(batch: Batch) -> Tensor | None:
    return batch["corners"].flatten(0, 1) if "corners" in batch else None


def inside(corners: Tensor, size: tuple[int, ...], config: GeneralConfig) -> Tensor:
    """[N, 1, h, w] zero near the edges of windows that are not edges of the frame: what enters there is unknown."""
    masks = []
    for axis, whole in enumerate((config.height, config.width)):
        place = torch.arange(size[axis], device=corners.device)[None]
        first = corners[:, axis : axis + 1]
        near_start = (place < EDGE) & (first > 0)
        near_end = (place >= size[axis] - EDGE) & (first + size[axis] < whole)
        masks.append(~(near_start | near_end))
    return (masks[0][:, :, None] & masks[1][:, None, :])[:, None].float()


def _error(difference: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of a robust error: squares move large errors, the absolute part sharpens small ones."""
    error = 2 * difference.square() + 0.5 * difference.abs()
    return (error * weight).sum() / (weight.sum() * difference.shape[1]).clamp(min=1.0)


class SuccessObjective(Objective):
    """Cross entropy of the success head; the features it looks at stay as the dynamics left them."""

    def __init__(self, nets: GeneralNets) -> None:
        super().__init__()
        self.head = nets.success
        self.frozen = [nets]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``frames`` uint8 [B, 2, cameras, 3, h, w]: an earlier one and this one; ``joints`` [B, 2, D]; ``labels``."""
        nets = self.frozen[0].to(batch["joints"].device)
        with torch.no_grad():
            frames = from_bytes(batch["frames"]).transpose(0, 1).flatten(1, 2)
            pictures = []
            for k in range(2):
                plain = Picture(*to_planes(frames[k]))
                covered = nets.config.arm_layer
                pictures.append(nets.uncover(frames[k], nets.draw_arms(batch["joints"][:, k])[1]) if covered else plain)
            seen = nets.dynamics.look(pictures[1], pictures[0])
            joints = nets.joints.normalise(batch["joints"][:, 1])
        logit = self.head(seen, joints).float()
        loss = F.binary_cross_entropy_with_logits(logit, batch["labels"])
        correct = ((logit > 0) == (batch["labels"] > 0.5)).float().mean()
        return {"loss": loss, "correct": correct}


def set_backgrounds(arms: nn.ModuleList, frames: Tensor, joints: Tensor) -> None:
    """Give each arm renderer the median of frames uint8 [N, cameras, 3, h, w] and the spread of joints [N, D]."""
    for index, arm in enumerate(arms):
        assert isinstance(arm, ArmRenderer)
        pictures = from_bytes(frames[:, index])
        background = pictures.median(0).values
        arm.background.copy_(background[None])
        arm.fit_normalisation(joints)
        # Where nothing moves the deviation is the camera's noise; most pixels are such pixels.
        arm.fit_contrast(float((pictures - background).abs().mean(0).median()))
