"""Reading a converted dataset for training: frames a second, and memory at two sizes."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from hiwm_data.align import Event
from hiwm_data.bag_reader import BagMessage
from hiwm_data.convert import convert_bags
from hiwm_data.dataset import Dataset, merge_datasets
from hiwm_data.messages import Messages
from hiwm_data.segments import EventType
from hiwm_data.testing import write_bag
from hiwm_rig.codecs import NS_PER_S
from hiwm_rig.contract import Rig, load_rig
from hiwm_rig.types import Driver, Outcome

if TYPE_CHECKING:
    from hiwm_bringup.bench import BenchOptions, Figures

_EPISODE_FRAMES = 150
_BAG_EPISODES = 4
_COPIES = {"small": 5, "large": 20}
_BATCH = 64
_STEPS = 200
WORKERS = 2


def measure_reading(options: BenchOptions) -> Figures:
    """Batches of 64 windows (one image each) of a bag that was converted, drawn at random by two worker processes.

    ``dataset_frames_per_s``: ``first_epoch`` (every frame is decoded) and ``after`` it, of the larger dataset.
    ``dataset_rss_mib``: by number of frames, what a process that reads all of them in random order holds more than
    before it opened the dataset (memory of its own; every worker process reads like this one).
    """
    rig = load_rig(options.rig_file)
    with tempfile.TemporaryDirectory(prefix="hiwm_bench_") as name:
        folder = Path(name)
        write_bag(folder / "bag", rig, recording(rig))
        convert_bags([folder / "bag"], folder / "one")
        figures: dict[str, Any] = {}
        memory = {}
        for size, copies in _COPIES.items():
            root = merge_datasets([folder / "one"] * copies, folder / size)
            # A process of its own per size: what an earlier one has left behind would be counted.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                found = pool.submit(read_dataset, root, WORKERS).result()
            memory[f"{found['frames']}_frames"] = found["mib"]
            figures["dataset_frames_per_s"] = {k: found[k] for k in ("first_epoch", "after")}
        return {**figures, "dataset_rss_mib": memory}


def recording(rig: Rig) -> Iterator[BagMessage]:
    """Episodes of a rig with one arm, driven by a person; a square moves over a gradient in every camera."""
    messages = Messages(rig)
    period = round(rig.period_s * NS_PER_S)
    home, stamp = np.array(rig.home), 1000 * NS_PER_S
    for number in range(_BAG_EPISODES):
        begin = Event(stamp - period // 2, EventType.BEGIN, f"episode {number}", rig.task, 0, -1, -1, Outcome.UNKNOWN)
        yield messages.event(begin)
        for tick in range(_EPISODE_FRAMES):
            yield messages.joint_state(home + 0.001 * tick, stamp)
            for camera in rig.cameras:
                yield messages.image_of(camera, _picture(camera.height, camera.width, tick), stamp)
            yield messages.control(int(Driver.HUMAN), None, stamp + period // 2)
            yield messages.command(home + 0.001 * tick, stamp + period // 2)
            stamp += period
        yield messages.event(replace(begin, stamp_ns=stamp - period // 4, type=EventType.END, outcome=Outcome.SUCCESS))
        stamp += 5 * period


def _picture(height: int, width: int, tick: int) -> np.ndarray:
    ramp = np.linspace(0, 200, width)[None, :, None] * np.array([1.0, 0.6, 0.3])
    pixels = np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8)
    side = height // 5
    top, left = (3 * tick) % (height - side), (5 * tick) % (width - side)
    pixels[top : top + side, left : left + side] = (250, 240, 40)
    return pixels


def read_dataset(root: Path, workers: int) -> dict[str, float]:
    """Frames a second in the first epoch and after it, and MiB held after the first."""
    from hiwm_policy.data import MixedSampler, WindowSource, demonstration_frames, infer_spec
    from hiwm_policy.loader import batches

    before = _held_mib()
    dataset = Dataset(root)
    source = WindowSource(dataset, demonstration_frames(dataset), infer_spec(dataset), image_steps=1)
    order = np.random.default_rng(0).permutation(len(source))
    started = time.perf_counter()
    for first in range(0, len(order), _BATCH):
        source.batch(order[first : first + _BATCH])
    decoded = time.perf_counter() - started
    held = _held_mib() - before
    drawn = batches(MixedSampler([source], [1.0], _BATCH, seed=0), range(_STEPS), workers=workers)
    next(drawn)  # the workers have started
    started = time.perf_counter()
    frames = 0
    for batch in drawn:
        frames += sum(images.shape[0] * images.shape[1] for images in batch.images.values())
    seconds = time.perf_counter() - started
    return {
        "frames": len(dataset),
        "first_epoch": round(len(order) / decoded),
        "after": round(frames / seconds),
        "mib": round(held, 1),
    }


def _held_mib() -> float:
    return float(psutil.Process().memory_full_info().uss) / 2**20
