"""The journal: append-only, bounded in memory and size, never destroyed, lost by at most the step in flight."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hiwm_world_model.session import SessionError, WorldSession, store_meta
from hiwm_world_model.snapshots import (
    SNAPSHOT_LIMIT_BYTES,
    BranchInfo,
    SnapshotInfo,
    SnapshotStore,
    SnapshotStoreError,
)

META = {"model": "tiny:1", "rig": "push_t"}


def info(i: int, parent: int | None = None, branch: int = 0) -> SnapshotInfo:
    return SnapshotInfo(i, i - 1 if parent is None else parent, branch, i, 1000 + i, 0.25, 0.5)


def fill(store: SnapshotStore, count: int, size: int = 100) -> None:
    store.append(info(0), b"s" * size, "ctx", b"background", BranchInfo(0, -1, 0))
    for i in range(1, count):
        store.append(info(i), b"s" * size, "ctx")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META) as store:
        fill(store, 5)
        assert store.info(3) == info(3)
        loaded = store.load(4)
        assert (loaded.state, loaded.context, loaded.context_digest) == (b"s" * 100, b"background", "ctx")
        assert [s.id for s in store.list_snapshots(limit=2)] == [4, 3]
        assert store.count() == 5 and store.count(branch_id=7) == 0


def test_a_missing_trust_survives(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META) as store:
        store.append(SnapshotInfo(0, -1, 0, 0, 1, 0.5, float("nan")), b"", "c", b"", BranchInfo(0, -1, 0))
        assert np.isnan(store.info(0).trust)


def test_ancestors_across_branches(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META) as store:
        fill(store, 4)
        store.append_branch(BranchInfo(1, 0, 1))
        store.append(SnapshotInfo(4, 1, 1, 2, 9, 0.0, 0.0), b"x", "ctx")
        assert store.ancestor(4, 1) == 1 and store.ancestor(4, 100) == 0
        assert store.is_ancestor(1, 4) and not store.is_ancestor(2, 4) and store.is_ancestor(4, 4)
        assert not store.is_ancestor(99, 4)
        assert store.head() == (BranchInfo(1, 0, 1), 4)


def test_a_branch_without_steps_is_where_the_session_stands(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META) as store:
        fill(store, 4)
        store.append_branch(BranchInfo(1, 0, 2))
    with SnapshotStore(tmp_path / "s.db", META) as store:
        assert store.head() == (BranchInfo(1, 0, 2), 2)


def test_a_state_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META) as store, pytest.raises(SnapshotStoreError, match="65536"):
        store.append(info(0), b"x" * (SNAPSHOT_LIMIT_BYTES + 1), "c")


def test_ten_thousand_snapshots_stay_small_in_memory_and_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with SnapshotStore(path, META) as store:
        fill(store, 100, 4096)
        store.flush()
        tracemalloc.start()
        for i in range(100, 10_000):
            store.append(info(i), b"s" * 4096, "ctx")
        store.flush()
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert grown < 1_000_000, "nothing may be kept in memory for each snapshot"
        began = time.perf_counter()
        assert store.ancestor(9_999, 5_000) == 4_999
        assert store.count() == 10_000 and store.next_id() == 10_000
        assert time.perf_counter() - began < 0.5
    assert path.stat().st_size / 10_000 < SNAPSHOT_LIMIT_BYTES


@pytest.mark.parametrize("damage", ["noise", "truncated", "text", "other application"])
def test_a_damaged_database_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "session.db"
    with SnapshotStore(path, META) as store:
        fill(store, 300, 2000)
    content = bytearray(path.read_bytes())
    if damage == "noise":
        content[5000:200_000] = os.urandom(195_000)
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("this is a diary\n" * 100)
    else:
        db = sqlite3.connect(path)
        db.execute("PRAGMA application_id=1")
        db.close()
    before = path.read_bytes()
    with pytest.raises(SnapshotStoreError, match=r"(?s)session\.db.*left as it is"):
        SnapshotStore(path, META)
    assert path.read_bytes() == before


def test_a_journal_of_another_model_is_refused(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META) as store:
        fill(store, 2)
    with pytest.raises(SnapshotStoreError, match="model: file has 'tiny:1', this run 'tiny:2'"):
        SnapshotStore(tmp_path / "s.db", META | {"model": "tiny:2"})
    with SnapshotStore(tmp_path / "s.db", META) as store:
        assert store.count() == 2


def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    with SnapshotStore(tmp_path / "s.db", META), pytest.raises(SnapshotStoreError, match="another process"):
        SnapshotStore(tmp_path / "s.db", META)


def test_a_failed_write_is_reported_and_leaves_no_hole(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "s.db", META)
    fill(store, 3)
    store.append(info(2), b"again", "ctx")  # the id exists: the write fails
    with pytest.raises(SnapshotStoreError, match="writing a snapshot failed"):
        store.flush()
    with pytest.raises(SnapshotStoreError):
        store.append(info(4), b"after", "ctx")
    with pytest.raises(SnapshotStoreError):
        store.close()
    with SnapshotStore(tmp_path / "s.db", META) as store:
        assert store.next_id() == 3


def test_a_full_disk_is_reported_and_what_was_written_stays(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "s.db", META)
    fill(store, 3)
    store.flush()
    store._writer.execute("PRAGMA max_page_count=1")  # SQLite's own way to be out of space
    with pytest.raises(SnapshotStoreError, match="full"):
        for i in range(3, 200):
            store.append(info(i), b"x" * 60_000, "ctx")
        store.flush()
    with pytest.raises(SnapshotStoreError):
        store.close()
    with SnapshotStore(tmp_path / "s.db", META) as store:
        assert store.next_id() >= 3 and store.load(2).state == b"s" * 100


def test_a_stalled_disk_does_not_block_the_tick(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "s.db", META)
    fill(store, 2)
    store.flush()
    release = threading.Event()
    store._submit(lambda db: release.wait(5))
    began = time.perf_counter()
    for i in range(2, 7):
        store.append(info(i), b"x", "ctx")
    took = time.perf_counter() - began
    assert took < 5 * 0.05 and store.pending >= 4
    release.set()
    store.close()
    with SnapshotStore(tmp_path / "s.db", META) as store:
        assert store.next_id() == 7


def test_any_ancestor_gives_the_same_next_frame_bit_for_bit(tmp_path: Path, tiny, start) -> None:
    rng = np.random.default_rng(0)
    with SnapshotStore(tmp_path / "s.db", store_meta(tiny)) as store:
        session = WorldSession(tiny, store)
        session.reset(*start)
        actions = start[1] + rng.normal(0, 0.3, (30, 7)).astype(np.float32)
        moments = [session.moment] + [session.step(a) for a in actions]
        for ancestor in (0, 7, 29):
            for go in (session.rollback, session.branch):
                back = go(snapshot_id=ancestor)
                assert np.array_equal(back.result.images["front"], moments[ancestor].result.images["front"])
                again = session.step(actions[ancestor])
                assert np.array_equal(again.result.images["front"], moments[ancestor + 1].result.images["front"])
                assert np.array_equal(again.result.joints, moments[ancestor + 1].result.joints)
                session.branch(30)


def test_a_rollback_by_steps_starts_a_new_branch(tmp_path: Path, tiny, start) -> None:
    with SnapshotStore(tmp_path / "s.db", store_meta(tiny)) as store:
        session = WorldSession(tiny, store)
        session.reset(*start)
        for _ in range(10):
            session.step(start[1])
        back = session.rollback(steps=4)
        assert (back.snapshot.step, back.branch.parent_id, back.branch.id) == (6, 0, 1)
        assert session.rollback(steps=1000).snapshot.step == 0
        assert session.step(start[1]).snapshot.branch_id == 2
        assert [s.branch_id for s in session.list_snapshots(branch_id=2)] == [2]
        with pytest.raises(SessionError, match="no ancestor"):
            session.rollback(snapshot_id=9)
        with pytest.raises(SessionError, match="no snapshot 999"):
            session.branch(999)
        away = session.branch(9)
        assert away.snapshot.step == 9, "branch may go anywhere"
        assert away.branch.parent_id == 0, "from the branch that made the snapshot, not from the one that was left"


def test_bad_requests_leave_the_session_where_it_is(tmp_path: Path, tiny, start) -> None:
    with SnapshotStore(tmp_path / "s.db", store_meta(tiny)) as store:
        session = WorldSession(tiny, store)
        with pytest.raises(SessionError, match="reset it first"):
            session.step(start[1])
        session.reset(*start)
        for bad in (np.full(7, np.nan), np.zeros(6), np.full((1, 7), 0.0)):
            with pytest.raises(SessionError, match="7 finite"):
                session.step(bad)
        with pytest.raises(SessionError, match="uint8 images"):
            session.reset({"front": np.zeros((64, 64, 3), np.uint8)}, start[1])
        with pytest.raises(SessionError, match="finite joint"):
            session.reset(start[0], np.full(7, np.nan))
        assert session.moment.snapshot.id == 0 and store.count() == 1


def test_a_snapshot_fits_into_64_kib_and_the_background_is_stored_once(tmp_path: Path, tiny, start) -> None:
    with SnapshotStore(tmp_path / "s.db", store_meta(tiny)) as store:
        session = WorldSession(tiny, store)
        session.reset(*start)
        for _ in range(50):
            session.step(start[1])
        store.flush()
    size = (tmp_path / "s.db").stat().st_size
    assert size < 51 * 4096 + 200_000, "the background (49 kB) may be there once only"


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from tiny_world_model import TinyWorldModel, tiny_frames
from hiwm_world_model.session import WorldSession, store_meta
from hiwm_world_model.snapshots import SnapshotStore
model = TinyWorldModel.make(seed=3)
session = WorldSession(model, SnapshotStore(sys.argv[1], store_meta(model)))
images, joints = tiny_frames(seed=5)
session.reset(images, joints)
while True:
    print(session.step(joints + 0.01).snapshot.id, flush=True)
"""


def test_kill_9_loses_at_most_the_step_in_flight_and_the_session_resumes(tmp_path: Path, tiny, start) -> None:
    path = tmp_path / "s.db"
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), here], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = -1
    for line in process.stdout:
        seen = int(line)
        if seen == 150:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    last = int(rest[-1]) if rest else seen
    with SnapshotStore(path, store_meta(tiny)) as store:
        session = WorldSession(tiny, store)
        moment = session.resume()
        assert moment is not None and moment.snapshot.id >= last - 1
        reference = WorldSession(tiny, SnapshotStore.temporary())
        reference.reset(*start)
        for _ in range(moment.snapshot.id):
            reference.step(start[1] + 0.01)
        assert np.array_equal(reference.moment.result.images["front"], moment.result.images["front"])
        ahead = session.step(start[1]).result.images["front"]
        assert np.array_equal(reference.step(start[1]).result.images["front"], ahead)
        assert session.rollback(steps=20).snapshot.step == moment.snapshot.step - 19
