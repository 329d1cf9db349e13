"""Cleaned series, read in blocks of volumes: a template-space NIfTI, a recipe that makes it, or surface GIFTI.

Axes: n elements (voxels with i fastest, or vertices left then right), T volumes, b volumes of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault, MachineFault
from boldmill.represent.project import Projector, columns_of, gather
from boldmill.spaces.meshes import N_VERTICES, check_mesh

if TYPE_CHECKING:
    from boldmill.preprocess.recipe import Recipe

BLOCK = 128
"""Volumes per block: at 2 mm a block of whole volumes is 462 MB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """A cleaned series.

    Parameters
    ----------
    where : Path
        File it comes from, for messages.
    n_volumes : int
    mask : (n,) array of bool
        Elements with data: inside the run's mask, or vertices with a finite, varying series.
    read : callable
        ``read(columns)`` yields blocks (len(columns), b) of float32, in time order.
    whole : callable, optional
        ``whole()`` yields blocks (n, b) of all elements as they lie in memory, each frame in one piece (Fortran order):
        where there is one, an operator picks its elements from them, without a copy.
    """

    where: Path
    n_volumes: int
    mask: NDArray[np.bool_]
    read: Callable[[NDArray[np.int64]], Iterator[NDArray[np.float32]]]
    whole: Callable[[], Iterator[NDArray[np.float32]]] | None = None

    def through(self, operator: Any, *, exact: bool = False) -> NDArray[Any]:
        """Return an operator (R, n) times the series, over the elements with data: (R, T).

        Parameters
        ----------
        operator : csr_array
        exact : bool
            Sums in float64, returned as such; else float32.

        Raises
        ------
        DataFault
            A value that the operator reads is NaN or infinite: sums pass that on, so only they are looked at.
        """
        columns = columns_of(operator, self.mask, by_row=exact and self.whole is None)
        project = Projector(operator, columns, exact=exact, pick=self.whole is not None)
        found = np.zeros((operator.shape[0], self.n_volumes), np.float64 if exact else np.float32)
        first = 0
        for block in self.read(columns) if self.whole is None else self.whole():
            part = project(block, found[:, first : first + block.shape[1]])
            with np.errstate(invalid="ignore"):
                good = np.isfinite(part.sum(0))
            self._refuse(good, first)
            first += block.shape[1]
        return found

    def _refuse(self, good: Any, first: int) -> None:
        if not good.all():
            why = f"volume {first + int(np.argmin(good))} has values that are not finite"
            raise DataFault("unusable series", self.where, why, "check the raw run")

    def blocks(self, columns: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Yield blocks (len(columns), b), refusing values that are not finite.

        Raises
        ------
        DataFault
            A value inside the mask is NaN or infinite.
        """
        start = 0
        for block in self.read(columns):
            self._refuse(np.isfinite(block).all(0), start)
            start += block.shape[1]
            yield block


def _load(path: Path) -> Any:
    import nibabel as nib

    try:
        return nib.load(path, keep_file_open=True) if path.name.endswith((".nii", ".nii.gz")) else nib.load(path)
    except (OSError, nib.filebasedimages.ImageFileError) as error:
        raise MachineFault("cannot read cleaned series", path, str(error), "rerun the preprocess stage") from error


def volume_series(clean: Path, mask: Path, affine: NDArray[np.float64], shape: tuple[int, ...]) -> Series:
    """Open a cleaned 4-D series in template space.

    Parameters
    ----------
    clean, mask : Path
        4-D series and 3-D mask, both on the output grid.
    affine, shape
        The output grid of the operators.

    Raises
    ------
    MachineFault
        A file is missing, or is on another grid than the operators.
    DataFault
        The mask is empty.
    """
    image, mask_image = _load(clean), _load(mask)
    for path, item in ((clean, image), (mask, mask_image)):
        if tuple(item.shape[:3]) != tuple(shape) or not np.allclose(item.affine, affine, atol=1e-3):
            why = f"its grid {item.shape[:3]} is not the operators' {tuple(shape)}, or it lies elsewhere"
            raise MachineFault("series and operators differ", path, why, "rerun the preprocess and operators stages")
    inside = (np.asarray(mask_image.dataobj) > 0).ravel(order="F")
    if not inside.any():
        raise DataFault("unusable series", mask, "its brain mask is empty", "check the registration of this run")
    total = int(image.shape[3])

    def whole() -> Iterator[NDArray[np.float32]]:
        for first in range(0, total, BLOCK):
            block = np.asarray(image.dataobj[..., first : first + BLOCK], np.float32)
            yield block.reshape(-1, block.shape[3], order="F")

    def read(columns: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        return (gather(block.T, columns) for block in whole())

    return Series(where=clean, n_volumes=total, mask=inside, read=read, whole=whole)


def surface_series(left: Path, right: Path, mesh: str = "fsaverage5") -> Series:
    """Read a cleaned surface series; vertices that are constant or not finite count as without data.

    Raises
    ------
    MachineFault
        A file cannot be read.
    DataFault
        The files are not on the mesh, or their lengths differ.
    """
    expected = N_VERTICES[check_mesh(mesh)]
    halves = []
    for path in (left, right):
        # one array per volume, or one of (V, T); agg_data() would depend on the intent code the writer chose
        values = np.column_stack([np.asarray(array.data, np.float32) for array in _load(path).darrays])
        if values.shape[0] != expected:
            why = f"{values.shape[0]} vertices, not the {expected} of a hemisphere of {mesh}"
            raise DataFault("unusable series", path, why, f"resample the run to {mesh}")
        halves.append(values)
    if halves[0].shape[1] != halves[1].shape[1]:
        why = f"{halves[0].shape[1]} volumes on the left, {halves[1].shape[1]} on the right"
        raise DataFault("unusable series", left, why, "give both hemispheres of the same run")
    series = np.vstack(halves)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(series).all(1) & (series.max(1) > series.min(1))
    total = series.shape[1]

    def read(columns: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        for first in range(0, total, BLOCK):
            yield series[columns, first : first + BLOCK]

    return Series(where=left, n_volumes=total, mask=usable, read=read)


def recipe_series(recipe: Recipe, affine: NDArray[np.float64], shape: tuple[int, ...]) -> Series:
    """Make the cleaned series of a run in memory, where preprocessing did not keep the image: the same values.

    Raises
    ------
    MachineFault
        The raw run or a file of the fit is gone or changed, or the run is on another grid than the operators.
    DataFault
        The mask is empty.
    """
    from boldmill.preprocess.apply import cleaned

    if recipe.grid.shape != tuple(shape) or not np.allclose(recipe.grid.affine, affine, atol=1e-3):
        why = f"its grid {recipe.grid.shape} is not the operators' {tuple(shape)}, or it lies elsewhere"
        raise MachineFault("series and operators differ", recipe.path, why, "rerun the preprocess and operators stages")
    rows, image = cleaned(recipe)
    mask = image.data > 0.5
    if not mask.any():
        raise DataFault("unusable series", recipe.path, "its brain mask is empty", "check the registration of this run")
    number = np.arange(mask.size).reshape(mask.shape, order="F")[mask]  # where each column of rows lies, i fastest
    place = np.full(mask.size, -1)
    place[number] = np.arange(len(number))

    def read(columns: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        index = place[columns]
        for first in range(0, len(rows), BLOCK):
            block = gather(rows[first : first + BLOCK], np.maximum(index, 0))
            block[index < 0] = 0
            yield block

    return Series(where=recipe.path, n_volumes=len(rows), mask=mask.ravel(order="F"), read=read)


def space_of(scan: dict[str, Any]) -> str:
    """Return the mesh of a surface entry of a subject manifest, or ``volume``."""
    return str(scan.get("space") or "fsaverage5") if scan["kind"] == "surface" else "volume"


def files_of(scan: dict[str, Any], results: Path) -> list[str]:
    """Return which files of a manifest entry its cleaned series is read from.

    A kept image that was deleted since (``boldmill clean --what series``) is made again where there is a recipe.
    """
    if scan["kind"] == "surface":
        return ["clean_lh", "clean_rh"]
    files = scan["files"]
    there = "clean" in files and ("recipe" not in files or (results / files["clean"]).is_file())
    return ["clean", "mask"] if there else ["recipe"]


def open_series(scan: dict[str, Any], results: Path, affine: NDArray[np.float64], shape: tuple[int, ...]) -> Series:
    """Open the cleaned series of one entry of a subject manifest; one that was not kept is made from its recipe."""
    from boldmill.preprocess.recipe import Recipe

    files = {key: results / path for key, path in scan["files"].items()}
    match files_of(scan, results):
        case ["clean_lh", "clean_rh"]:
            return surface_series(files["clean_lh"], files["clean_rh"], space_of(scan))
        case ["clean", "mask"]:
            return volume_series(files["clean"], files["mask"], affine, shape)
    return recipe_series(Recipe.read(files["recipe"], results), affine, shape)
