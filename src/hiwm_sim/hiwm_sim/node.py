"""The physics rig behind the topics and services of a rig. Messages to values and back; time is the wall clock."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from hiwm_rig.rig_node import (
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

from hiwm_msgs.srv import Pause, Reset
from hiwm_sim.rig import SimRig
from hiwm_sim.scene import SceneError


class SimRigNode(Node):
    """Publishes what the simulated rig shows, obeys joint commands, serves reset and pause."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sim_rig", **kwargs)
        rig = declare_rig(self)
        task = str(self.declare_parameter("task", rig.task).value) or rig.task
        self._seed = int(self.declare_parameter("seed", 0).value)
        variation = str(self.declare_parameter("variation", "default").value) or "default"
        wrist = bool(self.declare_parameter("wrist_camera", False).value)
        discovery_s = float(self.declare_parameter("discovery_s", 1.0).value)
        self._only = SinglePublisher(self, rig.cameras[0].image_topic, discovery_s)
        try:
            self.env = SimRig(rig, task, visual=variation, wrist=wrist)
        except (SceneError, KeyError) as error:
            raise StartupError(str(error.args[0])) from error
        self.rig = self.env.rig
        self._paused = False
        self._last_stamp_ns = 0
        self._out = RigPublisher(self, self.rig)
        self._commands = RigCommands(self, self.rig)
        self.create_service(Reset, "/hiwm/reset", self._on_reset)
        self.create_service(Pause, "/hiwm/pause", self._on_pause)
        DiagnosticsReporter(self, self._diagnose, self.rig.topics.diagnostics)
        self._reset(self._seed)
        self._deadlines = Deadlines(self.rig.period_s, time.monotonic())
        self._timer = self.create_timer(self.rig.period_s, self._tick)
        self.get_logger().info(f"sim rig ready: task {self.env.task.name}, seed {self._seed}, looks {variation}")

    def _tick(self) -> None:
        self._deadlines.begin(time.monotonic())
        stamp = self._next_stamp()
        target = self._commands.target(stamp, now_ns(self))
        observation = self.env.observe() if self._paused else self.env.step(target)
        self._publish(observation, stamp)
        self._deadlines.end(time.monotonic())

    def _next_stamp(self) -> int:
        """Stamp of the next frame; strictly increasing."""
        return max(now_ns(self), self._last_stamp_ns + 1)

    def _publish(self, observation: Observation, stamp: int) -> None:
        self._last_stamp_ns = stamp
        self._out.publish(replace(observation, stamp_ns=stamp))

    def _reset(self, seed: int) -> None:
        """Show the initial state of ``seed`` at once and forget the command in force."""
        self._seed = seed
        observation = self.env.reset(seed)
        self._commands.hold(observation.joints)
        self._publish(observation, self._next_stamp())

    def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        if request.source not in ("", "library"):
            response.success = False
            response.message = f"source: the sim rig starts from a seed ('library'), got '{request.source}'"
            return response
        self._reset(int(request.seed) if request.seed >= 0 else self._seed + 1)
        self._timer.reset()
        self._deadlines.restart(time.monotonic())
        response.success, response.message = True, f"initial state of seed {self._seed}"
        return response

    def _on_pause(self, request: Pause.Request, response: Pause.Response) -> Pause.Response:
        self._paused = bool(request.paused)
        response.success, response.message = True, "paused" if self._paused else "running"
        return response

    def _diagnose(self) -> dict[str, Any]:
        return {
            **self._commands.counters(),
            "ticks": self._deadlines.ticks,
            "missed_ticks": self._deadlines.missed,
            "tick_ms_p50": round(self._deadlines.duration_ms(50), 2),
            "tick_ms_p99": round(self._deadlines.duration_ms(99), 2),
            "last_rejection": self._commands.last_rejection(),
            "task": self.env.task.name,
            "seed": self._seed,
            "paused": self._paused,
        }

    def close(self) -> None:
        """Free the renderers."""
        self.env.close()


def main(args: list[str] | None = None) -> None:
    """Entry point of ``sim_rig``."""
    sys.exit(run_node(SimRigNode, args))


if __name__ == "__main__":
    main()
