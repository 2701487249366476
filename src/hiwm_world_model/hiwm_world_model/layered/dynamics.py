"""How the object moves when the tool does: an ensemble of small networks in the object's own frame."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiwm_world_model.layered.plane import PlaneView, wrap
from hiwm_world_model.nets.blocks import mlp

TOOL_FREQUENCIES = (1.5, 3.0)
MAX_STEP = 0.5  # plane units or rad per substep


class EnsembleLinear(nn.Module):
    """M linear layers side by side, [M, B, in] -> [M, B, out]."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, outputs) for _ in range(members)]
        self.weight = nn.Parameter(torch.stack([layer.weight.T for layer in layers]).detach().clone())
        self.bias = nn.Parameter(torch.stack([layer.bias for layer in layers])[:, None].detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Apply every member to its own rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class PoseDynamics(nn.Module):
    """Object pose and two joint positions -> object pose one control period later, for M ensemble members.

    The tool is a point on the plane that a small network finds from the joints; everything a member sees is in the
    object's frame, so one contact teaches all orientations. A gate lets a member say "no contact" exactly enough.
    Poses inside are plane poses [M, B, 3] (x, y, angle).
    """

    def __init__(self, joints: int, view: PlaneView, members: int = 3, substeps: int = 2, width: int = 256) -> None:
        super().__init__()
        self.view, self.members, self.substeps = view, members, substeps
        self.tool = mlp(joints, 96, 2, 2)
        inputs = 6 + 8 * len(TOOL_FREQUENCIES) + 2 * joints + 4
        widths = [inputs, width, width, width, 6]
        self.layers = nn.ModuleList(EnsembleLinear(members, a, b) for a, b in pairwise(widths))
        last = self.layers[-1]
        assert isinstance(last, EnsembleLinear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias[..., 3:] = -1.0

    def to_plane(self, pose: Tensor) -> Tensor:
        """Pose (image x, y, angle) -> plane pose."""
        return torch.cat([self.view.to_plane(pose[..., :2]), pose[..., 2:]], -1)

    def to_image(self, pose: Tensor) -> Tensor:
        """Plane pose -> pose (image x, y, angle)."""
        return torch.cat([self.view.to_image(pose[..., :2]), pose[..., 2:]], -1)

    def tool_point(self, joints: Tensor) -> Tensor:
        """[..., D] normalised joints -> [..., 2] on the plane."""
        return self.view.to_plane(self.tool(joints))

    def _substep(self, pose: Tensor, before: Tensor, after: Tensor, tool_a: Tensor, tool_b: Tensor) -> Tensor:
        cosine, sine = pose[..., 2].cos(), pose[..., 2].sin()

        def inside(point: Tensor) -> Tensor:
            d = point - pose[..., :2]
            return torch.stack([cosine * d[..., 0] + sine * d[..., 1], -sine * d[..., 0] + cosine * d[..., 1]], -1)

        a, b = inside(tool_a), inside(tool_b)
        waves = [f(p * w) for p in (b, a) for f in (torch.sin, torch.cos) for w in TOOL_FREQUENCIES]
        place = torch.stack([pose[..., 0] * 0.5, pose[..., 1] * 0.5, cosine, sine], -1)
        h = torch.cat([a, b, (b - a) * 4, *waves, before, (after - before) * 8, place], -1)
        h = F.silu(self.layers[0](h))
        # The wide layers take most of the time; their rounding is far below the noise of the poses. The first and
        # the last one see coordinates and stay exact, and so does everything outside training.
        with torch.autocast(h.device.type, torch.bfloat16, enabled=self.training):
            for layer in self.layers[1:-1]:
                h = F.silu(layer(h))
        out = self.layers[-1](h.float())
        d = out[..., :3] * torch.sigmoid(out[..., 3:] * 2) * MAX_STEP
        return torch.stack(
            [
                pose[..., 0] + cosine * d[..., 0] - sine * d[..., 1],
                pose[..., 1] + sine * d[..., 0] + cosine * d[..., 1],
                pose[..., 2] + d[..., 2],
            ],
            -1,
        )

    def forward(self, pose: Tensor, joints: Tensor, following: Tensor) -> Tensor:
        """Plane pose [M, B, 3], normalised joints [M or 1, B, D] at both ends of a period -> plane pose [M, B, 3]."""
        joints, following = joints.expand(self.members, -1, -1), following.expand(self.members, -1, -1)
        steps = [torch.lerp(joints, following, k / self.substeps) for k in range(self.substeps + 1)]
        tools = [self.tool_point(q) for q in steps]
        for k in range(self.substeps):
            pose = self._substep(pose, steps[k], steps[k + 1], tools[k], tools[k + 1])
        return pose


def mean_pose(poses: Tensor) -> Tensor:
    """Mean over the members, [M, B, 3] -> [B, 3]; angles relative to the first member's."""
    first = poses[:1]
    angle = first[0, :, 2] + wrap(poses[..., 2] - first[..., 2]).mean(0)
    return torch.cat([poses[..., :2].mean(0), wrap(angle)[:, None]], -1)


def spread(poses: Tensor) -> Tensor:
    """Disagreement of the members, [M, B, 3] -> [B, 2]: position (plane units) and angle (rad), mean deviations."""
    centre = mean_pose(poses)
    position = (poses[..., :2] - centre[..., :2]).norm(dim=-1).mean(0)
    return torch.stack([position, wrap(poses[..., 2] - centre[..., 2]).abs().mean(0)], -1)
