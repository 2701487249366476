"""The playback of a recorded leader motion as a node: a leader like any other, with the requests an operator makes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hiwm_rig.codecs import NS_PER_S, sample_to_joint_state
from hiwm_rig.rig_node import StartupError, declare_rig, now_ns, qos_profile, run_node
from hiwm_rig.single_publisher import SinglePublisher
from hiwm_rig.types import Driver, Outcome
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import JointState

from hiwm_msgs.msg import ControlState, WorldState
from hiwm_msgs.srv import Branch, EndEpisode, RequestControl, Reset, Rollback, StartEpisode
from hiwm_teleop.playback import Cue, Motion, Phase, Playback, PlaybackError

TICKS_PER_PERIOD = 5
_RETRY_TICKS = 10


class PlaybackNode(Node):
    """Publishes the leader's joint states, and asks for control, rollback and branches."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("leader_playback", **kwargs)
        self.rig = declare_rig(self)
        arm = self.rig.arms[0]
        try:
            motion = Motion.load(str(self.declare_parameter("source", "").value))
        except PlaybackError as error:
            raise StartupError(f"parameter source: {error}") from error
        if motion.joint_names != arm.joint_names:
            raise StartupError(f"the motion has joints {list(motion.joint_names)}, the arm {list(arm.joint_names)}")
        branches = int(self.declare_parameter("branches", 3).value)
        self.tape = Playback(motion, branches, float(self.declare_parameter("seconds", 20.0).value))
        self._only = SinglePublisher(self, arm.leader_joint_states)
        self._driver, self._snapshot = Driver.PAUSED, -1
        self._waiting = False
        self._ticks = 0
        self._publisher = self.create_publisher(
            JointState, arm.leader_joint_states, qos_profile(self.rig.qos.joint_states)
        )
        self.create_subscription(ControlState, self.rig.topics.control_state, self._on_control, 10)
        self.create_subscription(WorldState, self.rig.topics.world_state, self._on_world, 10)
        self._requests: dict[Phase, Callable[[], tuple[type, str, Any]]] = {
            Phase.RESET: lambda: (Reset, "/hiwm/reset", Reset.Request(source="library", seed=motion.start)),
            Phase.BEGIN: lambda: (StartEpisode, "/hiwm/start_episode", StartEpisode.Request(note="leader playback")),
            Phase.ALIGN: lambda: self._control(Driver.HUMAN),
            Phase.BACK: self._back,
            Phase.PAUSE: lambda: self._control(Driver.PAUSED),
            Phase.END: self._end,
        }
        self._calls = {kind: self.create_client(kind, name) for kind, name in self._wanted()}
        self.create_timer(self.rig.period_s / TICKS_PER_PERIOD, self._tick)

    @staticmethod
    def _wanted() -> list[tuple[type, str]]:
        return [
            (Reset, "/hiwm/reset"),
            (StartEpisode, "/hiwm/start_episode"),
            (RequestControl, "/hiwm/request_control"),
            (Rollback, "/hiwm/rollback"),
            (Branch, "/hiwm/branch"),
            (EndEpisode, "/hiwm/end_episode"),
        ]

    def _on_control(self, msg: ControlState) -> None:
        self._driver = Driver(msg.driver)

    def _on_world(self, msg: WorldState) -> None:
        self._snapshot = int(msg.snapshot_id)
        ready = all(client.service_is_ready() for client in self._calls.values())
        if self.tape.phase is Phase.WAIT and ready:
            self._go(Cue.RIG_SEEN)

    def _tick(self) -> None:
        self._ticks += 1
        stamp = now_ns(self)
        before = self.tape.phase
        phase = self.tape.observe(self._driver, self._snapshot, stamp / NS_PER_S)
        position = self.tape.leader(stamp / NS_PER_S)
        self._publisher.publish(sample_to_joint_state(self.tape.motion.joint_names, position, stamp))
        if phase is Phase.DONE:
            raise ExternalShutdownException
        if phase is not before:
            self.get_logger().info(f"{before} -> {phase} (branch {self.tape.branch})")
        # A request is repeated while it is refused: the leader may not be fresh yet.
        if phase in self._requests and not self._waiting and self._ticks % _RETRY_TICKS == 0:
            self._ask()

    def _ask(self) -> None:
        phase = self.tape.phase
        kind, name, request = self._requests[phase]()
        self._waiting = True

        def answered(future: Any) -> None:
            self._waiting = False
            answer = future.result()
            if not answer.success:
                self.get_logger().warning(f"{name} refused: {answer.message}", throttle_duration_sec=1.0)
            elif self.tape.phase is phase and phase is not Phase.ALIGN:
                self._go(Cue.SERVED)

        self._calls[kind].call_async(request).add_done_callback(answered)

    def _go(self, cue: Cue) -> None:
        before = self.tape.phase
        self.get_logger().info(f"{before} -> {self.tape.go(cue)} ({cue})")

    def _control(self, driver: Driver) -> tuple[type, str, Any]:
        return RequestControl, "/hiwm/request_control", RequestControl.Request(driver=int(driver), reason="playback")

    def _back(self) -> tuple[type, str, Any]:
        """The first way back is a rollback, the next ones are branches: both lead to the same snapshot."""
        snapshot = self.tape.middle_snapshot
        if self.tape.branch == 1:
            return Rollback, "/hiwm/rollback", Rollback.Request(snapshot_id=snapshot, steps=0)
        return Branch, "/hiwm/branch", Branch.Request(snapshot_id=snapshot)

    @staticmethod
    def _end() -> tuple[type, str, Any]:
        return EndEpisode, "/hiwm/end_episode", EndEpisode.Request(outcome=int(Outcome.UNKNOWN), note="tape ended")


def main(args: list[str] | None = None) -> None:
    """Entry point of ``leader_playback``."""
    sys.exit(run_node(PlaybackNode, args))


if __name__ == "__main__":
    main()
