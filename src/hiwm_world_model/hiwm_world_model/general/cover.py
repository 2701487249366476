"""What the arm hides in recorded frames, rendered once per frame and kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hiwm_world_model.general.clips import Recordings, Rows
from hiwm_world_model.general.colour import to_bytes
from hiwm_world_model.general.worlds import GeneralNets

CHUNK = 64


class CoverageCache:
    """Arm coverage of dataset rows, 8 bits a pixel; training comes back to the same rows many times."""

    def __init__(self, nets: GeneralNets, recordings: Recordings) -> None:
        self.nets, self.recordings = nets, recordings
        self._kept: dict[int, Tensor] = {}

    def frames(self, rows: Rows) -> Tensor:
        """uint8 [*rows.shape, cameras, 1, H, W]."""
        flat = rows.reshape(-1)
        self._render(np.array(sorted({int(r) for r in flat} - self._kept.keys()), np.int64))
        return torch.stack([self._kept[int(r)] for r in flat]).unflatten(0, tuple(rows.shape))

    def windows(self, rows: Rows, corners: Rows, crop: int) -> Tensor:
        """uint8 [B, T, cameras, 1, crop, crop] of rows [B, T], cut at ``corners`` [B, cameras, 2]."""
        whole = self.frames(rows)
        cut = [
            torch.stack([whole[b, :, c, :, y : y + crop, x : x + crop] for c, (y, x) in enumerate(corners[b])], 1)
            for b in range(len(rows))
        ]
        return torch.stack(cut)

    @torch.inference_mode()
    def _render(self, rows: Rows) -> None:
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            joints = torch.from_numpy(self.recordings.joints[part].astype(np.float32))
            with torch.autocast("cpu", torch.bfloat16):
                _, covered = self.nets.draw_arms(joints)
            for row, kept in zip(part, to_bytes(covered.unflatten(0, (len(part), -1)))):
                self._kept[int(row)] = kept.clone()
