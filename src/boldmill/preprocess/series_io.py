"""Series in and out: scratch arrays between steps, masked 4D images streamed volume by volume, surface series.

Axes: X Y Z voxels, T time, N voxels of a mask in C order, V vertices.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic
from boldmill.errors import DataFault
from boldmill.preprocess.imagefaults import reading
from boldmill.preprocess.images import Grid

Array = NDArray[Any]


def save_series(path: str | Path, series: Array) -> str:
    """Write a scratch array; 4D series keep time outermost, so that one volume is one read."""
    with open(path, "wb") as handle:
        np.save(handle, series, allow_pickle=False)
    return str(path)


def load_series(path: str | Path, *, writable: bool = False) -> Array:
    """Map a scratch array into memory; ``writable`` reads it whole instead."""
    return np.asarray(np.load(path, mmap_mode=None if writable else "r", allow_pickle=False))


@contextmanager
def row_writer(path: str | Path, n_rows: int, n_columns: int) -> Iterator[Callable[[Array], None]]:
    """Yield a function that appends rows (n, N) to a scratch array (T, N), so that it is never in memory whole."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, n_columns)}
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)

        def append(rows: Array) -> None:
            handle.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())

        yield append


def row_count(path: str | Path) -> int:
    """Return T of a scratch array (T, N)."""
    with open(path, "rb") as handle:
        return _row_shape(handle)[0]


def read_rows(path: str | Path, block: int = 16) -> Iterator[Array]:
    """Yield the rows (n, N) of a scratch array, ``block`` at a time: plain reads, no mapped pages."""
    with open(path, "rb") as handle:
        count, width = _row_shape(handle)
        for start in range(0, count, block):
            size = min(block, count - start)
            yield np.fromfile(handle, "<f4", size * width).reshape(size, width)


def rows_of(path: str | Path) -> Iterator[Array]:
    """Yield the rows (N,) of a scratch array one by one."""
    return (row for block in read_rows(path) for row in block)


def _row_shape(handle: IO[bytes]) -> tuple[int, int]:
    np.lib.format.read_magic(handle)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
    if fortran or dtype != np.dtype("<f4") or len(shape) != 2:
        raise ValueError(f"{handle.name} is not a float32 array of rows")
    return int(shape[0]), int(shape[1])


def write_masked_series(
    path: str | Path,
    series: Iterable[Array],
    n_volumes: int,
    mask: Array,
    affine: Array,
    tr: float,
    *,
    template: bool = True,
) -> Path:
    """Write series (T, N) of a mask as a 4D float32 NIfTI, zero outside, one volume in memory at a time.

    The same data always give the same bytes.

    Parameters
    ----------
    path : str or Path
        Ends with ``.nii.gz``.
    series : iterable of arrays (N,)
        Volumes in order: values in the C order of the mask's voxels.
    n_volumes : int
        T.
    mask : bool array (X, Y, Z)
        Where they lie.
    affine : array (4, 4)
        Voxel to world.
    tr : float
        Repetition time, s.
    template : bool
        Whether the world is a template space.
    """
    import nibabel

    nifti: Any = nibabel.Nifti1Header
    header = nifti(endianness="<")
    header.set_data_dtype("<f4")
    header.set_data_shape((*mask.shape, n_volumes))
    code = "mni" if template else "scanner"
    header.set_sform(affine, code=code)
    header.set_qform(affine, code=code, strip_shears=True)
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((*header.get_zooms()[:3], tr))
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    volume = np.zeros(mask.shape, dtype="<f4")
    with (
        atomic(path) as temporary,
        open(temporary, "wb") as handle,
        gzip.GzipFile(filename="", mode="wb", fileobj=handle, compresslevel=1, mtime=0) as zipped,
    ):
        header.write_to(zipped)
        for row in series:
            volume[mask] = row
            zipped.write(volume.tobytes(order="F"))
    return Path(path)


def image_of(values: Array, mask: Array) -> Array:
    """Return values (N,) of a mask as an image (X, Y, Z), zero outside, float32."""
    out = np.zeros(mask.shape, dtype=np.float32)
    out[mask] = values
    return out


def grid_of(shape: Any, affine: Any) -> Grid:
    """Return a grid from plain numbers (nipype's traits)."""
    x, y, z = (int(n) for n in shape)
    return Grid((x, y, z), np.asarray(affine, dtype=np.float64).reshape(4, 4))


def read_surface(path: str | Path) -> Array:
    """Read a surface series (T, V) float32 from GIFTI (``.func.gii``, one array per time point) or ``.mgz``.

    Raises
    ------
    DataFault
        A broken file, or not a series.
    MachineFault
        The file cannot be opened.
    """
    from xml.parsers.expat import ExpatError

    import nibabel

    fix = "give a GIFTI with one data array per time point"
    with reading(path, "surface series"):
        try:
            image: Any = nibabel.load(path)
        except (ValueError, ExpatError) as error:  # expat: the XML of a truncated GIFTI
            raise EOFError(" ".join(str(error).split())) from error
    if hasattr(image, "darrays"):
        arrays = [np.asarray(array.data, dtype=np.float32) for array in image.darrays]
        if len({array.shape for array in arrays}) != 1:
            raise DataFault(
                "cannot read surface series", path, "its data arrays differ in shape or there are none", fix
            )
        series = np.stack(arrays) if arrays[0].ndim == 1 else arrays[0].T
    else:
        data = np.asanyarray(image.dataobj, dtype=np.float32)
        series = data.reshape(-1, data.shape[-1]).T if data.ndim == 4 else data.T
    if series.ndim != 2 or len(series) < 2:
        raise DataFault("cannot read surface series", path, f"its shape is {series.shape}", fix)
    return np.ascontiguousarray(series)


STRUCTURE = {"L": "CortexLeft", "R": "CortexRight"}


def write_surface(path: str | Path, series: Array, hemisphere: str, tr: float, meta: Mapping[str, str]) -> Path:
    """Write a surface series (T, V) as a GIFTI of float32 arrays; the same data always give the same bytes.

    Parameters
    ----------
    path : str or Path
        Ends with ``.func.gii``.
    series : array (T, V)
        Values.
    hemisphere : str
        ``"L"`` or ``"R"``.
    tr : float
        Repetition time, s.
    meta : mapping
        More entries of the file's metadata.
    """
    from nibabel import gifti

    make: Any = gifti

    named = {"AnatomicalStructurePrimary": STRUCTURE[hemisphere], "TimeStep": f"{1000.0 * tr:g}", **meta}
    arrays = [
        make.GiftiDataArray(
            np.asarray(row, dtype=np.float32), intent="NIFTI_INTENT_TIME_SERIES", datatype="NIFTI_TYPE_FLOAT32"
        )
        for row in series
    ]
    image = make.GiftiImage(meta=make.GiftiMetaData(named), darrays=arrays)
    with atomic(path) as temporary:
        temporary.write_bytes(image.to_xml())
    return Path(path)
