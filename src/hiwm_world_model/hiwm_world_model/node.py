"""The virtual robot: a world session behind the topics and services of a rig. Messages to values and back.

Time is the wall clock, ticked at the control rate (``time_mode: wall``), or lock-step (``time_mode: lockstep``): the
node publishes ``/clock`` and advances only on ``/hiwm/step``, or with each command (``step_on_command``). A rollback is
a new branch in time: neither clock ever runs backwards.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from hiwm_rig.codecs import ns_to_stamp
from hiwm_rig.rig_node import (
    LATCHED,
    DiagnosticsReporter,
    RigCommands,
    RigPublisher,
    StartupError,
    declare_rig,
    now_ns,
    run_node,
)
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.timing import Deadlines
from hiwm_rig.types import Observation
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from hiwm_msgs.msg import EpisodeEvent, WorldState
from hiwm_msgs.srv import Branch, ListSnapshots, Pause, Reset, Rollback, Step
from hiwm_world_model.env import WorldRigEnv
from hiwm_world_model.interface import ModelError
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.live import LiveSource
from hiwm_world_model.registry import load_world_model
from hiwm_world_model.session import SessionError, store_meta
from hiwm_world_model.snapshots import SnapshotStore, SnapshotStoreError
from hiwm_world_model.sources import SourceError, first_frame_of_bag
from hiwm_world_model.world_messages import EpisodeName, jump_message, snapshot_message, world_state_message

WALL, LOCKSTEP = "wall", "lockstep"
EVENT_LEAD_NS = 1_000
"""A jump's event is stamped this much before the first frame after it."""


