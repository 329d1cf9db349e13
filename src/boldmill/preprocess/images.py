"""Images in and out: NIfTI files, SimpleITK conversion, regular grids.

Axes: X Y Z voxels, T time, C components. Affines are 4x4, voxel index to world millimetres, RAS+.
SimpleITK works in LPS and stores arrays as (Z, Y, X); only this module knows.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic
from boldmill.errors import DataFault
from boldmill.preprocess.imagefaults import finite_values, reading, sane_scale, sound_affine

Array = NDArray[Any]
Float = NDArray[np.float64]
Dtype = Literal["float32", "int16", "uint8"]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAX_SHEAR = 1e-3
"""Largest cosine between two voxel axes that rounding of an affine explains."""


def nib() -> Any:
    """Return nibabel, imported when first needed (its functions carry no types)."""
    import nibabel

    return nibabel


def sitk() -> Any:
    """Return SimpleITK, imported when first needed (its functions carry no types)."""
    import SimpleITK

    return SimpleITK


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A regular grid: ``shape`` (X, Y, Z) and the voxel-to-world ``affine`` (4, 4)."""

    shape: tuple[int, int, int]
    affine: Float

    @property
    def zooms(self) -> Float:
        """Voxel sizes, mm, (3,)."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def points(self) -> Float:
        """World coordinates of all voxel centres in C order, (X*Y*Z, 3), mm."""
        index = np.indices(self.shape).reshape(3, -1).T.astype(np.float64)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether shape and affine (mm) agree."""
        return self.shape == other.shape and bool(np.allclose(self.affine, other.affine, atol=tolerance))


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Voxel data (X, Y, Z[, T or C]) with its affine; ``tr`` is the header's repetition time (s) of a series."""

    data: Array
    affine: Float
    tr: float | None = None

    @property
    def grid(self) -> Grid:
        """The spatial grid."""
        x, y, z = self.data.shape[:3]
        return Grid((int(x), int(y), int(z)), self.affine)

    def like(self, data: Array) -> Volume:
        """Return other data on the same grid."""
        return Volume(data, self.affine, self.tr)


def read_volume(path: str | Path, *, canonical: bool = False, ndim: Literal[3, 4] = 3, what: str = "image") -> Volume:
    """Read a NIfTI file as float32.

    Parameters
    ----------
    path : str or Path
        The file.
    canonical : bool
        Reorder and flip the axes to the nearest RAS+ orientation (no interpolation).
    ndim : 3 or 4
        Expected dimensions; trailing axes of length 1 are dropped or added.
    what : str
        What the file is, for the message.

    Returns
    -------
    Volume
        float32 data with non-finite values set to 0; ``tr`` in seconds where the header states it.

    Raises
    ------
    DataFault
        Truncated or broken file, wrong dimensions, singular affine, or no signal at all.
    MachineFault
        The file cannot be opened.
    """
    nibabel = nib()
    with reading(path, what):
        image: Any = nibabel.load(path)
        if canonical:
            image = nibabel.as_closest_canonical(image)
        data = np.asanyarray(image.dataobj, dtype=np.float32)
    while data.ndim > ndim and data.shape[-1] == 1:
        data = data[..., 0]
    while data.ndim < ndim and ndim == 4:
        data = data[..., np.newaxis]
    if data.ndim != ndim:
        why = f"it has {data.ndim} dimensions {data.shape}, expected {ndim}"
        raise DataFault(f"cannot use {what}", path, why, "give a file with the right dimensions, or exclude it")
    affine = sound_affine(image, path, what)
    data = finite_values(data, image, path, what)
    sane_scale(float(data.min()), float(data.max()), path, what)
    if float(data.min()) == float(data.max()):
        raise DataFault(f"cannot use {what}", path, "all voxels are equal", "exclude the scan or restore the file")
    return Volume(data, affine, _header_tr(image) if ndim == 4 else None)


def _header_tr(image: Any) -> float | None:
    """Repetition time of the header in seconds; its unit is often milliseconds (BIDS sidecars win over it)."""
    zooms = image.header.get_zooms()
    if len(zooms) < 4 or not np.isfinite(zooms[3]) or zooms[3] <= 0:
        return None
    scale = {"msec": 1e-3, "usec": 1e-6}.get(image.header.get_xyzt_units()[1], 1.0)
    return float(zooms[3]) * scale


