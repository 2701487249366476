"""Finding the object without labels: what neither the background nor the arm explains, where nothing hides it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hiwm_world_model.layered.config import Sizes
from hiwm_world_model.layered.data import Index, Recording
from hiwm_world_model.nets import ArmRenderer
from hiwm_world_model.nets.arm import over

Floats = npt.NDArray[np.float32]
CHUNK = 64
RESIDUAL_GAIN = 4.0  # residuals are small numbers; the encoder sees them scaled

# A residual counts as an object above this share of the object's own contrast, and well above the noise.
CONTRAST_SHARE = 0.3
NOISE_FACTOR = 4.0
# Blobs this far from the median area are joined with something, or cut.
AREA_BAND = (0.65, 1.5)


@dataclass(frozen=True)
class CleanFrames:
    """Frames that show the whole object.

    Attributes:
        frames: [K] global frame numbers.
        centres: [K, 2] centroid, pixels (x, y), centre of the first pixel is 0.5.
        masks: [K, H, W] uint8, 1 on the object.
        sizes: what was measured.
    """

    frames: Index
    centres: Floats
    masks: npt.NDArray[np.uint8]
    sizes: Sizes


@torch.no_grad()
def arm_layers(arm: ArmRenderer, recording: Recording, frames: Index) -> Iterator[tuple[Index, Tensor, Tensor, Tensor]]:
    """Chunks of (frame numbers, image, arm over background, coverage), each [B, C, H, W]."""
    for first in range(0, len(frames), CHUNK):
        chosen = frames[first : first + CHUNK]
        with torch.autocast("cpu", torch.bfloat16):
            colour, coverage = arm(recording.joints[chosen])
        yield chosen, recording.images(chosen), over(colour, coverage, arm.background), coverage


def encoder_input(image: Tensor, composite: Tensor, coverage: Tensor) -> Tensor:
    """What is left of the image beside the arm, and the arm: [B, 4, H, W]."""
    return torch.cat([(image - composite) * (1 - coverage) * RESIDUAL_GAIN, coverage], 1)


def residual_threshold(arm: ArmRenderer, recording: Recording, frames: Index) -> float:
    """Between the noise of explained pixels and the contrast of what is not explained (0..1)."""
    noise, contrast = [], []
    for _, image, composite, coverage in arm_layers(arm, recording, frames):
        free = (coverage < 0.05).float()
        residual = ((image - composite).abs().amax(1, keepdim=True) * free).flatten(1)
        noise.append(residual.quantile(0.85, dim=1))
        contrast.append(residual.quantile(0.99, dim=1))
    level, high = float(torch.cat(noise).median()), float(torch.cat(contrast).median())
    return max(NOISE_FACTOR * level, CONTRAST_SHARE * high, 1e-3)


def _largest_blob(mask: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float, npt.NDArray[np.float64]] | None:
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return None
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return (labels == best).astype(np.uint8), float(stats[best, cv2.CC_STAT_AREA]), centroids[best] + 0.5


def _touches(blob: npt.NDArray[np.uint8], coverage: npt.NDArray[np.float32]) -> bool:
    """Whether the arm or the border of the image may hide a part of the blob."""
    margin = cv2.dilate(blob, np.ones((5, 5), np.uint8))
    border = margin[0].any() or margin[-1].any() or margin[:, 0].any() or margin[:, -1].any()
    return bool(border or (margin.astype(bool) & (coverage > 0.3)).any())


def find_clean_frames(arm: ArmRenderer, recording: Recording, frames: Index) -> CleanFrames:
    """Whole-object frames among ``frames``, and the object's size.

    Raises:
        ValueError: if fewer than 20 frames show anything that the arm and the background do not explain.
    """
    threshold = residual_threshold(arm, recording, frames[:: max(1, len(frames) // 256)])
    numbers, masks, areas, centres = [], [], [], []
    for chosen, image, composite, coverage in arm_layers(arm, recording, frames):
        wrong = ((image - composite).abs().amax(1) > threshold) & (coverage[:, 0] < 0.5)
        for number, mask, covered in zip(chosen, wrong.numpy().astype(np.uint8), coverage[:, 0].numpy()):
            blob = _largest_blob(mask)
            if blob is not None and not _touches(blob[0], covered):
                numbers.append(int(number))
                masks.append(blob[0])
                areas.append(blob[1])
                centres.append(blob[2])
    area = np.asarray(areas)
    # Specks are frequent where the object is hidden; the object is the large mode.
    median = float(np.median(area[area > 0.25 * np.quantile(area, 0.9)])) if len(area) else 0.0
    keep = np.flatnonzero((area > AREA_BAND[0] * median) & (area < AREA_BAND[1] * median))
    if len(keep) < 20:
        raise ValueError(
            f"only {len(keep)} of {len(frames)} frames show an object of one size (residual threshold {threshold:.3f});"
            " expected a fixed camera, a still background and one object beside the arm"
        )
    kept_masks = np.stack([masks[i] for i in keep])
    kept_centres = np.stack([centres[i] for i in keep]).astype(np.float32)
    radius = _radius(kept_masks, kept_centres)
    sizes = Sizes(residual_threshold=threshold, radius=radius, area=median)
    return CleanFrames(np.asarray(numbers, np.int64)[keep], kept_centres, kept_masks, sizes)


def _radius(masks: npt.NDArray[np.uint8], centres: Floats) -> float:
    """90 % quantile over frames of the farthest object pixel."""
    farthest = []
    for mask, centre in zip(masks, centres):
        y, x = np.nonzero(mask)
        farthest.append(np.hypot(x + 0.5 - centre[0], y + 0.5 - centre[1]).max())
    return float(np.quantile(farthest, 0.9))