class WorldRigNode(Node):
    """Publishes what the world shows, obeys joint commands, serves the snapshot tree."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("world_rig", **kwargs)
        self.rig = declare_rig(self)
        self._lockstep = self._time_mode() == LOCKSTEP
        self._step_on_command = bool(self.declare_parameter("step_on_command", False).value)
        self._seed = int(self.declare_parameter("seed", 0).value)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._only = SinglePublisher(self, self.rig.cameras[0].image_topic, discovery_s)
        torch.set_num_threads(int(self.declare_parameter("threads", 1).value))
        self.env = self._open_world()
        self._period_ns = round(1e9 * self.rig.period_s)
        self._paused = False
        self._episode = EpisodeName()
        self._last_stamp_ns = 0
        self._live = LiveSource(self, self.rig, str(self.declare_parameter("live_prefix", "").value))
        self._create_topics()
        self._create_services()
        self._start()

    # --- start-up --------------------------------------------------------------------------------------------------
    def _time_mode(self) -> str:
        mode = str(self.declare_parameter("time_mode", WALL).value)
        if mode not in (WALL, LOCKSTEP):
            raise StartupError(f"parameter time_mode: expected '{WALL}' or '{LOCKSTEP}', got '{mode}'")
        return mode

    def _open_world(self) -> WorldRigEnv:
        directory = str(self.declare_parameter("model", "").value)
        device = str(self.declare_parameter("device", "cpu").value)
        journal = str(self.declare_parameter("journal", "").value)
        if not directory:
            raise StartupError("parameter model: expected the directory of a trained world model")
        try:
            model = load_world_model(directory, device)
            library = StartLibrary.load(directory)
            store = SnapshotStore(journal, store_meta(model)) if journal else None
            return WorldRigEnv(model, self.rig, library, store)
        except (ModelError, SessionError, SnapshotStoreError) as error:
            raise StartupError(str(error)) from error

    def _create_topics(self) -> None:
        self._out = RigPublisher(self, self.rig)
        self._commands = RigCommands(self, self.rig, clock=self._now, on_accepted=self._on_command)
        self._state_publisher = self.create_publisher(WorldState, self.rig.topics.world_state, 10)
        self._event_publisher = self.create_publisher(EpisodeEvent, self.rig.topics.episode, LATCHED)
        self.create_subscription(EpisodeEvent, self.rig.topics.episode, self._on_event, LATCHED)
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10) if self._lockstep else None
        DiagnosticsReporter(self, self._diagnose, self.rig.topics.diagnostics)

    def _create_services(self) -> None:
        self.create_service(Reset, "/hiwm/reset", self._on_reset)
        self.create_service(Pause, "/hiwm/pause", self._on_pause)
        self.create_service(Rollback, "/hiwm/rollback", self._on_rollback)
        self.create_service(Branch, "/hiwm/branch", self._on_branch)
        self.create_service(ListSnapshots, "/hiwm/list_snapshots", self._on_list)
        self.create_service(Step, "/hiwm/step", self._on_step)

    def _start(self) -> None:
        resumed = self.env.resume()
        if resumed:
            self._last_stamp_ns = self.env.session.list_snapshots(limit=1)[0].stamp_ns
        else:
            self.env.reset(self._seed, self._next_stamp())
        self._deadlines = Deadlines(self.rig.period_s, time.monotonic())
        self._timer = None if self._lockstep else self.create_timer(self.rig.period_s, self._tick)
        self._publish_jump()
        where = self.env.moment.snapshot
        how = f"resumed at snapshot {where.id}, step {where.step}" if resumed else f"seed {self._seed}"
        self.get_logger().info(f"world rig ready: {self.env.model.identity}, {how}")

    # --- time ------------------------------------------------------------------------------------------------------
    def _now(self) -> int:
        """The rig's clock, ns."""
        return self._last_stamp_ns if self._lockstep else now_ns(self)

    def _next_stamp(self) -> int:
        """Stamp of the next frame; strictly increasing."""
        if self._lockstep:
            return self._last_stamp_ns + self._period_ns
        return max(now_ns(self), self._last_stamp_ns + EVENT_LEAD_NS + 1)

    def _tick(self) -> None:
        self._deadlines.begin(time.monotonic())
        self._advance()
        self._deadlines.end(time.monotonic())

    def _advance(self) -> None:
        stamp = self._next_stamp()
        if self._paused:
            observation = self.env.observe(stamp)
        else:
            target = self._commands.target(stamp, stamp if self._lockstep else now_ns(self))
            observation = self.env.step(target, stamp)
        self._publish(observation)

    # --- out -------------------------------------------------------------------------------------------------------
    def _publish(self, observation: Observation) -> None:
        self._last_stamp_ns = observation.stamp_ns
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=ns_to_stamp(observation.stamp_ns)))
        self._out.publish(observation)
        moment, model = self.env.moment, self.env.model.identity
        self._state_publisher.publish(
            world_state_message(moment, self._episode, model, observation.stamp_ns, self._paused)
        )

    def _publish_jump(self, event: int | None = None) -> None:
        """Show at once where a jump led to, and start a whole period there."""
        stamp = self._next_stamp()
        observation = self.env.observe(stamp)
        self._commands.hold(observation.joints)
        if event is not None:
            self._event_publisher.publish(jump_message(event, self.env.moment, self._episode, stamp - EVENT_LEAD_NS))
        self._publish(observation)
        if self._timer is not None:
            self._timer.reset()
        self._deadlines.restart(time.monotonic())

    def _diagnose(self) -> dict[str, Any]:
        session = self.env.session
        return {
            **self._commands.counters(),
            "ticks": self._deadlines.ticks,
            "missed_ticks": self._deadlines.missed,
            "tick_ms_p50": round(self._deadlines.duration_ms(50), 2),
            "tick_ms_p99": round(self._deadlines.duration_ms(99), 2),
            "last_rejection": self._commands.last_rejection(),
            "trust": round(self.env.trust, 4),
            "success_probability": round(self.env.success_probability, 4),
            "snapshot": session.moment.snapshot.id,
            "branch": session.moment.branch.id,
            "snapshots_not_yet_on_disk": session.store.pending,
            "journal": str(session.store.path),
            "model": self.env.model.identity,
            "paused": self._paused,
        }

    # --- in --------------------------------------------------------------------------------------------------------
    def _on_event(self, message: EpisodeEvent) -> None:
        if message.type == EpisodeEvent.BEGIN:
            self._episode = EpisodeName(message.episode_id, message.task)
        elif message.type == EpisodeEvent.END:
            self._episode = EpisodeName()

    def _on_command(self) -> None:
        if self._lockstep and self._step_on_command and not self._paused:
            self._advance()

    def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        def reset() -> str:
            stamp = self._next_stamp()
            if request.source in ("", "library"):
                seed = request.seed if request.seed >= 0 else self._seed + self.env.moment.branch.id + 1
                self.env.reset(seed, stamp)
                return f"library start {self.env.library.start(seed).index} of {len(self.env.library)}"
            if request.source == "bag":
                self.env.reset_from(*first_frame_of_bag(request.path, self.rig), stamp)
                return f"first frame of {request.path}"
            if request.source == "live":
                self.env.reset_from(*self._live.newest(), stamp)
                return "live frame"
            raise SessionError(f"source: expected 'library', 'bag' or 'live', got '{request.source}'")

        return self._serve(response, reset)

    def _on_pause(self, request: Pause.Request, response: Pause.Response) -> Pause.Response:
        self._paused = bool(request.paused)
        response.success, response.message = True, "paused" if self._paused else "running"
        return response

    def _on_rollback(self, request: Rollback.Request, response: Rollback.Response) -> Rollback.Response:
        def rollback() -> str:
            self.env.rollback(int(request.steps), int(request.snapshot_id))
            return f"at step {self.env.moment.snapshot.step}"

        return self._located(self._serve(response, rollback, EpisodeEvent.ROLLBACK))

    def _on_branch(self, request: Branch.Request, response: Branch.Response) -> Branch.Response:
        def branch() -> str:
            self.env.branch(int(request.snapshot_id))
            return f"at step {self.env.moment.snapshot.step}"

        return self._located(self._serve(response, branch, EpisodeEvent.BRANCH))

    def _on_list(self, request: ListSnapshots.Request, response: ListSnapshots.Response) -> ListSnapshots.Response:
        session = self.env.session
        found = session.list_snapshots(int(request.branch_id), int(request.limit))
        response.snapshots = [snapshot_message(s) for s in found]
        response.total = session.store.count(int(request.branch_id))
        return response

    def _on_step(self, request: Step.Request, response: Step.Response) -> Step.Response:
        if not self._lockstep:
            response.success, response.message = (
                False,
                "this rig runs on the wall clock; start it with time_mode lockstep",
            )
            return response
        for _ in range(request.steps):
            self._advance()
        response.success, response.message = True, f"at step {self.env.moment.snapshot.step}"
        return response

    def _serve(self, response: Any, act: Callable[[], str], event: int | None = None) -> Any:
        """Act, publish the first frame at once, and answer; a request that cannot be served changes nothing."""
        try:
            response.message = act()
        except (SessionError, SourceError) as error:
            response.success, response.message = False, str(error)
            self.get_logger().warning(str(error))
            return response
        self._publish_jump(event)
        response.success = True
        return response

    def _located(self, response: Any) -> Any:
        moment = self.env.moment
        response.branch_id, response.snapshot = moment.branch.id, snapshot_message(moment.snapshot)
        return response

    def close(self) -> None:
        """Commit the journal."""
        self.env.close()


def main(args: list[str] | None = None) -> None:
    """Entry point of ``world_rig``."""
    sys.exit(run_node(WorldRigNode, args))


if __name__ == "__main__":
    main()
