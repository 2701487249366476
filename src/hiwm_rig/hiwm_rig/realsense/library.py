"""librealsense, imported when it is first needed: a machine without a camera need not have it."""

from __future__ import annotations

from functools import cache
from typing import Any


class CameraError(RuntimeError):
    """A camera that cannot be used; the text says what to do."""


class CameraMissingError(CameraError):
    """It may come back by itself: not connected, busy, without power. Worth another try."""


class CameraSettingsError(CameraError):
    """It will not heal by itself: a profile the device does not have, a file that is no recording."""


@cache
def realsense() -> Any:
    """The module ``pyrealsense2``.

    Raises:
        CameraSettingsError: not installed, or without the system library it needs.
    """
    try:
        import pyrealsense2
    except ImportError as error:
        raise CameraSettingsError(
            f"pyrealsense2 cannot be imported ({error}): apt install libusb-1.0-0, then "
            "pip install -r requirements/drivers.txt"
        ) from error
    return pyrealsense2
