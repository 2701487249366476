"""One deliberately wrong rig for each check of the conformance suite, by the name of the check it must fail."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from hiwm_rig.codecs import array_to_image, ns_to_stamp, stamp_to_ns
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from toy_rig import RIG, Fault, ToyRig, edit
from trajectory_msgs.msg import JointTrajectory

BEST_EFFORT = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=2, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NS = 1_000_000_000
ARM, CAMERA = RIG.arms[0], RIG.cameras[0]


def setting(method: str, **fields: Any) -> Fault:
    """Messages with other values in these fields."""

    def change(msg: Any) -> Any:
        for name, value in fields.items():
            setattr(msg, name, value)
        return msg

    return lambda rig: edit(rig, method, change)


def frame_id(method: str, name: str) -> Fault:
    def change(msg: Any) -> Any:
        msg.header.frame_id = name
        return msg

    return lambda rig: edit(rig, method, change)


def stamped(method: str, shift_s: Callable[[int], float]) -> Fault:
    """Messages with stamps off by seconds that depend on the rig's tick."""

    def fault(rig: ToyRig) -> None:
        def change(msg: Any) -> Any:
            msg.header.stamp = ns_to_stamp(stamp_to_ns(msg.header.stamp) + round(shift_s(rig.tick) * NS))
            return msg

        edit(rig, method, change)

    return fault


