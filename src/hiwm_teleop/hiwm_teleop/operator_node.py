"""The scripted operator as a node: a STAND-IN for a person at the screen and the leader arm.

Topics to values, the core's decisions, values to topics and service calls. Looking and planning run in a thread of
their own (the operator's head), so that the leader keeps its rate; services are called asynchronously.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import singledispatchmethod
from typing import Any

import numpy as np
from hiwm_rig.codecs import image_to_array, joint_state_to_sample, sample_to_joint_state, stamp_to_ns
from hiwm_rig.contract import Rig
from hiwm_rig.rig_node import DiagnosticsReporter, StartupError, declare_rig, now_ns, qos_profile, run_node
from hiwm_rig.types import Driver
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from hiwm_msgs.msg import ControlState, WorldState
from hiwm_msgs.srv import Branch, Pause, RequestControl, Reset, Rollback, StartEpisode
from hiwm_msgs.srv import EndEpisode as EndEpisodeSrv
from hiwm_teleop.frames import FrameJoiner
from hiwm_teleop.operator import OperatorSettings, ScriptedOperator
from hiwm_teleop.operator_table import Action, AskControl, BranchAt, EndEpisode, GoBack, Phase, Think
from hiwm_teleop.service_calls import ServiceCalls
from hiwm_teleop.skill import Skill, View, make_skill

LEADER_RATE_HZ = 50.0


class OperatorNode(Node):
    """Drives a :class:`ScriptedOperator` from topics."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("scripted_operator", **kwargs)
        self.rig = declare_rig(self)
        self.arm = self.rig.arms[0]
        self._seed = int(self.declare_parameter("seed", 0).value)
        self._episodes = int(self.declare_parameter("episodes", 0).value)
        self._log_path = str(self.declare_parameter("log", "").value)
        self._task = str(self.declare_parameter("task", "").value) or self.rig.task
        self._finished = 0
        self.core = ScriptedOperator(_skill(self._task, self.rig), self._settings(), self._seed)
        self.counters = {"frames": 0, "dropped_frames": 0, "failed_calls": 0}
        self._head = ThreadPoolExecutor(max_workers=1, thread_name_prefix="head")
        self._thought: Future[Sequence[Action]] | None = None
        self._todo: deque[Callable[[], Sequence[Action]]] = deque()
        self._calls = ServiceCalls()
        self._world_waits = False
        self._driver = Driver.PAUSED
        self._newest: View | None = None
        self._moves, self._moved_at = 0, 0.0
        self._starting = False
        self._joiner = FrameJoiner([c.name for c in self.rig.cameras])
        self._create_topics()
        self._create_clients()
        DiagnosticsReporter(self, self._diagnostics, self.rig.topics.diagnostics)
        self.create_timer(1.0 / LEADER_RATE_HZ, self._tick)
        self.get_logger().info(f"scripted operator (a stand-in for a person) for task '{self._task}'")

    def _settings(self) -> OperatorSettings:
        defaults = OperatorSettings()
        values = {k: self.declare_parameter(k, getattr(defaults, k)).value for k in ("branches", "max_corrections")}
        values["corrections_per_branch"] = self.declare_parameter("corrections_per_branch", 2).value
        # Handing back takes a few frames: so that the person's part of a recording is at most four seconds long.
        longest_s = float(self.declare_parameter("max_correction_s", 3.5).value)
        return OperatorSettings(**{k: int(v) for k, v in values.items()}, max_correction_s=longest_s)

    def _create_topics(self) -> None:
        states = qos_profile(self.rig.qos.joint_states)
        for camera in self.rig.cameras:
            self.create_subscription(Image, camera.image_topic, self._image_callback(camera.name), 2)
        self.create_subscription(JointState, self.arm.joint_states, self._on_joints, states)
        self.create_subscription(WorldState, self.rig.topics.world_state, self._on_world, 10)
        self.create_subscription(ControlState, self.rig.topics.control_state, self._on_control_state, 10)
        self._leader_pub = self.create_publisher(JointState, self.arm.leader_joint_states, states)

    def _create_clients(self) -> None:
        self._start_client = self.create_client(StartEpisode, "/hiwm/start_episode")
        self._end_client = self.create_client(EndEpisodeSrv, "/hiwm/end_episode")
        self._control_client = self.create_client(RequestControl, "/hiwm/request_control")
        self._reset_client = self.create_client(Reset, "/hiwm/reset")
        self._rollback_client = self.create_client(Rollback, "/hiwm/rollback")
        self._branch_client = self.create_client(Branch, "/hiwm/branch")
        self._pause_client = self.create_client(Pause, "/hiwm/pause")

    # -- what it sees -------------------------------------------------------------------------------------------

    def _image_callback(self, camera: str) -> Callable[[Image], None]:
        def on_image(msg: Image) -> None:
            self._joiner.add_image(stamp_to_ns(msg.header.stamp), camera, image_to_array(msg))
            self._look()

        return on_image

    def _on_joints(self, msg: JointState) -> None:
        sample = joint_state_to_sample(msg, self.arm.joint_names)
        self._joiner.add_joints(sample.stamp_ns, sample.positions)
        self._look()

    def _on_world(self, msg: WorldState) -> None:
        place = (int(msg.branch_id), int(msg.snapshot_id), int(msg.step), float(msg.success_probability))
        self._joiner.add_place(stamp_to_ns(msg.header.stamp), place)
        self._look()

    def _on_control_state(self, msg: ControlState) -> None:
        self._driver = Driver(msg.driver)

    def _look(self) -> None:
        world = self.count_publishers(self.rig.topics.world_state) > 0
        frame = self._joiner.pop(with_place=world)
        if frame is None:
            return
        branch, snapshot, step, probability = frame.place or (0, -1, self.counters["frames"], float("nan"))
        time_s = step * self.rig.period_s if world else None
        view = View(
            frame.images, frame.joints, frame.stamp_ns, self._driver, branch, snapshot, step, probability, time_s
        )
        self.counters["frames"] += 1
        self._newest = view
        busy = self._thought is not None or bool(self._todo)
        if not busy:
            self._todo.append(lambda: self.core.observe(view))
            self._think()
        elif self.core.phase in (Phase.WATCH, Phase.CORRECT) and not self._world_waits:
            self.counters["dropped_frames"] += 1
        if self._wants_time(busy):
            self._let_world_wait(True)

    # -- its head -----------------------------------------------------------------------------------------------

    def _think(self) -> None:
        """Collect what the head came to, do it, and give it the next thing to think about."""
        if self._thought is not None and self._thought.done():
            done, self._thought = self._thought, None
            for action in done.result():
                self._do(action)
        if self._thought is None and self._todo:
            self._thought = self._head.submit(self._todo.popleft())

    def _tick(self) -> None:
        """50 Hz: move the leader, collect thoughts, give up on services that do not answer, begin and end episodes."""
        if self.core.moves != self._moves:
            # Counted from when the hand knows where to go: looking takes a while after the frame, and a hand that took
            # the frame for its start would jump back until then.
            self._moves, self._moved_at = self.core.moves, time.monotonic()
        if self._world_waits and not self._wants_time(self._thought is not None):
            self._let_world_wait(False)
        periods = (time.monotonic() - self._moved_at) * self.rig.control_rate_hz
        position = self.core.leader(periods)
        if position is None and self._newest is not None:
            position = self._newest.joints
        if position is not None:
            self._leader_pub.publish(sample_to_joint_state(self.arm.joint_names, position, now_ns(self)))
        self._think()
        self.counters["failed_calls"] += self._calls.give_up()
        if self.core.phase is Phase.IDLE and not self._starting and self._thought is None and not self._todo:
            self._between_episodes()

    def _wants_time(self, busy: bool) -> bool:
        """Whether a person would stop the world now: to think, or where a look takes longer than a frame (``busy``)."""
        return self.core.phase in (Phase.PLAN, Phase.TAKEOVER) or (busy and self.core.phase is Phase.CORRECT)

    def _let_world_wait(self, waits: bool) -> None:
        """Stop or release the time of a rig that can be stopped; what it shows meanwhile is one frame."""
        if waits != self._world_waits and self._pause_client.service_is_ready():
            self._world_waits = waits
            self._calls.call(self._pause_client, Pause.Request(paused=waits), lambda reply: None)

    # -- episodes -----------------------------------------------------------------------------------------------

    def _between_episodes(self) -> None:
        if 0 < self._episodes <= self._finished:
            self.get_logger().info(f"done: {self.core.log.summary()}")
            raise ExternalShutdownException
        if self._newest is None or not self._start_client.service_is_ready():
            return
        self._starting = True
        request = Reset.Request(source="library", seed=self._seed + self._finished)
        self._calls.call(self._reset_client, request, self._start)

    def _start(self, reset: Any) -> None:
        if reset is not None and not reset.success:
            self.get_logger().warning(f"reset refused: {reset.message}")
        request = StartEpisode.Request(task=self._task, note="scripted operator (a stand-in for a person)")
        self._calls.call(self._start_client, request, self._started)

    def _started(self, reply: Any) -> None:
        self._starting = False
        if reply is None or not reply.success:
            self.get_logger().warning(f"no episode: {'no reply' if reply is None else reply.message}")
            return
        stamp = now_ns(self)
        self._joiner.forget(stamp)
        self.core.begin(stamp)

    def _ended(self, reply: Any) -> Sequence[Action]:
        self._finished += 1
        ok = reply is not None and reply.success
        actions = self.core.on_ended(ok, "" if ok else "not ended")
        self._write_log()
        return actions

    def _write_log(self) -> None:
        if self._log_path:
            self.core.log.write(self._log_path, task=self._task, seed=self._seed)

    # -- requests -----------------------------------------------------------------------------------------------

    @singledispatchmethod
    def _do(self, action: Action) -> None:
        raise TypeError(f"the operator asked for {action!r}")

    @_do.register
    def _(self, action: GoBack) -> None:
        request = Rollback.Request(snapshot_id=action.snapshot_id)
        self._calls.call(self._rollback_client, request, self._think_about(self._went_back))

    @_do.register
    def _(self, action: BranchAt) -> None:
        request = Branch.Request(snapshot_id=action.snapshot_id)
        self._calls.call(self._branch_client, request, self._think_about(self._went_back))

    @_do.register
    def _(self, action: AskControl) -> None:
        request = RequestControl.Request(driver=int(action.driver), reason=action.reason)
        self._calls.call(self._control_client, request, self._think_about(self._asked))

    @_do.register
    def _(self, action: EndEpisode) -> None:
        request = EndEpisodeSrv.Request(outcome=int(action.outcome), note=action.note)
        self._calls.call(self._end_client, request, self._think_about(self._ended))

    @_do.register
    def _(self, action: Think) -> None:
        def plan() -> Sequence[Action]:
            rng = np.random.default_rng(action.seed)
            return self.core.on_thought(self.core.skill.plan(action.glimpse, action.joints, action.attempt, rng))

        self._todo.append(plan)

    def _went_back(self, reply: Any) -> Sequence[Action]:
        if reply is None:
            return self.core.on_went_back(False, -1, "no rollback service")
        return self.core.on_went_back(bool(reply.success), int(reply.branch_id), reply.message)

    def _asked(self, reply: Any) -> Sequence[Action]:
        return self.core.on_control(reply is not None and reply.success, "" if reply is None else reply.message)

    def _think_about(self, answer: Callable[[Any], Sequence[Action]]) -> Callable[[Any], None]:
        def on_reply(reply: Any) -> None:
            self._todo.append(lambda: answer(reply))
            self._think()

        return on_reply

    def _diagnostics(self) -> dict[str, Any]:
        return {"phase": self.core.phase.value, **self.counters, **self.core.log.summary()}

    def close(self) -> None:
        """Write the log, whatever happened."""
        self._head.shutdown(wait=True, cancel_futures=True)
        self._write_log()


def _skill(task: str, rig: Rig) -> Skill:
    try:
        return make_skill(task, rig)
    except KeyError as error:
        raise StartupError(str(error.args[0])) from error


def main(args: list[str] | None = None) -> None:
    """Entry point of ``scripted_operator``."""
    sys.exit(run_node(OperatorNode, args))


if __name__ == "__main__":
    main()
