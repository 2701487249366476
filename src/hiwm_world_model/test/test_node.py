"""The virtual-robot node over DDS: a drop-in rig that can roll back, survives kill -9, and refuses what cannot work."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from hiwm_bringup.testing import unique_domain
from hiwm_rig.codecs import stamp_to_ns
from hiwm_rig.contract import load_rig
from hiwm_rig.rig_node import StartupError
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.node import WorldRigNode
from rclpy.parameter import Parameter
from ros_client import Process, RigUser
from tiny_world_model import TinyWorldModel, node_command, tiny_frames

from hiwm_msgs.msg import EpisodeEvent
from hiwm_msgs.srv import Branch, ListSnapshots, Pause, Reset, Rollback, Step

RIG = load_rig("push_t")
pytestmark = pytest.mark.timeout(240)  # processes that start on a busy machine
HOME = np.array(RIG.home)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    TinyWorldModel.make(seed=3).save(directory)
    starts = [tiny_frames(seed=i) for i in range(3)]
    images = {"front": np.stack([s[0]["front"] for s in starts])}
    StartLibrary(images, np.stack([s[1] for s in starts]), np.arange(3)).save(directory)
    return directory


@pytest.fixture(scope="module")
def wall(model_dir: Path) -> Iterator[RigUser]:
    with unique_domain() as domain:
        process, user = Process(node_command(f"model:={model_dir}"), domain), RigUser(RIG, domain)
        yield user
        user.close()
        assert process.stop() == 0


@pytest.fixture
def lockstep(model_dir: Path) -> Iterator[RigUser]:
    command = node_command(f"model:={model_dir}", "time_mode:=lockstep", "step_on_command:=true")
    with unique_domain() as domain:
        process, user = Process(command, domain), RigUser(RIG, domain)
        yield user
        user.close()
        process.stop()


def test_every_tick_shows_camera_calibration_joints_and_state_with_one_stamp(wall: RigUser) -> None:
    wall.next("world", 5)
    stamps = {k: {s for kind, s, _ in wall.log if kind == k} for k in ("image", "info", "joints", "world")}
    common = set.intersection(*stamps.values())
    assert len(common) >= 4
    image, joints = wall.of("image")[-1], wall.of("joints")[-1]
    assert (image.encoding, image.height, image.width, image.header.frame_id) == (
        "rgb8",
        128,
        128,
        "front_color_optical_frame",
    )
    assert tuple(joints.name) == RIG.joint_names and len(joints.velocity) == 7
    steps = np.diff(sorted(common)) / 1e9
    assert abs(np.median(steps) - 0.1) < 0.02


def test_the_arm_follows_commands_and_wrong_ones_are_rejected_with_a_reason(wall: RigUser) -> None:
    goal = HOME.copy()
    goal[0] = 0.2
    for _ in range(8):
        wall.command(goal)
        wall.next("joints")
    assert abs(wall.of("joints")[-1].position[0] - 0.2) < 0.02
    before = wall.diagnostics()
    names = RIG.joint_names
    wrong = [(np.full(7, np.nan), names), (HOME + 10.0, names), (HOME, ("nobody", *names[1:])), (HOME[:3], names[:3])]
    for positions, joints in wrong:
        wall.command(positions, joints)
        wall.next("joints", 2)
    wall.until(lambda: int(wall.diagnostics()["rejected_malformed"]) >= int(before["rejected_malformed"]) + 2)
    after = wall.diagnostics()
    assert int(after["rejected_not_finite"]) == int(before["rejected_not_finite"]) + 1
    assert int(after["rejected_out_of_limits"]) == int(before["rejected_out_of_limits"]) + 1
    assert "lacks joints" in after["last_rejection"]
    assert abs(wall.next("joints").position[0] - 0.2) < 0.02, "the last valid target is held"


def test_a_rollback_announces_itself_and_shows_the_frame_of_its_snapshot_at_once(wall: RigUser) -> None:
    wall.events.publish(EpisodeEvent(type=EpisodeEvent.BEGIN, episode_id="e1", task="push_t"))
    wall.until(lambda: wall.of("world") and wall.of("world")[-1].episode_id == "e1")
    wall.next("world", 6)
    frames = {stamp_to_ns(m.header.stamp): m.data.tobytes() for m in wall.of("image")}
    by_snapshot = {m.snapshot_id: frames.get(stamp_to_ns(m.header.stamp)) for m in wall.of("world")}
    seen = len(wall.log)
    answer = wall.call(Rollback, "/hiwm/rollback", snapshot_id=-1, steps=3)
    assert answer.success, answer.message
    wall.until(lambda: any(k == "image" and s > jump_stamp(wall, seen) for k, s, _ in wall.log[seen:]))
    event = next(m for k, _, m in wall.log[seen:] if k == "event")
    assert (event.type, event.episode_id, event.branch_id) == (EpisodeEvent.ROLLBACK, "e1", answer.branch_id)
    assert event.snapshot_id == answer.snapshot.id
    first = next(m for k, s, m in wall.log[seen:] if k == "image" and s > stamp_to_ns(event.header.stamp))
    assert first.data.tobytes() == by_snapshot[answer.snapshot.id]
    kinds = [k for k, s, _ in wall.log[seen:] if k == "event" or s > stamp_to_ns(event.header.stamp)]
    assert kinds.index("event") < kinds.index("image")


def jump_stamp(user: RigUser, since: int) -> float:
    return next((s for k, s, _ in user.log[since:] if k == "event"), float("inf"))


def test_snapshots_can_be_listed_branched_from_and_the_world_paused_and_reset(wall: RigUser) -> None:
    listed = wall.call(ListSnapshots, "/hiwm/list_snapshots", branch_id=-1, limit=3)
    assert len(listed.snapshots) == 3 and listed.total > 3
    target = listed.snapshots[-1].id
    branched = wall.call(Branch, "/hiwm/branch", snapshot_id=target)
    assert branched.success and branched.snapshot.id == target
    refused = wall.call(Branch, "/hiwm/branch", snapshot_id=10**9)
    assert not refused.success and "no snapshot" in refused.message

    assert wall.call(Pause, "/hiwm/pause", paused=True).success
    wall.next("world", 2)
    still = wall.next("world")
    assert still.paused and wall.next("world").snapshot_id == still.snapshot_id, "frames go on, time does not"
    wall.call(Pause, "/hiwm/pause", paused=False)

    assert wall.call(Reset, "/hiwm/reset", seed=1).success
    assert wall.until(lambda: next((m for m in wall.of("world") if m.step == 0), None))
    for source, path, text in (
        ("bag", "/nowhere", "cannot start"),
        ("live", "", "live_prefix"),
        ("moon", "", "expected"),
    ):
        refused = wall.call(Reset, "/hiwm/reset", source=source, path=path)
        assert not refused.success and text in refused.message
    assert not wall.call(Step, "/hiwm/step", steps=1).success, "a wall-clock rig is not stepped"


def test_a_second_instance_on_the_same_topics_is_refused(wall: RigUser, model_dir: Path) -> None:
    wall.next("image")
    second = Process(node_command(f"model:={model_dir}"), wall.domain)
    output = second.output_after_exit()
    assert second.popen.returncode == 2
    assert "already published by" in output and "Traceback" not in output


def test_lockstep_advances_on_request_only_and_its_clock_never_runs_backwards(lockstep: RigUser) -> None:
    def wave(i: int) -> np.ndarray:
        return HOME + 0.1 * np.sin(i + np.arange(7)) * np.array([1, 1, 1, 1, 1, 1, 0])

    def frame(step: int, since: int = 0) -> bytes:
        """The image of control step ``step``; best-effort topics may show it before or after the world state."""

        def shown() -> bytes | None:
            stamps = {s for k, s, m in lockstep.log[since:] if k == "world" and m.step == step}
            return next((m.data.tobytes() for k, s, m in lockstep.log[since:] if k == "image" and s in stamps), None)

        found: bytes = lockstep.until(shown)
        return found

    lockstep.call(Step, "/hiwm/step", steps=1)
    frame(1)
    frames = []
    for i in range(6):
        lockstep.command(wave(i))
        frames.append(frame(2 + i))
    # back to the state before the third command: the same command shows the same frame, bit for bit
    since = len(lockstep.log)
    answer = lockstep.call(Rollback, "/hiwm/rollback", snapshot_id=-1, steps=4)
    assert frame(3, since) == frames[1]
    lockstep.command(wave(2))
    assert frame(4, since) == frames[2]
    assert answer.snapshot.step == 3
    clock = [stamp_to_ns(m.clock) for m in lockstep.of("clock")]
    assert (np.diff(clock) > 0).all(), "a rollback is a new branch in time"
    count = len(lockstep.of("image"))
    for _ in range(10):
        lockstep.executor.spin_once(timeout_sec=0.02)
    assert len(lockstep.of("image")) == count


@pytest.fixture
def domain() -> Iterator[int]:
    with unique_domain() as number:
        yield number


def test_kill_9_and_a_restart_resume_the_tree(model_dir: Path, tmp_path: Path, domain: int) -> None:
    command = node_command(f"model:={model_dir}", f"journal:={tmp_path / 'session.db'}")
    process, user = Process(command, domain), RigUser(RIG, domain)
    user.next("world", 8, timeout=90)
    assert user.call(Rollback, "/hiwm/rollback", snapshot_id=-1, steps=2).success
    user.next("world", 3)
    process.kill()
    last = user.of("world")[-1]
    frames = {stamp_to_ns(m.header.stamp): m.data.tobytes() for m in user.of("image")}
    stamps = {m.snapshot_id: stamp_to_ns(m.header.stamp) for m in user.of("world")}
    user.log.clear()
    process = Process(command, domain)
    try:
        again = user.next("world", timeout=90)
        assert again.snapshot_id >= last.snapshot_id - 1 and again.branch_id == last.branch_id
        assert stamp_to_ns(again.header.stamp) > stamp_to_ns(last.header.stamp)
        listed = user.call(ListSnapshots, "/hiwm/list_snapshots", branch_id=-1, limit=0)
        assert {s.id for s in listed.snapshots} >= set(range(last.snapshot_id))
        user.call(Pause, "/hiwm/pause", paused=True)
        old = last.snapshot_id - 4
        user.call(Branch, "/hiwm/branch", snapshot_id=old)
        user.until(lambda: user.of("image")[-1].data.tobytes() == frames[stamps[old]])
    finally:
        user.close()
        assert process.stop() == 0


def start(**parameters: object) -> None:
    context = rclpy.context.Context()
    overrides = [Parameter(k, value=v) for k, v in {"discovery_s": 0.0, **parameters}.items()]
    with unique_domain() as domain:
        rclpy.init(context=context, domain_id=domain)
        try:
            node = WorldRigNode(context=context, parameter_overrides=overrides)
            node.close()
            node.destroy_node()
        finally:
            rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter model"),
        ({"model": "/nowhere"}, r"/nowhere/config\.json: missing"),
        ({"rig_file": "no_such_rig"}, "no shipped rig"),
        ({"time_mode": "sundial"}, "'wall' or 'lockstep'"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        start(**parameters)


def test_a_model_of_another_rig_is_refused(model_dir: Path, tmp_path: Path) -> None:
    rig = tmp_path / "other.yaml"
    text = (Path(__import__("hiwm_rig").__file__).parent / "rigs" / "push_t.yaml").read_text()
    text = text.replace("name: waist", "name: hip").replace("joint: waist", "joint: hip")
    rig.write_text(text.replace("width: 128", "width: 96"))
    with pytest.raises(StartupError, match=r"trained for another rig: joints.*hip.*cameras.*96"):
        start(model=str(model_dir), rig_file=str(rig))


def test_broken_weights_library_and_journal_are_named(model_dir: Path, tmp_path: Path) -> None:
    journal = tmp_path / "session.db"
    journal.write_bytes(b"no database" * 100)
    with pytest.raises(StartupError, match=r"session\.db: damaged"):
        start(model=str(model_dir), journal=str(journal))
    assert journal.read_bytes() == b"no database" * 100
    broken = tmp_path / "broken"
    TinyWorldModel.make(seed=1).save(broken)
    with pytest.raises(StartupError, match=r"library\.npz: missing"):
        start(model=str(broken))
    (broken / "library.npz").write_bytes(b"PK but not really")
    with pytest.raises(StartupError, match=r"library\.npz: not a library"):
        start(model=str(broken))
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(StartupError, match=r"model\.safetensors: not a readable"):
        start(model=str(broken))
