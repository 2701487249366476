"""Training of everything that has no pixels: joints, object motion, success; and what they measure on held-out data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hiwm_world_model.layered.data import Index, Recording, starts
from hiwm_world_model.layered.dynamics import PoseDynamics, mean_pose
from hiwm_world_model.layered.networks import LayeredNetworks
from hiwm_world_model.layered.objectives import DynamicsObjective, JointObjective, SuccessObjective
from hiwm_world_model.layered.plane import wrap
from hiwm_world_model.layered.poses import InferredPoses
from hiwm_world_model.layered.stages import Run
from hiwm_world_model.layered.success import SuccessHead
from hiwm_world_model.layered.tool import fit_tool
from hiwm_world_model.nets import JointPredictor
from hiwm_world_model.nets.fit import Batch

JOINT_BATCH, JOINT_UNROLL = 256, 8
# An object moves where its pose changes by more than this in a period (plane units; the radius is 1.6).
MOVING = 0.08
MOVING_SHARE = 0.7  # of the dynamics batches; most recorded steps touch nothing
MEMBER_SHARE = 0.8  # of the episodes, per ensemble member: members must differ where data is thin
UNROLL_SCHEDULE = (2, 4, 8, 12, 16, 24)  # horizons over the first three quarters of the training
HORIZONS = (10, 30, 60)
SUCCESS_BATCH = 256


def train_joints(run: Run, recording: Recording, predictor: JointPredictor) -> None:
    """Fit the joint predictor, unrolled up to eight periods."""
    predictor.fit_normalisation(recording.joints[recording.frame_numbers(validation=False)])
    first = starts(recording.spans(validation=False), JOINT_UNROLL)

    def sample(rng: np.random.Generator, progress: float) -> Batch:
        horizon = 1 + int(progress * (JOINT_UNROLL - 1))
        at = rng.choice(first, JOINT_BATCH)[:, None]
        return {
            "joints": recording.joints[at + np.arange(-1, horizon + 1)],
            "actions": recording.actions[at + np.arange(horizon)],
        }

    run.fit("joints", JointObjective(predictor), sample, run.settings.joint_steps)


@torch.no_grad()
def joint_error(recording: Recording, predictor: JointPredictor, horizon: int = 30) -> dict[str, float]:
    """Mean and largest open-loop error (rad or m) after ``horizon`` periods on held-out episodes."""
    first = starts(recording.spans(validation=True) or recording.spans(validation=False), horizon)
    if len(first) == 0:
        return {}
    at = first[:: max(1, len(first) // 256)]
    before, now = recording.joints[at - 1], recording.joints[at]
    for k in range(horizon):
        before, now = now, predictor(now, before, recording.actions[at + k])
    error = (now - recording.joints[at + horizon]).abs()
    return {f"mean_error_{horizon}": float(error.mean()), f"max_error_{horizon}": float(error.max())}


def moving_frames(recording: Recording, poses: InferredPoses, dynamics: PoseDynamics, validation: bool) -> Index:
    """Frames after which the object moves, among those seen well."""
    plane = dynamics.to_plane(poses.pose).detach()
    frames = starts(recording.spans(validation), 1)
    step = (plane[frames + 1, :2] - plane[frames, :2]).norm(dim=-1)
    turn = wrap(plane[frames + 1, 2] - plane[frames, 2]).abs()
    seen = poses.usable()[frames] & poses.usable()[frames + 1]
    chosen = seen & ((step > MOVING) | (turn > MOVING)) & (step < 10 * MOVING)
    return frames[chosen.numpy()]


class _Windows:
    """Samples unrolled windows for every ensemble member from its own share of the episodes."""

    def __init__(
        self, recording: Recording, networks: LayeredNetworks, poses: InferredPoses, run: Run, rng: np.random.Generator
    ) -> None:
        self.poses, self.settings = poses, run.settings
        self.joints = networks.joints.normalise(recording.joints).detach()
        known = [e for e in recording.spans(validation=False) if bool(torch.isfinite(poses.pose[e.start, 0]))]
        spans = [e for e in known if e.length > run.settings.unroll]
        if not spans:
            raise ValueError(f"no training episode is longer than {run.settings.unroll} frames")
        self.weight = poses.usable().float()
        self.spans = []
        for _ in range(networks.dynamics.members):
            count = max(1, round(MEMBER_SHARE * len(spans)))
            self.spans.append([spans[i] for i in rng.permutation(len(spans))[:count]])
        self.moving = moving_frames(recording, poses, networks.dynamics, validation=False)
        self.ends = np.zeros(len(recording), np.int64)
        self.begins = np.zeros(len(recording), np.int64)
        for e in recording.episodes:
            self.ends[e.start : e.start + e.length] = e.start + e.length
            self.begins[e.start : e.start + e.length] = e.start
        starts_of = [{e.start for e in own} for own in self.spans]
        self.member_moving = [self.moving[np.isin(self.begins[self.moving], list(s))] for s in starts_of]

    def sample(self, rng: np.random.Generator, progress: float) -> Batch:
        stage = UNROLL_SCHEDULE[min(len(UNROLL_SCHEDULE) - 1, int(progress * 8))]
        horizon = min(stage, self.settings.unroll)
        at = np.stack([self._member(rng, m, horizon) for m in range(len(self.spans))])
        rows = at[..., None] + np.arange(horizon + 1)
        weight = self.weight[rows] * self.weight[rows[..., :1]]  # a hidden start teaches nothing
        return {"pose": self.poses.pose[rows], "weight": weight, "joints": self.joints[rows]}

    def _member(self, rng: np.random.Generator, member: int, horizon: int) -> npt.NDArray[np.int64]:
        count = self.settings.dynamics_batch
        moving = self.member_moving[member]
        some = int(count * MOVING_SHARE) if len(moving) else 0
        busy = rng.choice(moving, some) if some else np.zeros(0, np.int64)
        spans = self.spans[member]
        chosen = rng.integers(0, len(spans), count - some)
        other = np.asarray([rng.integers(spans[i].start, spans[i].start + spans[i].length) for i in chosen], np.int64)
        inside = np.concatenate([busy, other])
        lead = np.concatenate([rng.integers(0, max(2, horizon // 2), some), np.zeros(count - some, np.int64)])
        # Close to the ends of its episode a window slides inside.
        begin, end = self.begins[inside], self.ends[inside]
        return np.maximum(np.minimum(inside - lead, end - 1 - horizon), begin)


def train_dynamics(
    run: Run, recording: Recording, networks: LayeredNetworks, poses: InferredPoses, rng: np.random.Generator
) -> Mapping[str, float]:
    """Tool point, then the ensemble on unrolled windows; returns held-out errors against inferred poses."""
    moving = moving_frames(recording, poses, networks.dynamics, validation=False)
    if len(moving) < 10:
        raise ValueError(f"the object moves in {len(moving)} of {len(recording)} recorded steps; expected pushing")
    some = moving[np.sort(rng.permutation(len(moving))[:2000])]
    anything = rng.choice(recording.frame_numbers(validation=False), 1500)
    measured = fit_tool(networks.dynamics, networks.arm, networks.joints, recording, (some, anything), poses.pose, rng)
    windows = _Windows(recording, networks, poses, run, rng)
    run.fit("dynamics", DynamicsObjective(networks.dynamics), windows.sample, run.settings.dynamics_steps)
    measured["moving_steps"] = float(len(moving))
    return {**measured, **pose_drift(recording, networks, poses)}


@torch.no_grad()
def pose_drift(recording: Recording, networks: LayeredNetworks, poses: InferredPoses) -> dict[str, float]:
    """Open-loop drift on held-out windows in which the object moves, against inferred poses.

    Position as a fraction of the image width, angle in degrees; medians and means per horizon.
    """
    out: dict[str, float] = {}
    dynamics = networks.dynamics
    spans = recording.spans(validation=True) or recording.spans(validation=False)
    moving = moving_frames(recording, poses, dynamics, validation=bool(recording.spans(validation=True)))
    for horizon in HORIZONS:
        first = starts(spans, horizon)
        busy = np.asarray([np.isin(np.arange(f, f + horizon), moving).any() for f in first[::5]], bool)
        at = first[::5][busy] if len(first) else first
        at = at[(poses.usable()[at] & poses.usable()[at + horizon]).numpy()]
        if len(at) == 0:
            continue
        plane = dynamics.to_plane(poses.pose[at])
        before, now = recording.joints[at - 1], recording.joints[at]
        for k in range(horizon):
            following = networks.joints(now, before, recording.actions[at + k])
            q = networks.joints.normalise(torch.stack([now, following]))
            plane = mean_pose(dynamics(plane[None].expand(dynamics.members, -1, -1), q[:1], q[1:]))
            before, now = now, following
        target = poses.pose[at + horizon]
        place = (dynamics.to_image(plane)[:, :2] - target[:, :2]).norm(dim=-1) / 2
        turn = torch.rad2deg(wrap(plane[:, 2] - target[:, 2]).abs())
        out |= _summary(f"h{horizon}", place, turn)
    return out


def _summary(name: str, place: Tensor, turn: Tensor) -> dict[str, float]:
    return {
        f"{name}_windows": float(len(place)),
        f"{name}_position_median": float(place.median()),
        f"{name}_position_mean": float(place.mean()),
        f"{name}_angle_median": float(turn.median()),
        f"{name}_angle_mean": float(turn.mean()),
    }


def train_success(
    run: Run, recording: Recording, networks: LayeredNetworks, poses: InferredPoses, rng: np.random.Generator
) -> Mapping[str, float]:
    """Balanced training on recorded labels, then calibration on held-out frames."""
    known = torch.isfinite(poses.pose[:, 0])
    labels = torch.from_numpy(np.asarray(recording.success, np.float32)) if recording.success is not None else None
    frames = recording.frame_numbers(validation=False)
    frames = frames[known[frames].numpy()]
    positive = frames[(labels[frames] > 0.5).numpy()] if labels is not None else frames[:0]
    negative = np.setdiff1d(frames, positive)
    if labels is None or len(positive) == 0 or len(negative) == 0:
        _constant(networks.success, probability=float(len(positive) > 0 and len(negative) == 0))
        return {"positive_frames": float(len(positive))}
    joints = networks.joints.normalise(recording.joints).detach()
    targets = labels

    def sample(step_rng: np.random.Generator, progress: float) -> Batch:
        half = SUCCESS_BATCH // 2
        rows = np.concatenate([step_rng.choice(positive, half), step_rng.choice(negative, half)])
        noise = torch.from_numpy(step_rng.normal(0, 1, (len(rows), 3)).astype(np.float32))
        return {
            # The noise of an inferred pose: a quarter of a pixel and half a degree.
            "pose": poses.pose[rows] + noise * torch.tensor([0.004, 0.004, 0.01]),
            "joints": joints[rows],
            "label": targets[rows],
        }

    run.fit("success", SuccessObjective(networks.success), sample, run.settings.success_steps)
    held_out = recording.frame_numbers(validation=True)
    held_out = held_out[known[held_out].numpy()]
    check = held_out if len(held_out) and float(labels[held_out].sum()) > 0 else frames
    with torch.no_grad():
        logits = networks.success.raw(poses.pose[check], joints[check])
    networks.success.calibrate(logits, labels[check])
    with torch.no_grad():
        probability = networks.success(poses.pose[check], joints[check])
    return {
        "positive_frames": float(len(positive)),
        "heldout_positive": float(labels[check].sum()),
        "brier": float((probability - labels[check]).square().mean()),
        "auroc": auroc(probability, labels[check]),
    }


def _constant(head: SuccessHead, probability: float) -> None:
    """Without both classes there is nothing to learn: nearly certain failure, or nearly certain success."""
    with torch.no_grad():
        head.calibration.copy_(torch.tensor([0.0, 6.0 if probability > 0.5 else -6.0]))


def auroc(score: Tensor, label: Tensor) -> float:
    """Probability that a positive scores above a negative; NaN without both classes."""
    positive = label > 0.5
    count, others = int(positive.sum()), int((~positive).sum())
    if count == 0 or others == 0:
        return float("nan")
    rank = score.argsort().argsort().float() + 1
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * others))
