"""The snapshot tree on disk: append-only SQLite in WAL mode, written by its own thread.

What is promised:

* A snapshot is committed in its own transaction, in order. :meth:`SnapshotStore.append` waits (at most
  ``GRACE_S``) for the commit of the *previous* snapshot, so ``kill -9`` at any time loses at most the step in flight.
  When the disk stalls for longer, steps queue up in memory instead of holding up the control tick
  (:attr:`SnapshotStore.pending` says how many), and only when the queue is full the store gives up with an error.
* WAL with ``synchronous=NORMAL``: a killed process loses nothing that was committed; a power cut may lose the
  last commits, but never damages what is older.
* A row is at most 64 KiB. Nothing is kept in memory but the queue; every look-up reads the database.
* A file that cannot be used is named in the error and left exactly as it is.
"""

from __future__ import annotations

import fcntl
import queue
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNAPSHOT_LIMIT_BYTES = 64 * 1024
QUEUE_LENGTH = 256
GRACE_S = 0.02
FLUSH_TIMEOUT_S = 10.0
CACHE_KIB = 256
"""SQLite's page cache, per connection. Appending needs a few pages; more would only look like a leak while it fills."""
APPLICATION_ID = 0x4857_4D53  # "HWMS"
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE contexts (digest TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE branches (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, snapshot INTEGER NOT NULL);
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, branch INTEGER NOT NULL, step INTEGER NOT NULL,
    stamp_ns INTEGER NOT NULL, success REAL NOT NULL, trust REAL NOT NULL,
    context TEXT NOT NULL REFERENCES contexts (digest), state BLOB NOT NULL
);
CREATE INDEX snapshots_by_branch ON snapshots (branch, id);
"""
_COLUMNS = "id, parent, branch, step, stamp_ns, success, trust"


class SnapshotStoreError(RuntimeError):
    """A snapshot database that cannot be used, or a snapshot that is not there."""


@dataclass(frozen=True)
class SnapshotInfo:
    """One cached step.

    Attributes:
        id: counts up from 0 over all branches.
        parent_id: snapshot it was stepped from, -1 for a root.
        branch_id: branch it was made on.
        step: control steps since the root.
        stamp_ns: when it was published, on the rig's clock.
        success_probability: in [0, 1].
        trust: in [0, 1], NaN without a trust head.
    """

    id: int
    parent_id: int
    branch_id: int
    step: int
    stamp_ns: int
    success_probability: float
    trust: float


@dataclass(frozen=True)
class BranchInfo:
    """A branch and the snapshot it starts from; a root branch has parent -1 and starts from its own root.

    The parent is the branch that made that snapshot, whichever branch was running when it was gone back to.
    """

    id: int
    parent_id: int
    snapshot_id: int


@dataclass(frozen=True)
class StoredState:
    """Bytes of a state and of the context it belongs to."""

    state: bytes
    context_digest: str
    context: bytes


class SnapshotStore:
    """The journal of one world session. One process writes; it is the process that holds ``PATH.lock``."""

    def __init__(self, path: str | Path, meta: Mapping[str, str]) -> None:
        """Open or create a journal.

        Args:
            path: the database file; its directory is made.
            meta: what the snapshots belong to (model identity, rig); a journal with other values is refused.

        Raises:
            SnapshotStoreError: naming the file, what is wrong, and what to do.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = self._lock()
        try:
            self._check_existing()
            self._open(meta)
        except BaseException:
            self._lock_file.close()
            raise
        self._error: BaseException | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._last: Future[None] | None = None
        self._queue: queue.Queue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None] = queue.Queue(
            QUEUE_LENGTH
        )
        self._thread = threading.Thread(target=self._write_loop, name="snapshot-writer", daemon=True)
        self._thread.start()

    @classmethod
    def temporary(cls) -> SnapshotStore:
        """A journal in a directory of its own that goes with it: for sessions nobody resumes."""
        directory = tempfile.TemporaryDirectory(prefix="hiwm-session-")
        store = cls(Path(directory.name) / "session.db", {})
        store._directory = directory
        return store

    # --- writing ---------------------------------------------------------------------------------------------------
    def append(
        self,
        info: SnapshotInfo,
        state: bytes,
        context_digest: str,
        context: bytes | None = None,
        branch: BranchInfo | None = None,
    ) -> None:
        """Queue a snapshot for writing.

        Args:
            info: its place in the tree; ``info.id`` must be new.
            state: serialised state, at most 64 KiB.
            context_digest: key of the episode's context.
            context: the context itself with the first snapshot that has this digest, else None.
            branch: a branch that begins with this snapshot (a reset), written in the same transaction.

        Raises:
            SnapshotStoreError: if the state is too large, an earlier write failed, or the disk has stalled.
        """
        if len(state) > SNAPSHOT_LIMIT_BYTES:
            raise SnapshotStoreError(
                f"a state of this model takes {len(state)} bytes; a snapshot may take {SNAPSHOT_LIMIT_BYTES}: "
                "put what does not change during an episode into the context"
            )

        def write(db: sqlite3.Connection) -> None:
            if context is not None:
                db.execute("INSERT OR IGNORE INTO contexts VALUES (?, ?)", (context_digest, context))
            row = (info.id, info.parent_id, info.branch_id, info.step, info.stamp_ns)
            scores = (info.success_probability, _nan_to_negative(info.trust))
            db.execute("INSERT INTO snapshots VALUES (?,?,?,?,?,?,?,?,?)", (*row, *scores, context_digest, state))
            if branch is not None:
                db.execute("INSERT INTO branches VALUES (?,?,?)", (branch.id, branch.parent_id, branch.snapshot_id))

        self._submit(write)

    def append_branch(self, branch: BranchInfo) -> None:
        """Queue a new branch; it is the running one from now on, also after a restart."""
        row = (branch.id, branch.parent_id, branch.snapshot_id)
        self._submit(lambda db: db.execute("INSERT INTO branches VALUES (?,?,?)", row))

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until everything appended is committed.

        Raises:
            SnapshotStoreError: if a write failed or the disk does not answer in time.
        """
        if self._last is not None:
            try:
                self._last.result(timeout_s)
            except TimeoutError as error:
                raise SnapshotStoreError(f"{self.path}: the disk has not answered for {timeout_s:.0f} s") from error
            except sqlite3.Error:
                pass  # raised below, with its text
        self._raise_error()

    @property
    def pending(self) -> int:
        """Writes that are not committed yet."""
        return self._queue.qsize()

    def close(self) -> None:
        """Commit everything and release the file. May be called twice."""
        if self._lock_file.closed:
            return
        self._queue.put(None)
        self._thread.join(FLUSH_TIMEOUT_S)
        self._reader.close()
        self._lock_file.close()
        if self._directory is not None:
            self._directory.cleanup()
        self._raise_error()

    def __enter__(self) -> SnapshotStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading ---------------------------------------------------------------------------------------------------
    def info(self, snapshot_id: int) -> SnapshotInfo:
        """One snapshot's place in the tree.

        Raises:
            SnapshotStoreError: if there is none with that id.
        """
        row = self._read(f"SELECT {_COLUMNS} FROM snapshots WHERE id = ?", (snapshot_id,)).fetchone()
        if row is None:
            raise self._absent(snapshot_id)
        return _info(row)

    def load(self, snapshot_id: int) -> StoredState:
        """Bytes of a snapshot."""
        query = (
            "SELECT s.state, s.context, c.data FROM snapshots s JOIN contexts c ON c.digest = s.context WHERE s.id = ?"
        )
        row = self._read(query, (snapshot_id,)).fetchone()
        if row is None:
            raise self._absent(snapshot_id)
        return StoredState(*row)

    def ancestor(self, snapshot_id: int, steps: int) -> int:
        """Id of the snapshot ``steps`` steps before; the root where the episode is shorter."""
        query = """
            WITH RECURSIVE line (id, parent, depth) AS (
                SELECT id, parent, 0 FROM snapshots WHERE id = ?
                UNION ALL SELECT s.id, s.parent, depth + 1 FROM line JOIN snapshots s ON s.id = line.parent
                WHERE depth < ?)
            SELECT id FROM line ORDER BY depth DESC LIMIT 1"""
        row = self._read(query, (snapshot_id, steps)).fetchone()
        if row is None:
            raise self._absent(snapshot_id)
        return int(row[0])

    def is_ancestor(self, ancestor_id: int, snapshot_id: int) -> bool:
        """Whether ``ancestor_id`` lies on the path from the root to ``snapshot_id`` (itself included)."""
        try:
            distance = self.info(snapshot_id).step - self.info(ancestor_id).step
        except SnapshotStoreError:
            return False
        return distance >= 0 and self.ancestor(snapshot_id, distance) == ancestor_id

    def list_snapshots(self, branch_id: int = -1, limit: int = 0) -> list[SnapshotInfo]:
        """Snapshots, newest first; of one branch or (-1) of all; at most ``limit``, or (0) all."""
        query = f"SELECT {_COLUMNS} FROM snapshots WHERE ?1 < 0 OR branch = ?1 ORDER BY id DESC LIMIT ?2"
        return [_info(row) for row in self._read(query, (branch_id, limit if limit > 0 else -1))]

    def count(self, branch_id: int = -1) -> int:
        """Number of snapshots of one branch or (-1) of all."""
        query = "SELECT COUNT(*) FROM snapshots WHERE ?1 < 0 OR branch = ?1"
        return int(self._read(query, (branch_id,)).fetchone()[0])

    def next_id(self) -> int:
        """The id the next snapshot gets."""
        return int(self._read("SELECT COALESCE(MAX(id), -1) + 1 FROM snapshots", ()).fetchone()[0])

    def branches(self) -> list[BranchInfo]:
        """All branches in order of their making; the last one is running."""
        return [BranchInfo(*row) for row in self._read("SELECT id, parent, snapshot FROM branches ORDER BY id", ())]

    def head(self) -> tuple[BranchInfo, int] | None:
        """Where the session stands: the running branch and its newest snapshot. None in an empty journal."""
        row = self._read("SELECT id, parent, snapshot FROM branches ORDER BY id DESC LIMIT 1", ()).fetchone()
        if row is None:
            return None
        branch = BranchInfo(*row)
        newest = self._read("SELECT MAX(id) FROM snapshots WHERE branch = ?", (branch.id,)).fetchone()[0]
        return branch, int(branch.snapshot_id if newest is None else newest)

    # --- inside ----------------------------------------------------------------------------------------------------
    def _lock(self) -> Any:
        lock = self.path.with_name(self.path.name + ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise SnapshotStoreError(
                f"{self.path}: another process is using this snapshot database; stop it, or name another file"
            ) from error
        return lock

    def _check_existing(self) -> None:
        """Refuse a damaged file before anything could write to it."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        advice = "It was left as it is. Move it away (with its -wal file) to start anew, or restore a copy of it."
        try:
            db = sqlite3.connect(f"file:{self.path.resolve()}?mode=ro", uri=True)
            try:
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                application = db.execute("PRAGMA application_id").fetchone()[0]
                version = db.execute("PRAGMA user_version").fetchone()[0]
            finally:
                db.close()
        except sqlite3.DatabaseError as error:
            raise SnapshotStoreError(f"{self.path}: damaged snapshot database ({error}). {advice}") from error
        if verdict != "ok":
            raise SnapshotStoreError(f"{self.path}: damaged snapshot database ({verdict}). {advice}")
        if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise SnapshotStoreError(
                f"{self.path}: not a snapshot database of this version (application {application:#x}, "
                f"schema {version}; expected {APPLICATION_ID:#x}, {SCHEMA_VERSION}). {advice}"
            )

    def _open(self, meta: Mapping[str, str]) -> None:
        self._writer = self._connect()
        self._reader = self._connect()
        empty = self._writer.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
        if empty:
            self._writer.execute("PRAGMA journal_mode=WAL")
            script = "".join(f"INSERT INTO meta VALUES ({_quote(k)}, {_quote(v)});" for k, v in meta.items())
            pragmas = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION};"
            self._writer.executescript(f"BEGIN; {_SCHEMA} {script} {pragmas} COMMIT;")
        stored = dict(self._writer.execute("SELECT key, value FROM meta").fetchall())
        if stored != dict(meta):
            differing = {k: (stored.get(k), meta.get(k)) for k in {*stored, *meta} if stored.get(k) != meta.get(k)}
            text = "; ".join(f"{k}: file has {a!r}, this run {b!r}" for k, (a, b) in sorted(differing.items()))
            self._writer.close()
            self._reader.close()
            raise SnapshotStoreError(f"{self.path}: belongs to another world ({text}). Name another file for this one.")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        return db

    def _submit(self, write: Callable[[sqlite3.Connection], Any]) -> None:
        self._raise_error()
        previous, done = self._last, Future[None]()
        try:
            self._queue.put_nowait((write, done))
        except queue.Full as error:
            raise SnapshotStoreError(
                f"{self.path}: {QUEUE_LENGTH} snapshots wait for a disk that does not answer; the last one was not kept"
            ) from error
        self._last = done
        if previous is not None and not previous.done():
            _wait(previous, GRACE_S)

    def _write_loop(self) -> None:
        while (item := self._queue.get()) is not None:
            write, done = item
            if self._error is not None:  # nothing may follow a hole in the tree
                done.set_exception(self._error)
                continue
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                write(self._writer)
                self._writer.execute("COMMIT")
                done.set_result(None)
            except sqlite3.Error as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                self._error = self._error or error
                done.set_exception(error)
        self._writer.close()

    def _absent(self, snapshot_id: int) -> SnapshotStoreError:
        return SnapshotStoreError(
            f"no snapshot {snapshot_id}; {self.count()} are cached, the newest is {self.next_id() - 1}"
        )

    def _raise_error(self) -> None:
        if self._error is not None:
            raise SnapshotStoreError(
                f"{self.path}: writing a snapshot failed ({self._error}); everything before it is kept"
            ) from self._error

    def _read(self, query: str, arguments: tuple[Any, ...]) -> sqlite3.Cursor:
        self.flush()
        try:
            return self._reader.execute(query, arguments)
        except sqlite3.DatabaseError as error:
            raise SnapshotStoreError(f"{self.path}: cannot be read ({error}); it was left as it is") from error


def _info(row: tuple[Any, ...]) -> SnapshotInfo:
    snapshot, parent, branch, step, stamp, success, trust = row
    return SnapshotInfo(snapshot, parent, branch, step, stamp, success, float("nan") if trust < 0 else trust)


def _nan_to_negative(value: float) -> float:
    """SQLite has no NaN (it stores NULL); no trust is written as -1."""
    return value if value == value else -1.0


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _wait(future: Future[None], timeout_s: float) -> None:
    """Wait for a write; its failure is raised by the store, with the file's name."""
    try:
        future.exception(timeout_s)
    except TimeoutError:
        return
