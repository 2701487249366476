"""The world rig in process: a world session behind ``hiwm_rig.types.RigEnv``. The node and evaluation both run this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from hiwm_rig.commands import limit_velocity
from hiwm_rig.contract import Rig
from hiwm_rig.types import FloatArray, Observation

from hiwm_world_model.interface import Images, WorldModel
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.registry import load_world_model
from hiwm_world_model.session import Moment, WorldSession, check_fits
from hiwm_world_model.snapshots import SnapshotStore

SUCCESS_THRESHOLD = 0.5
SETTLE_STEPS = 3


class WorldRigEnv:
    """A virtual robot: obeys joint targets like a rig, and can roll back and branch."""

    def __init__(
        self,
        model: WorldModel,
        rig: Rig,
        library: StartLibrary,
        store: SnapshotStore | None = None,
        success_threshold: float = SUCCESS_THRESHOLD,
    ) -> None:
        """Put a rig's contract around a model.

        Args:
            model: trained for this rig.
            rig: the contract.
            library: real first frames to start from.
            store: journal of the session; a temporary one by default.
            success_threshold: learned success probability from which the task counts as done.

        Raises:
            SessionError: if the model was trained for another rig.
        """
        check_fits(model.spec, rig.joint_names, {c.name: (c.height, c.width) for c in rig.cameras}, rig.control_rate_hz)
        self.rig = rig
        self.model = model
        self.library = library
        self.session = WorldSession(model, SnapshotStore.temporary() if store is None else store)
        self._threshold = success_threshold
        self._max_velocity = np.array([j.max_velocity for j in rig.joints])
        self._lower = np.array([j.lower for j in rig.joints])
        self._upper = np.array([j.upper for j in rig.joints])
        self._target = np.array(rig.home)
        self._velocities = np.zeros(len(rig.joints))
        self._period_ns = round(1e9 * rig.period_s)

    @classmethod
    def from_directory(cls, directory: str | Path, rig: Rig, device: str = "cpu") -> WorldRigEnv:
        """A virtual robot from a model directory, with a temporary journal.

        Raises:
            ModelError: if the directory does not hold a world model and its library.
            SessionError: if the model was trained for another rig.
        """
        return cls(load_world_model(directory, device), rig, StartLibrary.load(directory))

    # --- RigEnv ----------------------------------------------------------------------------------------------------
    def reset(self, seed: int, stamp_ns: int | None = None) -> Observation:
        """Start at the real first frame that belongs to ``seed``."""
        start = self.library.start(seed)
        return self.reset_from(start.images, start.joints, stamp_ns)

    def step(self, action: FloatArray, stamp_ns: int | None = None) -> Observation:
        """Obey (D,) joint targets, rad or m, for one control period, within the limits of the rig file."""
        bounded = limit_velocity(self._target, np.asarray(action, np.float64), self._max_velocity, self.rig.period_s)
        self._target = np.clip(bounded, self._lower, self._upper)
        before = self.moment.result.joints[0]
        moment = self.session.step(self._target, self._stamp(self.moment.snapshot.step + 1, stamp_ns))
        self._velocities = (moment.result.joints[0] - before).astype(np.float64) / self.rig.period_s
        return self.observe(stamp_ns)

    def succeeded(self) -> bool:
        """Whether the learned success probability has reached the threshold."""
        return self.success_probability >= self._threshold

    def finish(self) -> bool:
        """Hold still until the scene has settled and say whether the task is done.

        The virtual robot does not retreat: retreating is a motion of its own that few recordings hold, and the
        success head judges what it was trained on, frames with the tool in them.
        """
        for _ in range(SETTLE_STEPS):
            self.step(self._target)
        return self.succeeded()

    # --- what only a world can do ----------------------------------------------------------------------------------
    def reset_from(self, images: Mapping[str, Images], joints: FloatArray, stamp_ns: int | None = None) -> Observation:
        """Start at a given real frame: images camera -> [H, W, 3] uint8 RGB, joints [D] rad or m."""
        self._arrived(self.session.reset(images, joints, self._stamp(0, stamp_ns)))
        return self.observe(stamp_ns)

    def rollback(self, steps: int = 0, snapshot_id: int = -1, stamp_ns: int | None = None) -> Observation:
        """Return to an ancestor by steps or snapshot; see :meth:`WorldSession.rollback`."""
        self._arrived(self.session.rollback(steps, snapshot_id))
        return self.observe(stamp_ns)

    def branch(self, snapshot_id: int, stamp_ns: int | None = None) -> Observation:
        """Start a new branch at any snapshot."""
        self._arrived(self.session.branch(snapshot_id))
        return self.observe(stamp_ns)

    def resume(self) -> bool:
        """Continue where the journal ends; False in an empty one."""
        moment = self.session.resume()
        if moment is not None:
            self._arrived(moment)
        return moment is not None

    def observe(self, stamp_ns: int | None = None) -> Observation:
        """What the world shows now."""
        moment = self.moment
        return Observation(
            images={k: v[0] for k, v in moment.result.images.items()},
            joints=moment.result.joints[0],
            stamp_ns=self._stamp(moment.snapshot.step, stamp_ns),
            velocities=self._velocities,
        )

    @property
    def moment(self) -> Moment:
        """Where the session stands."""
        return self.session.moment

    @property
    def success_probability(self) -> float:
        """Learned probability in [0, 1] that the task is done."""
        return float(self.moment.result.success_probability[0])

    @property
    def trust(self) -> float:
        """How far the model is inside what it was trained on, in [0, 1]; NaN without a trust head."""
        return float(self.moment.result.trust[0])

    @property
    def target(self) -> npt.NDArray[np.float64]:
        """(D,) joint targets that were in effect in the last step; the joints themselves after a jump."""
        return self._target.copy()

    def close(self) -> None:
        """Commit the journal and release it."""
        self.session.store.close()

    def __enter__(self) -> WorldRigEnv:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arrived(self, moment: Moment) -> None:
        """A jump: the arm stands where the state says, at rest."""
        self._target = np.clip(moment.result.joints[0].astype(np.float64), self._lower, self._upper)
        self._velocities = np.zeros(len(self._target))

    def _stamp(self, step: int, stamp_ns: int | None) -> int:
        return step * self._period_ns if stamp_ns is None else stamp_ns
