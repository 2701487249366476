"""The world session: a running world, its snapshot tree, rollback and branch. No ROS.

Every step is cached. A rollback or a branch is an assignment: it starts a new branch at a cached state, and the same
action taken there again gives the same frame, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hiwm_world_model.interface import Context, Images, ModelSpec, State, StepResult, WorldModel
from hiwm_world_model.snapshots import BranchInfo, SnapshotInfo, SnapshotStore, SnapshotStoreError


class SessionError(RuntimeError):
    """A request the session cannot serve; its state is unchanged."""


@dataclass(frozen=True)
class Moment:
    """Where a session stands.

    Attributes:
        result: what the world shows, B = 1.
        snapshot: the cached step it is.
        branch: the running branch; right after a rollback it is newer than ``snapshot.branch_id``.
    """

    result: StepResult
    snapshot: SnapshotInfo
    branch: BranchInfo


def store_meta(model: WorldModel) -> dict[str, str]:
    """What a journal must agree on with the model that resumes it."""
    return {"model": model.identity, "rig": model.spec.rig}


def check_fits(
    spec: ModelSpec, joint_names: tuple[str, ...], cameras: Mapping[str, tuple[int, int]], rate: float
) -> None:
    """Refuse a model that was trained for another rig.

    Args:
        spec: the model's.
        joint_names: the rig's, in order.
        cameras: the rig's, name -> (height, width).
        rate: the rig's control rate in Hz.

    Raises:
        SessionError: naming what the model expects and what the rig has.
    """
    wanted = {c.name: (c.height, c.width) for c in spec.cameras}
    differences = []
    if spec.joint_names != joint_names:
        differences.append(f"joints: the model has {list(spec.joint_names)}, the rig {list(joint_names)}")
    if wanted != dict(cameras):
        differences.append(f"cameras (height, width): the model has {wanted}, the rig {dict(cameras)}")
    if abs(spec.control_rate_hz - rate) > 1e-6:
        differences.append(f"control rate: the model has {spec.control_rate_hz} Hz, the rig {rate} Hz")
    if differences:
        raise SessionError("this world model was trained for another rig: " + "; ".join(differences))


class WorldSession:
    """One world that runs, with every step cached in a :class:`SnapshotStore`."""

    def __init__(self, model: WorldModel, store: SnapshotStore) -> None:
        """Take a model and a journal; :meth:`resume` or :meth:`reset` puts the session somewhere."""
        self._model = model
        self._store = store
        self._device = next(iter(model.weights().values())).device
        self._moment: Moment | None = None
        self._digest = ""
        head = store.head()
        self._next_snapshot = store.next_id()
        self._next_branch = 0 if head is None else head[0].id + 1

    @property
    def moment(self) -> Moment:
        """Where the session stands.

        Raises:
            SessionError: before the first reset.
        """
        if self._moment is None:
            raise SessionError("the world has no state yet: reset it first")
        return self._moment

    @property
    def started(self) -> bool:
        """Whether there is a state."""
        return self._moment is not None

    @property
    def store(self) -> SnapshotStore:
        """The journal."""
        return self._store

    def reset(self, images: Mapping[str, Images], joints: npt.ArrayLike, stamp_ns: int | None = None) -> Moment:
        """Start a new root from real frames.

        Args:
            images: camera -> [H, W, 3] or [T, H, W, 3] uint8 RGB.
            joints: [D] or [T, D], rad or m.
            stamp_ns: time of the new state; now by default.

        Raises:
            SessionError: if cameras or sizes are not the model's.
        """
        frames = {k: v[None] if v.ndim == 3 else v for k, v in images.items()}
        positions = np.atleast_2d(np.asarray(joints, np.float32))
        self._check_input(frames, positions)
        with torch.inference_mode():
            state = self._model.encode({k: v[None] for k, v in frames.items()}, positions[None])
        state = self._own(state)
        result = self._model.observe(state)
        self._digest = state.context.digest()
        branch = BranchInfo(self._next_branch, -1, self._next_snapshot)
        info = self._append(result, -1, 0, stamp_ns, branch, root=True)
        self._next_branch += 1
        self._moment = Moment(result, info, branch)
        return self._moment

    def step(self, action: npt.ArrayLike, stamp_ns: int | None = None) -> Moment:
        """Obey joint targets [D] (rad or m) for one control period; the new state is cached.

        Raises:
            SessionError: before the first reset, or for an action that is not D finite numbers.
            SnapshotStoreError: if the journal cannot be written.
        """
        now = self.moment
        target = np.asarray(action, np.float32)
        if target.shape != (len(self._model.spec.joint_names),) or not np.isfinite(target).all():
            raise SessionError(f"an action is {len(self._model.spec.joint_names)} finite numbers, got {action!r}")
        with torch.inference_mode():
            state = self._model.advance(now.result.state, torch.as_tensor(target[None]).to(self._device))
        result = self._model.observe(self._own(state))
        info = self._append(result, now.snapshot.id, now.snapshot.step + 1, stamp_ns, now.branch)
        self._moment = Moment(result, info, now.branch)
        return self._moment

    def rollback(self, steps: int = 0, snapshot_id: int = -1) -> Moment:
        """Return to an earlier state of the running line, by snapshot (>= 0) or by steps; starts a new branch.

        Raises:
            SessionError: if the snapshot is no ancestor of the present state, or ``steps`` is negative.
        """
        now = self.moment
        if snapshot_id < 0:
            if steps < 0:
                raise SessionError(f"steps must be >= 0, got {steps}")
            snapshot_id = self._store.ancestor(now.snapshot.id, steps)
        elif not self._store.is_ancestor(snapshot_id, now.snapshot.id):
            raise SessionError(f"snapshot {snapshot_id} is no ancestor of the present state; use branch to go there")
        return self._start_branch(snapshot_id)

    def branch(self, snapshot_id: int) -> Moment:
        """Start a new branch at any snapshot.

        Raises:
            SessionError: if there is no such snapshot.
        """
        return self._start_branch(snapshot_id)

    def list_snapshots(self, branch_id: int = -1, limit: int = 0) -> list[SnapshotInfo]:
        """Cached steps, newest first; of one branch or (-1) all; at most ``limit``, or (0) all."""
        return self._store.list_snapshots(branch_id, limit)

    def resume(self) -> Moment | None:
        """Go to where the journal ends; None in an empty one."""
        head = self._store.head()
        if head is None:
            return None
        branch, snapshot_id = head
        self._moment = Moment(self._look(snapshot_id), self._store.info(snapshot_id), branch)
        return self._moment

    def look(self, snapshot_id: int) -> StepResult:
        """What a snapshot shows, without going there."""
        return self._model.observe(self._load(snapshot_id)[0])

    # --- inside ----------------------------------------------------------------------------------------------------
    def _start_branch(self, snapshot_id: int) -> Moment:
        _ = self.moment  # raises before the first reset
        try:
            info = self._store.info(snapshot_id)
        except SnapshotStoreError as error:
            raise SessionError(str(error)) from error
        result = self._look(snapshot_id)
        branch = BranchInfo(self._next_branch, info.branch_id, snapshot_id)
        self._store.append_branch(branch)
        self._next_branch += 1
        self._moment = Moment(result, info, branch)
        return self._moment

    def _look(self, snapshot_id: int) -> StepResult:
        state, self._digest = self._load(snapshot_id)
        return self._model.observe(state)

    def _load(self, snapshot_id: int) -> tuple[State, str]:
        stored = self._store.load(snapshot_id)
        state = State.from_bytes(stored.state, Context.from_bytes(stored.context))
        return self._own(state), stored.context_digest

    def _own(self, state: State) -> State:
        """A private copy in one memory layout, live or restored.

        Layout and alignment may steer which kernel computes a sum, and with it the last bit of the next frame.
        """
        return state.map(lambda t: t.detach().to(self._device, copy=True).contiguous())

    def _append(
        self, result: StepResult, parent: int, step: int, stamp_ns: int | None, branch: BranchInfo, root: bool = False
    ) -> SnapshotInfo:
        stamp = time.time_ns() if stamp_ns is None else stamp_ns
        scores = float(result.success_probability[0]), float(result.trust[0])
        info = SnapshotInfo(self._next_snapshot, parent, branch.id, step, stamp, *scores)
        data = result.state.to_bytes()
        if root:
            self._store.append(info, data, self._digest, result.state.context.to_bytes(), branch)
        else:
            self._store.append(info, data, self._digest)
        self._next_snapshot += 1
        return info

    def _check_input(self, frames: Mapping[str, Images], joints: npt.NDArray[np.float32]) -> None:
        cameras = {k: (v.shape[1], v.shape[2]) for k, v in frames.items()}
        wanted = {c.name: (c.height, c.width) for c in self._model.spec.cameras}
        if cameras != wanted or any(v.dtype != np.uint8 for v in frames.values()):
            raise SessionError(f"reset needs uint8 images (height, width) {wanted}, got {cameras}")
        count = len(self._model.spec.joint_names)
        if joints.shape[1] != count or not np.isfinite(joints).all():
            raise SessionError(f"reset needs {count} finite joint positions, got {joints.tolist()}")