def seldom(method: str, every: int) -> Fault:
    """Only every n-th message; the tick of pictures is even."""

    def fault(rig: ToyRig) -> None:
        edit(rig, method, lambda msg: msg if rig.tick // 2 % every == 0 else None)

    return fault


def second_publisher(kind: Any, topic: str) -> Fault:
    def fault(rig: ToyRig) -> None:
        original = rig._open

        def opened(domain: int) -> None:
            original(domain)
            rig.node.create_publisher(kind, topic, 10)

        rig._open = opened  # type: ignore[method-assign]

    return fault


def attribute(path: str, value: Any) -> Fault:
    """Another value of an attribute, ``types.image`` for instance."""

    def fault(rig: ToyRig) -> None:
        *parents, last = path.split(".")
        owner: Any = rig
        for name in parents:
            owner = getattr(owner, name)
        setattr(owner, last, value)

    return fault


def commands_itself(rig: ToyRig) -> None:
    original, publisher = rig._open, []

    def opened(domain: int) -> None:
        original(domain)
        publisher.append(rig.node.create_publisher(JointTrajectory, ARM.command, 1))
        rig.node.create_timer(0.1, lambda: publisher[0].publish(JointTrajectory()))

    rig._open = opened  # type: ignore[method-assign]


def silent_info(rig: ToyRig) -> None:
    rig.types.info = String
    rig.info = lambda stamp: String()  # type: ignore[method-assign,assignment,return-value]


def other_size_image(rig: ToyRig) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    rig.picture = lambda stamp: array_to_image(pixels, stamp, CAMERA.frame_id)  # type: ignore[method-assign]


def black(rig: ToyRig) -> None:
    pixels = np.zeros((24, 32, 3), np.uint8)
    rig.picture = lambda stamp: array_to_image(pixels, stamp, CAMERA.frame_id)  # type: ignore[method-assign]


def ill(rig: ToyRig) -> None:
    original = rig.report

    def report() -> None:
        publish = rig.diagnostics_pub.publish

        def worse(msg: Any) -> None:
            msg.status[0].level = b"\x02"
            publish(msg)

        rig.diagnostics_pub = type("Publisher", (), {"publish": staticmethod(worse)})()
        original()
        rig.diagnostics_pub = type("Publisher", (), {"publish": staticmethod(publish)})()

    rig.report = report  # type: ignore[method-assign]


# -- motion ---------------------------------------------------------------------------------------------------------


def taking(change: Callable[[ToyRig, JointTrajectory], JointTrajectory | None]) -> Fault:
    """Commands changed before they are judged; None: not taken at all."""

    def fault(rig: ToyRig) -> None:
        original = rig.take

        def take(msg: JointTrajectory) -> None:
            changed = change(rig, deepcopy(msg))
            if changed is not None:
                original(changed)

        rig.take = take  # type: ignore[method-assign]

    return fault


def points(change: Callable[[ToyRig, JointTrajectory], Any]) -> Fault:
    """Commands whose points are changed in place."""

    def changed(rig: ToyRig, msg: JointTrajectory) -> JointTrajectory:
        change(rig, msg)
        return msg

    return taking(changed)


def every_position(change: Callable[[ToyRig, np.ndarray], np.ndarray]) -> Fault:
    """Commands with other positions."""

    def changed(rig: ToyRig, msg: JointTrajectory) -> None:
        for point in msg.points:
            point.positions = change(rig, np.array(point.positions)).tolist()

    return points(changed)


def clip(rig: ToyRig, positions: np.ndarray) -> np.ndarray:
    lower, upper = np.array([[j.lower, j.upper] for j in ARM.joints]).T
    return np.clip(positions, lower, upper)


def delayed(rig: ToyRig) -> None:
    """Later than the check allows, but soon enough that the suite finds the arm where it has sent it."""
    original, waiting = rig.aim, []
    take = rig.take

    def aim(now: int) -> np.ndarray:
        while waiting and now - waiting[0][0] > 0.3 * NS:
            msg = waiting.pop(0)[1]
            msg.header.stamp = ns_to_stamp(0)
            take(msg)
        return original(now)

    rig.aim = aim  # type: ignore[method-assign]
    rig.take = lambda msg: waiting.append((rig.now(), msg))  # type: ignore[method-assign]


def drifting(rig: ToyRig) -> None:
    """A joint beside the one that the suite moves: the arm can be brought to rest there."""
    edit(rig, "aim", lambda target: target + [0.0, 0.05 * np.sin(rig.tick / 5), 0.0])


def goes_home_when_stale(rig: ToyRig) -> None:
    def aim(now: int) -> np.ndarray:
        target = rig.receiver.target(now, now)
        return target.positions if target.fresh else np.array(ARM.home)

    rig.aim = aim  # type: ignore[method-assign]


def queues(rig: ToyRig) -> None:
    """Finishes one chunk before it takes the next."""
    original, busy_until = rig.take, [0]

    def take(msg: JointTrajectory) -> None:
        if rig.now() < busy_until[0] or not msg.points:
            return
        busy_until[0] = rig.now() + stamp_to_ns(msg.points[-1].time_from_start)
        original(msg)

    rig.take = take  # type: ignore[method-assign]


def jumps(rig: ToyRig) -> None:
    rig.move = lambda target, passed_s: target.copy()  # type: ignore[method-assign]


def backward_velocity(rig: ToyRig) -> None:
    def change(msg: JointState) -> JointState:
        msg.velocity = [-v for v in msg.velocity]
        return msg

    edit(rig, "state", change)


def positional(rig: ToyRig, msg: JointTrajectory) -> None:
    msg.joint_names = list(ARM.joint_names)


def last_point_missing(rig: ToyRig, msg: JointTrajectory) -> None:
    if len(msg.points) > 2:  # a straight line is what brings the arm back between checks
        msg.points = msg.points[:-1]


def only_the_end(rig: ToyRig, msg: JointTrajectory) -> None:
    msg.points = msg.points[-1:]


def rushed(rig: ToyRig, msg: JointTrajectory) -> None:
    for i, point in enumerate(msg.points):
        point.time_from_start.sec, point.time_from_start.nanosec = 0, (i + 1) * 50_000_000


# -- rejections -----------------------------------------------------------------------------------------------------


def nan_is_zero(rig: ToyRig, positions: np.ndarray) -> np.ndarray:
    return np.nan_to_num(positions, nan=0.0, posinf=np.inf, neginf=-np.inf)


def known_only(rig: ToyRig, msg: JointTrajectory) -> None:
    keep = [i for i, name in enumerate(msg.joint_names) if name in ARM.joint_names]
    msg.joint_names = [msg.joint_names[i] for i in keep]
    for point in msg.points:
        point.positions = [point.positions[i] for i in keep]


def fills_in(rig: ToyRig, msg: JointTrajectory) -> None:
    values = dict(zip(ARM.joint_names, rig.position, strict=True))
    for point in msg.points:
        point.positions = list((values | dict(zip(msg.joint_names, point.positions, strict=False))).values())
    msg.joint_names = list(ARM.joint_names)


def pads(rig: ToyRig, msg: JointTrajectory) -> None:
    for point in msg.points:
        point.positions = [*point.positions, *rig.position[len(point.positions) :]]


def sorts(rig: ToyRig, msg: JointTrajectory) -> None:
    msg.points = sorted(msg.points, key=lambda p: stamp_to_ns(p.time_from_start))


def restamps(rig: ToyRig, msg: JointTrajectory) -> None:
    msg.header.stamp = ns_to_stamp(0)


def after_a_rejection(react: Callable[[ToyRig], None]) -> Fault:
    def fault(rig: ToyRig) -> None:
        def take(msg: JointTrajectory) -> None:
            if rig.receiver.offer_message(msg, rig.now()) is not None:
                react(rig)

        rig.take = take  # type: ignore[method-assign]

    return fault


def stop_here(rig: ToyRig) -> None:
    rig.receiver.hold(rig.position)


def deaf(rig: ToyRig) -> None:
    rig.receiver.hold(rig.position)
    rig.take = lambda msg: None  # type: ignore[method-assign]
    rig.receiver.offer_message = lambda msg, now: None  # type: ignore[method-assign,assignment]


def does_not_count(rig: ToyRig) -> None:
    rig.receiver.counters = type("Nothing", (dict,), {"__missing__": lambda self, key: 0})()  # type: ignore[assignment]
    rig.report = lambda: None  # type: ignore[method-assign]


# -- lifecycle ------------------------------------------------------------------------------------------------------


def refuses_resets(rig: ToyRig) -> None:
    edit(rig, "on_reset", lambda response: setattr(response, "success", False) or response)


def grants_all_resets(rig: ToyRig) -> None:
    edit(rig, "on_reset", lambda response: setattr(response, "success", True) or response)


def somewhere_else(rig: ToyRig) -> None:
    def restore() -> None:
        rig.position = np.array(ARM.home) + [0.1 * (rig.resets % 2), 0.0, 0.0]
        rig.receiver.hold(rig.position)

    rig.restore = restore  # type: ignore[method-assign]


def remembers(rig: ToyRig) -> None:
    rig.restore = lambda: setattr(rig, "position", np.array(ARM.home))  # type: ignore[method-assign]


def outside(rig: ToyRig) -> None:
    def change(msg: JointState) -> JointState:
        msg.position[2] = 0.3
        return msg

    edit(rig, "state", change)


def in_the_past(rig: ToyRig) -> None:
    for method in ("state", "picture"):
        stamped(method, lambda tick: -100.0)(rig)


# -- rigs that fail everything, and so prove nothing ----------------------------------------------------------------


def silent(rig: ToyRig) -> None:
    """Everything is there, nothing comes."""
    rig.emit_state = lambda stamp: None  # type: ignore[method-assign]
    rig.emit_picture = lambda stamp: None  # type: ignore[method-assign]


def crashed(rig: ToyRig) -> None:
    """Never was there."""
    rig._open = lambda domain: None  # type: ignore[method-assign]
    rig._spin = lambda: None  # type: ignore[method-assign]
    rig.close = lambda: None  # type: ignore[method-assign]


BASELINE = ("image_encoding", "joint_names")
"""Checks that a wrong rig passes: its pictures and joint states come, and are those of the contract."""

BASELINES: dict[str, tuple[str, ...]] = {
    "image_encoding": ("image_frame_id", "joint_names"),
    "joint_names": ("image_encoding", "joint_state_sizes"),
    # What is wrong is that nothing of it reaches a subscriber with the contract's quality of service.
    "image_qos": ("image_topics", "joint_names"),
    "joint_state_qos": ("image_encoding", "joint_state_topics"),
    # A commander that stayed has been obeyed before.
    "restart_obeys_running_users": (*BASELINE, "single_point_reached"),
}
"""Others, for rigs that are wrong in just that."""

AFTER_RESTART: dict[str, Fault] = {
    "restart_is_seen_by_running_users": attribute("emit_picture", lambda stamp: None),
    "restart_keeps_stamps_increasing": in_the_past,
    "restart_obeys_running_users": attribute("listens", False),
}
"""What is wrong with a rig that was restarted; before it, it was correct."""

FAULTS: dict[str, Fault] = {
    "image_topics": second_publisher(Image, CAMERA.image_topic),
    "camera_info_topics": silent_info,
    "joint_state_topics": second_publisher(JointState, ARM.joint_states),
    "command_topics": attribute("listens", False),
    "nobody_else_commands": commands_itself,
    "diagnostics_topic": attribute("publishes_diagnostics", False),
    "image_qos": attribute("qos.image", BEST_EFFORT),
    "camera_info_qos": attribute("qos.info", BEST_EFFORT),
    "joint_state_qos": attribute("qos.state", BEST_EFFORT),
    "command_qos": attribute("qos.command", LATCHED),
    "sim_time_has_a_clock": attribute("use_sim_time", True),
    "image_encoding": setting("picture", encoding="bgr8"),
    "image_frame_id": frame_id("picture", "eye_optical_frame"),
    "image_size": other_size_image,
    "image_bytes": setting("picture", step=128),
    "image_shows_something": black,
    "image_rate": seldom("picture", 3),
    "image_jitter": stamped("picture", lambda tick: 0.3 * (tick // 2 % 2)),
    "image_stamps_increase": stamped("picture", lambda tick: -0.2 * (tick // 2 % 3)),
    "image_stamps_are_now": stamped("picture", lambda tick: -1.0),
    "images_and_joint_states_pair": stamped("state", lambda tick: -5.0),
    "camera_info_size": setting("info", width=64),
    "camera_info_frame_id": frame_id("info", "eye_frame"),
    "camera_info_for_each_image": stamped("info", lambda tick: 0.001),
    "camera_info_distortion": setting("info", distortion_model="equidistant"),
    "camera_info_intrinsics": setting("info", k=[0.0] * 9, p=[0.0] * 12),
    "camera_info_rectification": setting("info", r=[0.0] * 9),
    "camera_info_projection": setting("info", p=[1.0] * 12),
    "joint_names": setting("state", name=["c", "b", "a"]),
    "joint_state_sizes": setting("state", velocity=[]),
    "joint_values_finite": setting("state", velocity=[0.0, float("nan"), 0.0]),
    "joint_positions_inside_limits": outside,
    "joint_state_rate": seldom("state", 3),
    "joint_state_jitter": stamped("state", lambda tick: 0.25 * (tick % 2)),
    "joint_state_stamps_increase": stamped("state", lambda tick: -0.2 * (tick % 3)),
    "joint_state_stamps_are_now": stamped("state", lambda tick: 1.0),
    "diagnostics_come": attribute("report", lambda: None),
    "diagnostics_are_well": ill,
    "stands_still_without_a_command": drifting,
    "single_point_reached": every_position(lambda rig, p: rig.position + 0.5 * (p - rig.position)),
    "latency_of_a_command": delayed,
    "stamp_of_zero_means_now": taking(lambda rig, msg: msg if stamp_to_ns(msg.header.stamp) else None),
    "joints_in_any_order": points(positional),
    "chunk_reaches_its_end": points(last_point_missing),
    "chunk_is_interpolated": points(only_the_end),
    "chunk_is_held_at_its_end": goes_home_when_stale,
    "running_chunk_is_replaced": queues,
    "velocity_limit_kept": jumps,
    "velocities_are_those_of_the_motion": backward_velocity,
    "holds_when_the_commander_dies": goes_home_when_stale,
    "future_chunk_waits": points(rushed),
    "nan_rejected": every_position(nan_is_zero),
    "infinity_rejected": every_position(clip),
    "unknown_joint_rejected": points(known_only),
    "missing_joint_rejected": points(fills_in),
    "repeated_joint_rejected": points(fills_in),
    "wrong_size_rejected": points(pads),
    "times_must_increase": points(sorts),
    "stale_stamp_rejected": points(restamps),
    "above_the_limit_rejected": every_position(clip),
    "below_the_limit_rejected": every_position(clip),
    "late_point_outside_rejected": every_position(clip),
    "bad_command_leaves_the_running_chunk": after_a_rejection(stop_here),
    "empty_command_leaves_the_running_chunk": after_a_rejection(stop_here),
    "rejections_are_reported": does_not_count,
    "obeys_again_after_rejections": after_a_rejection(deaf),
    "reset_succeeds": refuses_resets,
    "reset_refuses_an_unknown_source": grants_all_resets,
    "reset_is_repeatable": somewhere_else,
    "reset_forgets_the_command": remembers,
    "limits_kept_throughout": outside,
}
