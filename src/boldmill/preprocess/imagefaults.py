"""What can be wrong with an image file, told apart: a fault of the data, or of the disk it lies on."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault, MachineFault


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Turn what nibabel raises while it reads an image into a fault of the data or of the machine.

    Raises
    ------
    DataFault
        Truncated or broken file.
    MachineFault
        The file is not there or cannot be opened.
    """
    import nibabel

    fix = "replace the file with an intact copy and run `snakemake ingest` again"
    if not Path(path).exists():
        raise MachineFault(
            f"cannot open {what}", path, "there is no such file", "restore it, or run `snakemake ingest`"
        )
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, nibabel.filebasedimages.ImageFileError) as error:
        raise DataFault(f"cannot read {what}", path, f"the file is broken ({error})", fix) from error
    except nibabel.spatialimages.HeaderDataError as error:
        raise DataFault(f"cannot read {what}", path, f"the header is broken ({error})", fix) from error
    except OSError as error:
        if error.errno is None:  # nibabel: fewer bytes than the header says
            raise DataFault(f"cannot read {what}", path, f"the file is truncated ({error})", fix) from error
        why = error.strerror or str(error)
        raise MachineFault(f"cannot open {what}", path, why, "check the disk or mount, then rerun") from error


def sound_affine(image: Any, path: str | Path, what: str) -> NDArray[np.float64]:
    """Return the affine (4, 4) of a nibabel image.

    Raises
    ------
    DataFault
        It is singular or not finite.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        fix = "restore qform/sform from the scanner data"
        raise DataFault(f"cannot use {what}", path, "its affine is singular", fix)
    return affine


LARGEST = 1e15
"""Larger values overflow single precision as soon as they are squared: only a broken scale factor makes them."""
FORMS_MM = 1.0
"""Distance between the placements of qform and sform above which an image is flagged, mm."""
FEW_COVERED = 0.9
"""Share of the brain inside the field of view of all volumes below which a run is flagged."""


def finite_values(data: NDArray[Any], image: Any, path: str | Path, what: str) -> NDArray[Any]:
    """Return data with values that are not finite as 0.

    Raises
    ------
    DataFault
        Stored integers became infinite: the scale of the header overflows.
    """
    finite = np.isfinite(data)
    if finite.all():
        return data
    if np.dtype(image.header.get_data_dtype()).kind in "iu":
        sane_scale(-np.inf, np.inf, path, what)
    return np.where(finite, data, np.float32(0))


def sane_scale(low: float, high: float, path: str | Path, what: str) -> None:
    """Refuse an image whose values only a broken scale factor explains.

    Raises
    ------
    DataFault
        A value overflows single precision, or would when squared.
    """
    if not max(abs(low), abs(high)) < LARGEST:
        why = f"its values reach {max(abs(low), abs(high)):.3g}: the scale of its header overflows"
        raise DataFault(f"cannot use {what}", path, why, "correct scl_slope and scl_inter, or convert the image again")


def forms_apart(path: str | Path, what: str) -> float:
    """Return how far qform and sform place the corners of an image apart at most, mm; 0 where only one is set."""
    import nibabel

    with reading(path, what):
        header: Any = nibabel.load(path).header
        if "qform_code" not in header or not (int(header["qform_code"]) > 0 and int(header["sform_code"]) > 0):
            return 0.0
        forms = [np.asarray(header.get_qform()), np.asarray(header.get_sform())]
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in header.get_data_shape()[:3]])).reshape(3, -1)
    first, second = (form[:3, :3] @ corners + form[:3, 3:] for form in forms)
    return float(np.linalg.norm(first - second, axis=0).max())


def form_flags(path: str | Path, what: str) -> list[str]:
    """Return a flag where qform and sform disagree: the sform is used, as nibabel does."""
    apart = forms_apart(path, what)
    return [f"qform and sform of the {what} disagree by {apart:.0f} mm: the sform is used"] if apart > FORMS_MM else []
