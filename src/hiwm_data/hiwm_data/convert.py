"""Bags to a training dataset: one command for bags of physical, sim and world rigs. No ROS.

Every branch segment (see :mod:`hiwm_data.segments`) becomes one episode with its own frames only. ``action[k]`` is the
last target commanded before the rig's tick ``k + 1``, which is what the rig obeys on the step from frame ``k`` to
frame ``k + 1``; after a jump and before the first command the rig holds, so the action is where it stands.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig
from hiwm_rig.types import Driver, Image, Outcome
from tqdm import tqdm

from hiwm_data.align import AlignedFrame, RigStreams
from hiwm_data.bag_reader import Bag, BagError, find_bags, rig_of_bag
from hiwm_data.features import ACTION, IMAGE_PREFIX, STATE, SUCCESS, rig_features
from hiwm_data.quality import UNALIGNED, require_quality, topic_quality
from hiwm_data.segments import Segment, Segmenter
from hiwm_data.writer import DatasetWriter

NOT_RECORDED = -1
"""``driver`` where the bag has no control state."""
REAL_TRUST = 1.0
"""``trust`` of frames that no world model made."""


@dataclass(frozen=True)
class ConvertOptions:
    """How bags are converted.

    Attributes:
        split: episode meta ``split``.
        min_frames: shorter segments are left out (a branch that is left at once).
        max_dropped: share of a topic's messages, 0..1, that may be lost or unusable; a bag with more is refused.
    """

    split: str = "train"
    min_frames: int = 2
    max_dropped: float = 0.1


@dataclass
class ConvertReport:
    """What a conversion did.

    Attributes:
        episodes: written.
        frames: written.
        intervention_frames: of these, driven by a person.
        counters: frames and segments left out, by reason, and messages rejected, by topic.
        incomplete: bags that are cut off (the recorder was killed) or damaged; what they hold is converted.
    """

    episodes: int = 0
    frames: int = 0
    intervention_frames: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    incomplete: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RecordedEpisode:
    """One branch segment of a bag with all its columns, as a dataset stores it.

    Attributes:
        columns: by name, [T, ...]; images uint8 [T, H, W, 3].
        task: as announced.
        meta: episode meta (outcome, branch and parent ids, driver, trust, bag, ...).
    """

    columns: dict[str, npt.NDArray[np.generic]]
    task: str
    meta: dict[str, int | float | str]


class ImageSpool:
    """Images of one bag on disk instead of in memory: one raw file per camera, in a temporary folder."""

    def __init__(self, folder: Path, rig: Rig) -> None:
        self._shapes = {c.name: (c.height, c.width, 3) for c in rig.cameras}
        self._paths = {c.name: folder / f"{c.name}.raw" for c in rig.cameras}
        self._files = {name: path.open("wb") for name, path in self._paths.items()}
        self._counts: Counter[str] = Counter()

    def add(self, camera: str, image: Image) -> int:
        """Keep (H, W, 3) uint8; returns its row."""
        self._files[camera].write(np.ascontiguousarray(image).tobytes())
        self._counts[camera] += 1
        return self._counts[camera] - 1

    def finish(self) -> None:
        """Nothing more will be added."""
        for file in self._files.values():
            file.close()

    def rows(self, camera: str, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        """[T, H, W, 3] of these rows."""
        shape = (self._counts[camera], *self._shapes[camera])
        return np.memmap(self._paths[camera], dtype=np.uint8, mode="r", shape=shape)[list(rows)]


def convert_bags(
    bags: Sequence[str | Path],
    out: str | Path,
    *,
    rig: Rig | None = None,
    options: ConvertOptions | None = None,
    overwrite: bool = False,
) -> ConvertReport:
    """Write one dataset from all bags.

    Args:
        bags: rosbag2 folders or files, and folders of such bags.
        out: dataset to write.
        rig: the rig that was recorded; default: the one kept with each bag (all must agree).
        options: see :class:`ConvertOptions`.
        overwrite: replace ``out``.

    Raises:
        BagError: if a bag cannot be read, lacks topics, comes from another rig, has lost too much, or nothing is left
            to write. Nothing is written then.
        RigFileError: if the rig kept with a bag is not valid.
    """
    if not bags:
        raise BagError("nothing to convert: no bag was given")
    options = options or ConvertOptions()
    opened = [Bag(path) for path in find_bags(bags)]
    rig = rig or _common_rig(opened)
    report = ConvertReport()
    with DatasetWriter(
        out,
        fps=rig.control_rate_hz,
        features=rig_features(rig, provenance=True),
        robot_type=rig.name,
        overwrite=overwrite,
    ) as writer:
        for bag in tqdm(opened, desc="converting bags", unit="bag"):
            for episode in bag_episodes(bag, rig, options, report):
                writer.add_episode(episode.columns, task=episode.task, meta=episode.meta)
        if not report.episodes:
            raise BagError(f"no frames to write from {', '.join(str(b.path) for b in opened)}: {dict(report.counters)}")
    return report


def read_streams(bag: Bag, rig: Rig, store_image: Callable[[str, Image], Any]) -> RigStreams:
    """All messages of a bag, buffered by topic; images as what ``store_image`` makes of them.

    Raises:
        BagError: naming the required topics without messages and those that the bag has.
    """
    streams = RigStreams(rig, depth=None, store_image=store_image)
    for message in tqdm(bag.messages(set(streams.topics)), desc=bag.path.name, unit="message", leave=False):
        streams.push(message.topic, bag.decode(message), message.log_ns)
    missing = [t for t in streams.required if not streams.received[t]]
    if missing:
        seen = ", ".join(sorted(streams.received)) or "nothing"
        raise BagError(f"{bag.path}: no messages on {', '.join(missing)}; it has {seen}")
    return streams


def segment_columns(segment: Segment, streams: RigStreams) -> dict[str, npt.NDArray[np.generic]]:
    """Columns of a segment without its images; frames before the first command are cut off ``segment.frames``."""
    rig = streams.rig
    steps = step_times(segment, rig)
    actions = [_action(segment, streams, step) for step in steps]
    first = next((i for i, a in enumerate(actions) if a is not None), len(actions))
    del segment.frames[:first]
    frames, steps, actions = segment.frames, steps[first:], actions[first:]
    controls = [streams.control(step) for step in steps]
    proposals = [None if c is None else c.policy_action for c in controls]
    action = np.array(actions, dtype=np.float32)
    size = len(frames)
    success = np.zeros(size, dtype=bool)
    if size:
        success[-1] = segment.outcome is Outcome.SUCCESS
    driver = np.array([NOT_RECORDED if c is None else c.driver for c in controls], dtype=np.int64)
    return {
        STATE: np.array([f.joints for f in frames], dtype=np.float32),
        ACTION: action,
        SUCCESS: success,
        "driver": driver,
        "intervention": driver == int(Driver.HUMAN),
        "policy_action": np.array([a if p is None else p for p, a in zip(proposals, action, strict=True)], np.float32),
        "policy_proposed": np.array([p is not None for p in proposals], dtype=bool),
        "branch_id": np.full(size, segment.branch_id, dtype=np.int64),
        "parent_id": np.full(size, segment.parent_id, dtype=np.int64),
        "trust": np.array([REAL_TRUST if f.world is None else f.world.trust for f in frames], dtype=np.float32),
        "stamp_ns": np.array([f.stamp_ns for f in frames], dtype=np.int64),
    }


def step_times(segment: Segment, rig: Rig) -> list[int]:
    """When the rig steps on from each frame, ns: at the next frame, but not after the segment was left."""
    stamps = [f.stamp_ns for f in segment.frames]
    end = stamps[-1] + round(rig.period_s * NS_PER_S)
    return [*stamps[1:], end if segment.end_ns is None else min(end, segment.end_ns)]


def aligned_frames(streams: RigStreams, counters: Counter[str]) -> list[AlignedFrame]:
    """One frame per control step: every stamp of the first camera, thinned where that is faster than control."""
    rig = streams.rig
    stamps = list(streams.stamps())
    if rig.cameras[0].rate_hz > 1.5 * rig.control_rate_hz:
        stamps = _thinned(stamps, round(rig.period_s * NS_PER_S), round(0.5 * NS_PER_S / rig.cameras[0].rate_hz))
    frames: list[AlignedFrame] = []
    absent: Counter[str] = Counter()
    for stamp in stamps:
        frame = streams.frame(stamp)
        if frame is None:
            counters["unaligned_frames"] += 1
            absent.update(f"{UNALIGNED} {topic}" for topic in streams.missing(stamp))
            continue
        # Before the first frame and after the last one topics only start and end at different times.
        counters += absent if frames else Counter()
        absent.clear()
        frames.append(frame)
    return frames


def _thinned(stamps: Sequence[int], period_ns: int, slack_ns: int) -> list[int]:
    kept: list[int] = []
    for stamp in stamps:
        if not kept or stamp - kept[-1] >= period_ns - slack_ns:
            kept.append(stamp)
    return kept


def _action(segment: Segment, streams: RigStreams, step_ns: int) -> npt.NDArray[np.float64] | None:
    command = streams.command(step_ns, segment.jump_ns)
    if command is None and segment.jump_ns:
        return segment.frames[0].joints
    return command


def _common_rig(bags: Sequence[Bag]) -> Rig:
    rigs = [(bag, rig_of_bag(bag)) for bag in bags]
    first = rigs[0][1]
    for bag, rig in rigs:
        if rig is None:
            raise BagError(f"{bag.path}: no rig file is kept with this bag; name the rig it was recorded on")
        if rig != first:
            raise BagError(f"{bag.path}: recorded on another rig ('{rig.name}') than {bags[0].path}")
    assert first is not None
    return first


def bag_episodes(
    bag: Bag, rig: Rig, options: ConvertOptions, report: ConvertReport | None = None
) -> Iterator[RecordedEpisode]:
    """The branch segments of a bag, one by one, each with its own frames only.

    Args:
        bag: to read.
        rig: that was recorded.
        options: what to leave out.
        report: is added to.

    Raises:
        BagError: as :func:`convert_bags`; before the first segment where messages were dropped.
    """
    report = report or ConvertReport()
    with tempfile.TemporaryDirectory(prefix="hiwm-convert-") as folder:
        spool = ImageSpool(Path(folder), rig)
        try:
            streams = read_streams(bag, rig, spool.add)
        finally:
            spool.finish()
        if not bag.complete:
            report.incomplete.append(str(bag.path))
        for segment in recorded_segments(str(bag.path), streams, options.max_dropped, report.counters):
            recorded = len(segment.frames)
            columns = segment_columns(segment, streams)
            report.counters["frames_without_command"] += recorded - len(segment.frames)
            if len(segment.frames) < options.min_frames:
                report.counters["short_segments"] += 1
                continue
            for camera in rig.cameras:
                rows = [f.images[camera.name] for f in segment.frames]
                columns[IMAGE_PREFIX + camera.name] = spool.rows(camera.name, rows)
            report.episodes += 1
            report.frames += len(segment.frames)
            report.intervention_frames += int(columns["intervention"].sum())
            yield RecordedEpisode(columns, segment.task, _meta(segment, columns, bag, options))


def recorded_segments(
    source: str, streams: RigStreams, max_dropped: float, counters: Counter[str], discarded: bool = False
) -> list[Segment]:
    """Align, cut and judge what a bag holds, or what live topics have shown.

    Args:
        source: name of the bag, for error messages.
        streams: everything in it.
        max_dropped: see :class:`ConvertOptions`.
        counters: frames and segments left out by reason, and messages rejected by topic, are added.
        discarded: also segments whose outcome says to discard them.

    Raises:
        BagError: too much was dropped.
    """
    rig = streams.rig
    found: Counter[str] = Counter()
    frames = aligned_frames(streams, found)
    segmenter = Segmenter(streams.events, round(rig.period_s * NS_PER_S), rig.task)
    kept = segmenter.run(frames)
    found += segmenter.counters
    topics = topic_quality(streams, found)
    for kind in ("rejected", "backwards", "repeated"):
        found += Counter({f"{kind} {topic}": n for topic, n in getattr(streams, kind).items()})
    counters += found
    require_quality(source, topics, max_dropped)
    return segmenter.segments if discarded else kept


def _meta(
    segment: Segment, columns: dict[str, npt.NDArray[np.generic]], bag: Bag, options: ConvertOptions
) -> dict[str, int | float | str]:
    human = int(columns["intervention"].sum())
    world = segment.frames[0].world
    return {
        "outcome": segment.outcome.name.lower(),
        "source": _source(segment, columns),
        "seed": -1,
        "split": options.split,
        "episode_id": segment.episode_id,
        "branch_id": segment.branch_id,
        "parent_id": segment.parent_id,
        "snapshot_id": segment.snapshot_id,
        "start_step": -1 if world is None else world.step,
        "part": segment.part,
        "intervention_frames": human,
        "trust_min": float(columns["trust"].min()),
        "bag": bag.path.name,
        "checkpoints": bag.metadata.get("checkpoints", ""),
    }


def _source(segment: Segment, columns: dict[str, npt.NDArray[np.generic]]) -> str:
    """``demonstration`` where a person drives a whole root branch and no policy runs, else by who drove."""
    human = columns["intervention"]
    if segment.parent_id < 0 and human.all() and not columns["policy_proposed"].any():
        return "demonstration"
    return "correction" if human.any() else "rollout"
