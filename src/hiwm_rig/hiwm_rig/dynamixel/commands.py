"""Command line of the Dynamixel drivers: ``hiwm emulate arm``, ``hiwm emulate order``, ``hiwm calibrate``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from importlib import resources
from pathlib import Path
from types import FrameType

from hiwm_rig.contract import Arm, RigFileError, load_rig
from hiwm_rig.files import write_text

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_PARTS = ("follower", "leader")


class UsageError(ValueError):
    """Arguments that cannot be used; the text says what was expected."""


def _add_part(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rig-file", default="push_t", help="shipped rig file or path of one")
    parser.add_argument("--arm", default="", help="name of the arm in the rig file (default: the first)")
    parser.add_argument("--part", choices=_PARTS, default="follower", help="which of its arms")


def _arm(args: argparse.Namespace) -> Arm:
    try:
        rig = load_rig(args.rig_file)
    except RigFileError as error:
        raise UsageError(str(error)) from error
    found = [a for a in rig.arms if args.arm in ("", a.name)]
    if not found:
        raise UsageError(f"rig '{rig.name}' has no arm '{args.arm}'; it has {[a.name for a in rig.arms]}")
    arm = found[0]
    if arm.hardware is None or (args.part == "leader" and arm.hardware.leader is None):
        raise UsageError(f"arm '{arm.name}' has no section hardware.{args.part} in {args.rig_file}")
    return arm


def add_emulate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm emulate arm``."""
    _add_part(parser)
    parser.add_argument("--link", type=Path, help="path of the port (default: where 'hiwm up' looks for it)")
    parser.add_argument("--firmware", type=int, default=48, help="of the servos; below 45 without fast sync read")


def run_emulate(args: argparse.Namespace) -> int:
    """Serve an emulated arm until Ctrl-C."""
    from hiwm_rig.dynamixel.emulator import Emulator, emulated_bus, emulated_port, serving
    from hiwm_rig.dynamixel.ports import part_name

    try:
        arm = _arm(args)
        link = args.link or emulated_port(part_name(arm, args.part))
        emulator = Emulator(emulated_bus(arm, args.part, args.firmware), link)
    except (UsageError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE

    def stop(number: int, frame: FrameType | None) -> None:
        emulator.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"emulated {args.part} of arm '{arm.name}', a stand-in for servos, on {link}; Ctrl-C stops it", flush=True)
    print(f"orders: hiwm emulate order --link {link} missing 3", flush=True)
    with serving(emulator):
        emulator.run()
    return EXIT_OK


def add_order_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm emulate order``."""
    from hiwm_rig.dynamixel.emulator import ORDERS

    parser.add_argument("--link", type=Path, required=True, help="port of the emulated arm")
    parser.add_argument("order", nargs="+", metavar="WORD", help=f"one of {', '.join(ORDERS)}, and its values")


def run_order(args: argparse.Namespace) -> int:
    """Give a running emulator an order."""
    from hiwm_rig.dynamixel.emulator import OrderError, send_order

    try:
        print(send_order(args.link, " ".join(args.order)))
    except (OrderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_OK


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm calibrate``."""
    _add_part(parser)
    parser.add_argument("--port", default="", help="serial port (default: the rig file's)")
    parser.add_argument("--out", type=Path, required=True, help="rig file to write")


def run_calibrate(args: argparse.Namespace) -> int:
    """Measure zeros and ends of an arm by hand, and write a rig file."""
    from hiwm_rig.dynamixel.bus import BusError

    try:
        return _calibrate(args, _arm(args))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED


def _calibrate(args: argparse.Namespace, arm: Arm) -> int:
    from hiwm_rig.dynamixel import calibration
    from hiwm_rig.dynamixel.bus import Bus

    assert arm.hardware is not None
    config = arm.hardware.leader if args.part == "leader" else arm.hardware.follower
    assert config is not None
    with Bus(args.port or config.port, config.baud, config.motors, config.latency_ms) as bus:
        bus.check()
        _ask("The torque goes off now: hold the arm, then press Enter.")
        calibration.read_zero(bus)
        _ask("Bring every joint to its zero (gripper closed, lever released), then press Enter.")
        zero = calibration.read_zero(bus)
        asking = threading.Thread(target=_ask, args=(_TRAVEL,), daemon=True)
        asking.start()
        travel = calibration.record_travel(bus, lambda: not asking.is_alive())
        measured = calibration.judge(bus, zero, travel)
    text, _ = calibration.apply(_text(args.rig_file), str(args.rig_file), arm.name, args.part, measured)
    write_text(args.out, text)
    for motor, offset, (low, high) in zip(config.motors, zero, measured.limits, strict=True):
        print(f"  {motor.joint:<14} zero {offset:5d}   limits {low:5d} .. {high:5d}")
    print(f"written: {args.out}; use it with rig_file:={args.out}")
    return EXIT_OK


_TRAVEL = "Move every joint from one end to the other, one after another, then press Enter."


def _ask(text: str) -> None:
    print(text, flush=True)
    sys.stdin.readline()


def _text(source: str) -> str:
    if source.endswith((".yaml", ".yml")):
        return Path(source).read_text(encoding="utf-8")
    return resources.files("hiwm_rig").joinpath("rigs", f"{source}.yaml").read_text(encoding="utf-8")
