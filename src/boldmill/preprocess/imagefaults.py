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
