"""The object's angle without labels: expectation maximisation over rotations of a polar template.

Each mask is resampled around its centroid on a polar grid of the *plane*, where turning the object is a shift along
the angle axis. Alternately, every mask is shifted to match the template best, and the template becomes the mean.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from hiwm_world_model.layered.discovery import CleanFrames
from hiwm_world_model.layered.plane import PlaneView, image_to_pixels, pixels_to_image

Floats = npt.NDArray[np.float32]
ANGLES, RADII = 180, 20
RADIUS_IN_UNITS = 1.6  # a plane unit is the object's radius divided by this
SQUASHES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
SLOPES = (0.0, 0.12, 0.25, 0.4)
SEARCH_MASKS = 400


def plane_unit(radius: float, width: int) -> float:
    """Image units per plane unit for an object of ``radius`` pixels."""
    return radius / (width / 2) / RADIUS_IN_UNITS


def polar(clean: CleanFrames, rows: npt.NDArray[np.int64], view: PlaneView) -> Floats:
    """Masks on a polar grid around their centroids: [K, RADII, ANGLES], weighted so that areas count alike."""
    size = (clean.masks.shape[1], clean.masks.shape[2])
    angle = torch.arange(ANGLES) * (2 * np.pi / ANGLES)
    radius = (torch.arange(RADII) + 0.5) * (1.2 * RADIUS_IN_UNITS / RADII)
    offsets = torch.stack([radius[:, None] * angle.cos(), radius[:, None] * angle.sin()], -1)
    with torch.no_grad():
        centres = view.to_plane(pixels_to_image(torch.from_numpy(clean.centres[rows]), size))
        points = image_to_pixels(view.to_image(centres[:, None, None] + offsets), size).numpy() - 0.5
    weight = radius.sqrt().numpy()[:, None]
    maps = points.astype(np.float32)
    out = [cv2.remap(clean.masks[k].astype(np.float32), m[..., 0], m[..., 1], cv2.INTER_LINEAR) * weight
           for k, m in zip(rows, maps)]  # fmt: skip
    return np.stack(out).astype(np.float32)


def align(signatures: Floats, start: int, iterations: int) -> tuple[Floats, Floats]:
    """Template matching by rotation.

    Args:
        signatures: [K, RADII, ANGLES] from :func:`polar`.
        start: which signature is the first template.
        iterations: alternations.

    Returns:
        angles [K] in rad relative to the template, and match [K] in 0..1.
    """
    spectrum = np.fft.rfft(signatures, axis=2)
    norms = np.sqrt((signatures**2).sum((1, 2)))
    template = signatures[start]
    index = np.arange(len(signatures))
    shift, score = np.zeros(len(signatures)), np.zeros(len(signatures))
    for _ in range(iterations):
        product = (spectrum * np.conj(np.fft.rfft(template, axis=1))[None]).sum(1)
        match = np.fft.irfft(product, ANGLES, axis=1)
        best = match.argmax(1)
        before, at, after = match[index, (best - 1) % ANGLES], match[index, best], match[index, (best + 1) % ANGLES]
        shift = best + np.clip(0.5 * (before - after) / (before - 2 * at + after - 1e-9), -0.5, 0.5)
        score = at / (norms * np.sqrt((template**2).sum()) + 1e-6)
        good = score >= np.quantile(score, 0.2)
        phase = np.exp(2j * np.pi * np.arange(ANGLES // 2 + 1)[None] * shift[good, None] / ANGLES)
        template = np.fft.irfft((spectrum[good] * phase[:, None]).mean(0), ANGLES, axis=1).astype(np.float32)
    return (shift * 2 * np.pi / ANGLES).astype(np.float32), score.astype(np.float32)


def search_plane(clean: CleanFrames, rng: np.random.Generator) -> PlaneView:
    """The plane in which the object keeps its shape best while it turns."""
    unit = plane_unit(clean.sizes.radius, clean.masks.shape[2])
    rows = np.sort(rng.choice(len(clean.frames), min(SEARCH_MASKS, len(clean.frames)), replace=False))

    def score(squash: float, slope: float) -> float:
        signatures = polar(clean, rows, PlaneView(squash, slope, unit))
        return max(float(align(signatures, start, 5)[1].mean()) for start in (0, 1))

    middle = SLOPES[len(SLOPES) // 2]
    squash = max(SQUASHES, key=lambda s: score(s, middle))
    slope = max(SLOPES, key=lambda s: score(squash, s))
    return PlaneView(squash, slope, unit)


def angles(clean: CleanFrames, view: PlaneView, starts: int = 4) -> tuple[Floats, Floats]:
    """Angle [K] in rad of every clean frame, and how well it matches [K]."""
    signatures = polar(clean, np.arange(len(clean.frames)), view)
    tries = [align(signatures, k, 10) for k in range(min(starts, len(signatures)))]
    return max(tries, key=lambda t: float(t[1].mean()))
