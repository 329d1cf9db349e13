"""Inputs of the bench of representations: one run in MNI152NLin6Asym, its operators, and how floors are read.

The run has what a real one has where it matters for the figures: every voxel a mean of hundreds, grey matter that
fluctuates together within its parcel, noise in each voxel, a brain mask that leaves out voxels of the atlas.

Axes: X voxels (i fastest), T volumes, V vertices, N pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.represent.parallel import each, pieces
from boldmill.rng import generator

CHUNK = 1 << 18
"""Elements a floor reads at a time into memory that stays in the cache (1 MB of float32)."""
DEPTHS = 5
MEAN, NOISE, SHARED = 800.0, 20.0, 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Sizes of the inputs; the names of the rows show them.

    ``mm`` voxel size, ``volumes`` T, ``peer_frames`` frames a slow peer gets; ``parcels``, ``timepoints``, ``views`` of
    pFC; ``clips`` of ``frames`` x ``pixels`` for reading; ``long_volumes`` of the memory row.
    """

    mm: float = 2.0
    volumes: int = 300
    peer_frames: int = 10
    parcels: int = 100
    timepoints: int = 200
    views: int = 1000
    clips: int = 128
    frames: int = 16
    pixels: int = 77763
    long_volumes: int = 1200

    @property
    def shape(self) -> tuple[int, int, int]:
        """The MNI grid: 91 x 109 x 91 at 2 mm."""
        return (round(182 / self.mm), round(218 / self.mm), round(182 / self.mm))

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel to mm."""
        affine = np.diag([self.mm, self.mm, self.mm, 1.0])
        affine[:3, 3] = (-90.0, -126.0, -72.0)
        return affine


FULL = Size()
QUICK = Size(
    mm=6.0, volumes=24, peer_frames=2, parcels=20, timepoints=100, views=40, clips=8, pixels=512, long_volumes=40
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A run in memory: ``frames`` (T, X) float32, as a NIfTI lies; ``mask`` (X,) bool; ``labels`` (X,) 0..100."""

    size: Size
    frames: NDArray[np.float32]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int16]

    def image(self, values: NDArray[Any]) -> Any:
        """Return values (X,) or (T, X) as a NIfTI image, without a copy."""
        import nibabel as nib

        grid = values.T.reshape(*self.size.shape, *values.shape[:-1], order="F")
        return nib.Nifti1Image(grid, self.size.affine)

    @cached_property
    def surface(self) -> str:
        """The flat surface: ``rebuilt``, or ``hcp`` where TemplateFlow's spheres are not there."""
        from boldmill.errors import MachineFault
        from boldmill.spaces.flats import flat_surface

        try:
            flat_surface("rebuilt")
        except MachineFault:
            return "hcp"
        return "rebuilt"

    @cached_property
    def grid(self) -> Any:
        """The flat grid (64,984 vertices of fsLR-32k)."""
        from boldmill.represent.flatgrid import flat_grid
        from boldmill.spaces.flats import flat_surface

        return flat_grid(flat_surface(self.surface))

    @cached_property
    def ribbon(self) -> Any:
        """The operator (V, X) from the volume to fsLR-32k."""
        from boldmill.represent.operators import trilinear
        from boldmill.spaces.meshes import cortex
        from boldmill.spaces.moves import NLIN6
        from boldmill.spaces.ribbon import ribbon_points

        points = np.where(cortex("fsLR")[:, None], ribbon_points(NLIN6, DEPTHS, "fsLR"), np.nan)
        return trilinear(points, self.size.affine, self.size.shape)


def place(size: Size) -> tuple[NDArray[np.bool_], NDArray[np.int16]]:
    """Return the brain mask (X,) and the embedded Schaefer-100 labels (X,) on the grid of MNI152NLin6Asym."""
    from nilearn import datasets, image

    from boldmill.spaces.embedded import schaefer_volume
    from boldmill.spaces.moves import NLIN6

    labels = schaefer_volume(NLIN6, size.affine, size.shape)
    brain = datasets.load_mni152_brain_mask(resolution=2)
    moved = image.resample_img(
        brain, size.affine, size.shape, interpolation="nearest", force_resample=True, copy_header=True
    )
    return (np.asarray(moved.dataobj) > 0).ravel(order="F"), labels.ravel(order="F")


def frame_of(size: Size, labels: NDArray[np.int16], index: int) -> NDArray[np.float32]:
    """Return one volume (X,): a fixed mean per voxel, the parcel's fluctuation, noise."""
    draw = generator("bench", "frame", index)
    own = SHARED * draw.standard_normal(int(labels.max()) + 1, np.float32)
    noise = draw.standard_normal(labels.size, np.float32)
    noise *= np.float32(NOISE)
    noise += _mean(labels.size)
    noise += own[labels]
    return noise


@lru_cache(maxsize=1)
def _mean(n: int) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = MEAN + 100 * generator("bench", "mean").standard_normal(n, np.float32)
    return mean


def draw(size: Size) -> Case:
    """Return the run in memory."""
    mask, labels = place(size)
    frames = np.empty((size.volumes, labels.size), np.float32)

    def one(index: int) -> None:
        frames[index] = frame_of(size, labels, index)

    each(one, range(size.volumes))
    return Case(size=size, frames=frames, mask=mask, labels=labels)


def read_once(arrays: Sequence[NDArray[Any]]) -> None:
    """Read every byte of some arrays once, on the threads of the job: each chunk is copied to memory in the cache."""
    spans = [flat[part] for flat in (a.reshape(-1) for a in arrays) for part in pieces(len(flat), 32 * CHUNK)]

    def one(span: NDArray[Any]) -> None:
        scratch = np.empty(min(len(span), CHUNK), span.dtype)
        for first in range(0, len(span), CHUNK):
            piece = span[first : first + CHUNK]
            np.copyto(scratch[: len(piece)], piece)

    each(one, spans)