def write_volume(
    path: str | Path,
    data: Array,
    affine: Float,
    *,
    dtype: Dtype = "float32",
    tr: float | None = None,
    template: bool = False,
) -> Path:
    """Write a gzipped NIfTI atomically; the same data always give the same bytes (no time, no name inside).

    Parameters
    ----------
    path : str or Path
        Ends with ``.nii.gz``, or ``.nii`` (scratch files).
    data : array (X, Y, Z[, T or C])
        Values; integers are rounded first.
    affine : array (4, 4)
        Voxel to world, RAS+.
    dtype : str
        Type on disk, unscaled.
    tr : float, optional
        Repetition time of a series, s.
    template : bool
        Whether the world is a template space (sform code ``mni``) or the scanner's.
    """
    nibabel = nib()
    values = np.asarray(data)
    if dtype != "float32":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    image: Any = nibabel.Nifti1Image(np.ascontiguousarray(values.astype(dtype)), affine, dtype=dtype)
    code = "mni" if template else "scanner"
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec" if tr else "unknown")
    if tr and values.ndim == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        if Path(path).suffix == ".nii":
            image.to_stream(handle)
        else:
            with gzip.GzipFile(filename="", mode="wb", fileobj=handle, compresslevel=1, mtime=0) as zipped:
                image.to_stream(zipped)
    return Path(path)


def to_sitk(data: Array, affine: Float) -> Any:
    """Return a 3D float32 SimpleITK image of RAS data (X, Y, Z).

    Raises
    ------
    DataFault
        The affine is sheared, which no rotation and voxel size can express.
    """
    itk = sitk()
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    direction = affine[:3, :3] / zooms
    shear = float(np.abs(direction.T @ direction - np.eye(3)).max())
    if shear > MAX_SHEAR:
        why = f"its voxel axes are not orthogonal (cosine {shear:.3f})"
        raise DataFault("cannot use image", "affine", why, "resample it to an orthogonal grid before BIDS conversion")
    left, _, right = np.linalg.svd(direction)
    direction = RAS_TO_LPS[:3, :3] @ (left @ right)
    stored = np.ascontiguousarray(np.asarray(data, dtype=np.float32).transpose(2, 1, 0))
    image: Any = itk.GetImageFromArray(stored)
    image.SetSpacing([float(z) for z in zooms])
    image.SetOrigin([float(v) for v in RAS_TO_LPS[:3, :3] @ affine[:3, 3]])
    image.SetDirection([float(v) for v in direction.ravel()])
    return image


def from_sitk(image: Any) -> Volume:
    """Return RAS data (X, Y, Z) and affine of a 3D SimpleITK image."""
    itk = sitk()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    stored: Array = itk.GetArrayFromImage(image)
    return Volume(stored.transpose(2, 1, 0), RAS_TO_LPS @ affine)


def regrid(grid: Grid, zoom: float) -> Grid:
    """Return an axis-aligned copy of a RAS grid with isotropic voxels of ``zoom`` mm over the same field of view.

    The first voxel centre is kept, so that a grid asked for its own voxel size is unchanged; the last voxel
    centre lies at most one new voxel inside the old one.
    """
    extent = (np.array(grid.shape) - 1) * grid.zooms
    count = np.floor(extent / zoom + 1e-6).astype(int) + 1
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] / grid.zooms * zoom
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def crop_grid(grid: Grid, low: Array, high: Array) -> Grid:
    """Return the sub-grid of voxels ``low`` (inclusive) to ``high`` (exclusive), clipped to the grid."""
    low = np.clip(np.asarray(low, dtype=int), 0, grid.shape)
    high = np.clip(np.asarray(high, dtype=int), low + 1, grid.shape)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.affine[:3, :3] @ low + grid.affine[:3, 3]
    return Grid((int(high[0] - low[0]), int(high[1] - low[1]), int(high[2] - low[2])), affine)


def crop_volume(volume: Volume, low: Array, high: Array) -> Volume:
    """Return the voxels ``low`` (inclusive) to ``high`` (exclusive) of a volume, on their sub-grid."""
    grid = crop_grid(volume.grid, low, high)
    low = np.clip(np.asarray(low, dtype=int), 0, volume.data.shape[:3])
    part = volume.data[tuple(slice(int(a), int(a) + n) for a, n in zip(low, grid.shape, strict=True))]
    return Volume(np.ascontiguousarray(part), grid.affine, volume.tr)


def bounding_box(mask: Array, margin: int = 0) -> tuple[Array, Array]:
    """Return first (inclusive) and last (exclusive) voxel of a mask's box, widened by ``margin`` voxels."""
    where = np.argwhere(mask)
    return np.asarray(where.min(axis=0) - margin), np.asarray(where.max(axis=0) + 1 + margin)
