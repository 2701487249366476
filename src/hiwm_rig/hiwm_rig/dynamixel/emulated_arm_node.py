"""An emulated arm as a process of the graph: a STAND-IN for servos, on a port of this ROS domain. No topics but one."""

from __future__ import annotations

import sys
import threading
from typing import Any

from rclpy.node import Node

from hiwm_rig.dynamixel.emulator import Emulator, emulated_bus, emulated_port
from hiwm_rig.dynamixel.ports import part_name
from hiwm_rig.rig_node import DiagnosticsReporter, StartupError, declare_rig, run_node

_PARTS = ("follower", "leader")


class EmulatedArmNode(Node):
    """Serves the ports of all emulated arms of a rig's part, each in a thread; says on diagnostics what it is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("emulated_arm", **kwargs)
        rig = declare_rig(self)
        part = str(self.declare_parameter("part", "follower").value)
        if part not in _PARTS:
            raise StartupError(f"parameter part must be one of {_PARTS}, got '{part}'")
        self._emulators: list[Emulator] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        for arm in rig.arms:
            try:
                emulator = Emulator(emulated_bus(arm, part), emulated_port(part_name(arm, part)))
            except (ValueError, FileExistsError) as error:
                self.close()
                raise StartupError(str(error)) from error
            self._emulators.append(emulator)
            self._threads.append(threading.Thread(target=self._serve, args=(emulator,), daemon=True))
            self._threads[-1].start()
            self.get_logger().info(f"emulated {part} of arm '{arm.name}' (a stand-in for hardware) on {emulator.link}")
        self.create_timer(0.2, self._watch)
        DiagnosticsReporter(self, self._diagnose, rig.topics.diagnostics)

    def _serve(self, emulator: Emulator) -> None:
        try:
            emulator.run()
        except BaseException as error:  # raised by the node's thread, where it is seen
            self._failures.append(error)

    def _watch(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _diagnose(self) -> dict[str, Any]:
        return {
            "stand_in": "emulated servos",
            "ports": ", ".join(str(e.link) for e in self._emulators),
            "instructions": sum(e.bus.instructions for e in self._emulators),
        }

    def close(self) -> None:
        """Remove the ports."""
        for emulator in self._emulators:
            emulator.stop()
        for thread in self._threads:
            thread.join(timeout=1.0)
        for emulator in self._emulators:
            emulator.close()


def main(args: list[str] | None = None) -> None:
    """Entry point of ``emulated_arm``."""
    sys.exit(run_node(EmulatedArmNode, args))


if __name__ == "__main__":
    main()
