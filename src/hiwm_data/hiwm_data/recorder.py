"""Recording beside a running system: callbacks only queue, one thread writes. No ROS."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import yaml
from hiwm_rig.contract import Rig

from hiwm_data.bag_writer import BagFormat, BagWriter, RecordingError
from hiwm_data.definitions import DefinitionError, find_definition
from hiwm_data.episode_bags import EpisodeBags
from hiwm_data.images import RAW, ImageCompressor, compressed_specs
from hiwm_data.topics import TopicSpec

_POLL_S = 0.05
_MB = 1_000_000


@dataclass(frozen=True)
class RecorderOptions:
    """How a recording behaves.

    Attributes:
        flush_s: at most this much (plus a twentieth of a second) is lost in a crash.
        min_free_mb: recording stops with an error when the disk has less.
        max_queue_mb: messages beyond this are dropped and counted, so that memory stays bounded.
        form: compression and size of the bag's files.
        images: ``raw``, ``jpeg`` or ``png``; the last two as ``<topic>/compressed``.
        jpeg_quality: 1..100.
        per_episode: one bag per episode instead of one for all; nothing is recorded between episodes.
    """

    flush_s: float = 0.5
    min_free_mb: float = 200.0
    max_queue_mb: float = 256.0
    form: BagFormat = field(default_factory=BagFormat)
    images: str = RAW
    jpeg_quality: int = 95
    per_episode: bool = False


class Destination(Protocol):
    """What a recorder writes into: one bag, or a bag per episode."""

    path: Path

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Messages written so far, by topic."""
        ...

    def write(self, topic: str, data: bytes, log_ns: int, publish_ns: int) -> None:
        """Write one serialised message; raises RecordingError."""
        ...

    def flush(self) -> None:
        """Put everything so far on disk; raises RecordingError."""
        ...

    def close(self) -> None:
        """Finish; raises RecordingError."""
        ...


def disk_free_bytes(path: Path) -> int:
    """Free bytes of the disk that holds ``path``."""
    return shutil.disk_usage(path).free


class Recorder:
    """Records serialised messages into a bag.

    :meth:`offer` never blocks and never writes. An error of the writing thread ends the recording, is kept in
    ``error``, and leaves a readable bag.

    Raises:
        RecordingError: if the bag cannot be made, a message type is unknown, or the disk is too full to start.
    """

    def __init__(
        self,
        path: str | Path,
        topics: Sequence[TopicSpec],
        metadata: Mapping[str, str],
        options: RecorderOptions | None = None,
        disk_free: Callable[[Path], int] = disk_free_bytes,
    ) -> None:
        self.options = options or RecorderOptions()
        self.error: RecordingError | None = None
        self.counters: Counter[str] = Counter(received=0, dropped_queue_full=0, dropped_after_stop=0)
        self._disk_free = disk_free
        self._require_space(_existing_parent(Path(path)))
        try:
            self._compress = ImageCompressor(
                {t.name: t.type for t in topics}, self.options.images, self.options.jpeg_quality
            )
            self._bag = self._destination(Path(path), topics, metadata)
        except (DefinitionError, ValueError) as error:
            raise RecordingError(str(error)) from error
        self._queue: deque[tuple[str, bytes, int, int]] = deque()
        self._queued_bytes = 0
        self._written_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bag-writer", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The bag's folder."""
        return self._bag.path

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        return self._bag.message_count

    def counts(self) -> Mapping[str, int]:
        """Messages written so far, by topic."""
        return self._bag.counts()

    def offer(self, topic: str, data: bytes, log_ns: int, publish_ns: int | None = None) -> bool:
        """Queue one serialised message; False (and counted) where it is not taken."""
        self.counters["received"] += 1
        if self.error is not None or self._stop.is_set():
            self.counters["dropped_after_stop"] += 1
            return False
        # Each of the two sums has one writing thread, so no lock is needed and callbacks cannot wait for the disk.
        if self._queued_bytes - self._written_bytes > self.options.max_queue_mb * _MB:
            self.counters["dropped_queue_full"] += 1
            return False
        self._queued_bytes += len(data)
        self._queue.append((topic, data, log_ns, log_ns if publish_ns is None else publish_ns))
        return True

    def close(self) -> None:
        """Write what is queued, finish the bag, and end the thread; the outcome is in ``error``."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _destination(self, path: Path, topics: Sequence[TopicSpec], metadata: Mapping[str, str]) -> Destination:
        written = [*topics, *(compressed_specs(topics) if self.options.images != RAW else [])]
        definitions = {t.type: find_definition(t.type) for t in written}

        def open_bag(folder: Path) -> BagWriter:
            return BagWriter(folder, written, definitions, metadata, self.options.form)

        return EpisodeBags(path, written, open_bag) if self.options.per_episode else open_bag(path)

    def _run(self) -> None:
        try:
            self._write_until_stopped()
            self._bag.close()
        except RecordingError as error:
            self.error = error
        except Exception as error:  # whatever it is, the node must learn that nothing is recorded any more
            self.error = RecordingError(f"{self.path}: recording stopped by {type(error).__name__}: {error}")
            self.error.__cause__ = error

    def _write_until_stopped(self) -> None:
        next_flush = time.monotonic() + self.options.flush_s
        while True:
            stopping = self._stop.wait(_POLL_S)
            self._drain()
            if stopping:
                return
            if time.monotonic() >= next_flush:
                self._bag.flush()
                self._stop_on_full_disk()
                next_flush = time.monotonic() + self.options.flush_s

    def _drain(self) -> None:
        while self._queue:
            topic, data, log_ns, publish_ns = self._queue.popleft()
            encoded = self._compress(topic, data)
            self._bag.write(encoded.topic, encoded.data, log_ns, publish_ns)
            self._written_bytes += len(data)

    def _stop_on_full_disk(self) -> None:
        try:
            self._require_space(self._bag.path)
        except RecordingError:
            # There is still room for the index: the bag ends as a complete one.
            self._bag.close()
            raise

    def _require_space(self, where: Path) -> None:
        free = self._disk_free(where) / _MB
        if free < self.options.min_free_mb:
            need = f"at least {self.options.min_free_mb:.0f} MB are needed"
            raise RecordingError(f"{where}: the disk has {free:.0f} MB left, {need}; recording stopped")


def _existing_parent(path: Path) -> Path:
    resolved = path.resolve()
    return next(p for p in (resolved, *resolved.parents) if p.exists())


def recording_metadata(rig: Rig, checkpoints: Mapping[str, str], source: Path | None = None) -> dict[str, str]:
    """What is kept with every bag: rig file, checkpoint ids, revision of the code, host, start.

    Args:
        rig: the rig that is recorded.
        checkpoints: id by role, for example ``{"policy": "models/push_t_base sha256:..."}``.
        source: folder of the code; default that of this file.
    """
    return {
        "rig": yaml.safe_dump(rig.model_dump(mode="json"), sort_keys=False),
        "checkpoints": yaml.safe_dump(dict(checkpoints)),
        "git_revision": git_revision(source or Path(__file__).resolve().parent),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def checkpoint_id(folder: Path) -> str:
    """Name and content hash of a model folder, for example ``push_t_base@sha256:0123456789ab``.

    Raises:
        RecordingError: if the folder holds no weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise RecordingError(f"{folder}: no checkpoint there (expected *.safetensors)")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return f"{folder.resolve().name}@sha256:{digest.hexdigest()[:12]}"


def git_revision(folder: Path) -> str:
    """Commit of the checkout that holds ``folder``, with ``-dirty`` where files differ; ``unknown`` outside of git."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
