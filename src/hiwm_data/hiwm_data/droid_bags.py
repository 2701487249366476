"""DROID episodes as bags: the topics of the rig file, images at 5 Hz, joint states and commands at the recorded 15 Hz.

The source has no clock; every bag begins one second after the epoch. A person drove throughout, and so the control
state says. Converted again, a bag gives the states and actions that the direct import gives, and its frames within
what the codec loses.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig, load_rig
from hiwm_rig.types import Driver, Outcome
from tqdm import tqdm

from hiwm_data import layout
from hiwm_data.align import Event
from hiwm_data.bag_reader import BagMessage
from hiwm_data.bag_writer import BagWriter
from hiwm_data.definitions import find_definition
from hiwm_data.droid import RAW_PER_FRAME, DroidEpisode, find_annotations, read_episode
from hiwm_data.features import DatasetError
from hiwm_data.messages import Messages
from hiwm_data.recorder import recording_metadata
from hiwm_data.segments import EventType
from hiwm_data.topics import rig_topics

_START_NS = NS_PER_S


def export_droid_bags(source: str | Path, out: str | Path, *, rig: Rig | None = None) -> list[Path]:
    """Write every episode that can be used as the bag ``out/<split>/droid_<id>``; nothing is left where one fails.

    Args:
        source: folder of DROID episodes, as for :func:`hiwm_data.droid.import_droid`.
        out: folder to make.
        rig: gives topics, joints, cameras and rate; default the shipped ``droid``.

    Raises:
        DatasetError: if ``out`` exists, or no episode can be used (with the reasons).
        DefinitionError: if the message package of the project is not installed.
    """
    rig = rig or load_rig("droid")
    folder, root = Path(source), Path(out)
    annotations = find_annotations(folder)
    partial = layout.prepare_partial(root, overwrite=False)
    written: list[Path] = []
    reasons: list[str] = []
    try:
        for split, path in tqdm(annotations, desc="writing bags", unit="episode"):
            try:
                episode = read_episode(path, folder, rig)
            except DatasetError as error:
                reasons.append(str(error))
                continue
            name = Path(split) / f"droid_{path.stem}"
            (partial / split).mkdir(exist_ok=True)
            _write(partial / name, rig, episode, str(path.relative_to(folder)))
            written.append(root / name)
        if not written:
            raise DatasetError(f"{folder}: no episode could be used:\n" + "\n".join(reasons))
        layout.commit_partial(partial, root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return written


def _write(path: Path, rig: Rig, episode: DroidEpisode, source: str) -> None:
    topics = rig_topics(rig)
    definitions = {t.type: find_definition(t.type) for t in topics}
    metadata = recording_metadata(rig, {}) | {"imported_from": f"DROID {source}"}
    writer = BagWriter(path, topics, definitions, metadata)
    for message in sorted(_messages(rig, episode, path.name), key=lambda m: m.log_ns):
        writer.write(message.topic, message.data, message.log_ns, message.log_ns)
    writer.close()


def _messages(rig: Rig, episode: DroidEpisode, name: str) -> Iterator[BagMessage]:
    """What a running rig, its leader and the arbiter would have published."""
    messages = Messages(rig)
    period = round(rig.period_s * NS_PER_S)

    def event(kind: EventType, stamp: int, outcome: Outcome) -> BagMessage:
        return messages.event(Event(stamp, kind, name, episode.task, 0, -1, -1, outcome))

    yield event(EventType.BEGIN, _START_NS - period // 2, Outcome.UNKNOWN)
    for frame in range(episode.length):
        for camera in rig.cameras:
            yield messages.image_of(camera, episode.views[camera.name][frame], _START_NS + frame * period)
    for row in range(min(RAW_PER_FRAME * episode.length, len(episode.state), len(episode.action))):
        stamp = _START_NS + round(row * period / RAW_PER_FRAME)
        yield messages.joint_state(episode.state[row], stamp)
        yield messages.control(int(Driver.HUMAN), None, stamp)
        yield messages.command(episode.action[row], stamp)
    outcome = Outcome.SUCCESS if episode.succeeded else Outcome.FAILURE
    yield event(EventType.END, _START_NS + episode.length * period - 1, outcome)
