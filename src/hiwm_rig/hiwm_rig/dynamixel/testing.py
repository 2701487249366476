"""For tests: the emulator of an arm in a thread of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiwm_rig.contract import Arm
from hiwm_rig.dynamixel.emulator import Emulator, emulated_bus, send_order, serving


class EmulatedArm:
    """A running emulator and what tests ask of it."""

    def __init__(self, link: Path) -> None:
        """Args: link: path of its port."""
        self.link = link

    @property
    def port(self) -> str:
        """The serial port."""
        return str(self.link)

    def order(self, text: str) -> str:
        """Give an order, see :data:`hiwm_rig.dynamixel.emulator.ORDERS`; the answer."""
        return send_order(self.link, text)

    def state(self) -> dict[int, Any]:
        """Servo id -> registers."""
        return {int(k): v for k, v in json.loads(self.order("state")).items()}


@contextmanager
def emulated_arm(
    arm: Arm, folder: Path, part: str = "follower", firmware: int = 48
) -> Iterator[tuple[EmulatedArm, Emulator]]:
    """A running emulator of an arm's servos: what to order it, and its inside."""
    emulator = Emulator(emulated_bus(arm, part, firmware), folder / part)
    with serving(emulator):
        thread = threading.Thread(target=emulator.run, daemon=True)
        thread.start()
        try:
            yield EmulatedArm(emulator.link), emulator
        finally:
            emulator.stop()
            thread.join()
