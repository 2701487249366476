"""Where a virtual robot starts: real first frames with their joint positions, from a recorded dataset."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hiwm_data.dataset import Dataset
from hiwm_rig.files import written_aside

from hiwm_world_model.interface import Floats, Images, ModelError

LIBRARY_FILE = "library.npz"
MAX_STARTS = 64
_IMAGE = "image."


@dataclass(frozen=True)
class Start:
    """One real first frame.

    Attributes:
        images: camera -> [H, W, 3] uint8 RGB.
        joints: [D] rad or m.
        index: its place in the library.
    """

    images: dict[str, Images]
    joints: Floats
    index: int


@dataclass(frozen=True)
class StartLibrary:
    """N real first frames.

    Attributes:
        images: camera -> [N, H, W, 3] uint8 RGB.
        joints: [N, D] float32, rad or m.
        episodes: [N] index of the episode in the dataset they come from.
    """

    images: Mapping[str, Images]
    joints: Floats
    episodes: np.ndarray

    def __len__(self) -> int:
        return len(self.joints)

    def start(self, seed: int) -> Start:
        """The start that belongs to a seed; neighbouring seeds have different ones."""
        i = seed % len(self)
        return Start({k: v[i] for k, v in self.images.items()}, self.joints[i], i)

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, cameras: tuple[str, ...], *, limit: int = MAX_STARTS, source: str = "", split: str = ""
    ) -> StartLibrary:
        """First frames of episodes, spread evenly over the dataset.

        Args:
            dataset: recorded episodes.
            cameras: which cameras.
            limit: at most so many.
            source: only episodes with this ``source`` (``demonstration``); all where none has it.
            split: only episodes of this ``split``; all where none has it.

        Raises:
            ModelError: if the dataset holds no episode.
        """
        chosen = dataset.episodes
        for key, value in (("source", source), ("split", split)):
            chosen = [e for e in chosen if not value or e.meta.get(key) == value] or chosen
        if not chosen:
            raise ModelError(f"{dataset.root}: no episodes to take first frames from")
        picks = np.unique(np.linspace(0, len(chosen) - 1, min(limit, len(chosen))).round().astype(int))
        rows = np.array([chosen[i].start for i in picks])
        images = {c: np.asarray(dataset.images(c)[rows]) for c in cameras}
        joints = np.asarray(dataset.column("observation.state")[rows], np.float32)
        return cls(images, joints, np.array([chosen[i].index for i in picks]))

    def save(self, directory: str | Path) -> None:
        """Write ``library.npz`` into a model directory."""
        arrays: dict[str, np.ndarray] = {"joints": self.joints, "episodes": self.episodes}
        images = {_IMAGE + k: v for k, v in self.images.items()}
        # A file object: numpy would add .npz to a name that does not end so.
        with written_aside(Path(directory) / LIBRARY_FILE) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays, **images)

    @classmethod
    def load(cls, directory: str | Path) -> StartLibrary:
        """Read ``library.npz`` from a model directory.

        Raises:
            ModelError: naming the file and what was expected.
        """
        path = Path(directory) / LIBRARY_FILE
        try:
            with np.load(path, allow_pickle=False) as data:
                images = {k.removeprefix(_IMAGE): data[k] for k in data.files if k.startswith(_IMAGE)}
                library = cls(images, data["joints"], data["episodes"])
        except FileNotFoundError as error:
            raise ModelError(f"{path}: missing; expected first frames written by 'hiwm train world'") from error
        except (ValueError, KeyError, zipfile.BadZipFile, OSError) as error:
            raise ModelError(f"{path}: not a library of first frames ({error})") from error
        if not len(library) or any(len(v) != len(library) or v.dtype != np.uint8 for v in images.values()):
            raise ModelError(f"{path}: expected as many uint8 images as joint positions ({len(library)}), at least one")
        return library
