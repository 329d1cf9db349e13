"""From the compact pixels of a flat clip to patches, and which patches are visible.

Axes: B batch, T frames, X valid pixels (compact, row-major order of the mask), S patches of one frame that hold at
least one valid pixel, G all patches of one frame, A = patch * patch pixels of one patch, K visible patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from boldmill.errors import ConfigError
from boldmill.rng import generator
from boldmill.train.precision import full

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class PatchGrid(nn.Module):
    """The static patch layout of one pixel mask; the mask is data (shard metadata), never inferred from zeros.

    Parameters
    ----------
    mask : ndarray of bool
        (H, W) valid pixels. Sides that are no multiple of ``patch`` are padded with invalid pixels (right, below).
    patch : int
        Patch side, pixels.
    """

    def __init__(self, mask: Bools, patch: int) -> None:
        super().__init__()
        if mask.ndim != 2 or not mask.any():
            raise ConfigError("bad pixel mask", f"shape {mask.shape}", "it is not 2-D or holds no valid pixel",
                              "rebuild the flat_clips shards")  # fmt: skip
        height, width = (-(-side // patch) for side in mask.shape)
        padded = np.zeros((height * patch, width * patch), bool)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        compact = np.full(padded.shape, int(mask.sum()), np.int64)  # one past the end: the padding pixel
        compact[padded] = np.arange(mask.sum())
        by_patch = compact.reshape(height, patch, width, patch).transpose(0, 2, 1, 3).reshape(height * width, -1)
        filled = np.flatnonzero((by_patch < mask.sum()).any(axis=1))
        self.patch = patch
        self.n_pixels = int(mask.sum())
        self.n_all = height * width
        self.n_filled = len(filled)
        self.mask: Tensor
        self.table: Tensor
        self.valid: Tensor
        self.filled: Tensor
        self.register_buffer("mask", torch.from_numpy(np.ascontiguousarray(mask)))  # in the checkpoint: (H, W)
        self.register_buffer("table", torch.from_numpy(by_patch[filled]), persistent=False)  # (S, A)
        self.register_buffer("valid", torch.from_numpy(by_patch[filled] < self.n_pixels), persistent=False)  # (S, A)
        self.register_buffer("filled", torch.from_numpy(filled), persistent=False)  # (S,) index among all G

    def patches(self, pixels: Tensor, picked: Tensor | None = None) -> Tensor:
        """Gather patches: pixels (B, T, X), picked (B, K) indices among the S -> (B, K or S, T, A), 0 where invalid."""
        padded = torch.cat([pixels, pixels.new_zeros(*pixels.shape[:2], 1)], dim=-1)
        batch, frames = pixels.shape[:2]
        if picked is None:
            return padded[:, :, self.table.flatten()].view(batch, frames, self.n_filled, -1).transpose(1, 2)
        index = self.table[picked].flatten(1)  # (B, K * A)
        taken = padded.gather(2, index[:, None, :].expand(-1, frames, -1))
        return taken.view(batch, frames, picked.shape[1], -1).transpose(1, 2)


def n_visible(n_all: int, ratio: float) -> int:
    """Return int((1 - ratio) * n_all), in floating point as published: 48, not 49, of 490 at 0.9.

    >>> n_visible(490, 0.9)
    48
    """
    return int((1 - ratio) * n_all)


def tube_masks(
    scan_ids: Sequence[str],
    clips: Sequence[int],
    purpose: str,
    seed: int,
    grid: PatchGrid,
    ratio: float,
    *,
    decode_share: float = 1.0,
) -> tuple[Ints, Ints]:
    """Draw tube masks: the same visible patches in every frame of a clip.

    Visible patches are drawn from the filled ones only, but counted relative to the whole grid (as published).

    Returns
    -------
    visible, hidden : ndarray of int64
        (B, K) and (B, Q), sorted indices among the filled patches, Q = S - K unless ``decode_share`` takes fewer of
        the hidden ones at random; keyed by (purpose, scan, clip, seed).

    Raises
    ------
    ConfigError
        The ratio leaves no patch visible, or none hidden.
    """
    keep = n_visible(grid.n_all, ratio)
    if not 0 < keep < grid.n_filled:
        raise ConfigError("mask ratio does not fit the grid", f"models.fmri_mae.mask_ratio = {ratio}",
                          f"{keep} of {grid.n_filled} filled patches would be visible",
                          "change the ratio or the patch")  # fmt: skip
    words = np.stack(
        [generator("tube", purpose, scan, clip, seed).random(grid.n_filled)
         for scan, clip in zip(scan_ids, clips, strict=True)]
    )  # fmt: skip
    order = np.argsort(words, axis=1, kind="stable").astype(np.int64)
    asked = max(1, int(decode_share * (grid.n_filled - keep)))
    return np.sort(order[:, :keep], axis=1), np.sort(order[:, keep : keep + asked], axis=1)


def frame_normalise(pixels: Tensor, limit: float | None = 3.0, eps: float = 1e-6) -> Tensor:
    """Z-score each frame over its valid pixels (unbiased SD, float32; float64 stays) and clamp, (B, T, X)."""
    pixels = full(pixels)
    centred = pixels - pixels.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().sum(dim=-1, keepdim=True) / (pixels.shape[-1] - 1)).sqrt().add(eps)
    return scaled if limit is None else scaled.clamp(-limit, limit)
