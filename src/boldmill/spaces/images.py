"""Read and write NIfTI and label GIFTI files; the bytes depend on the content only (gzip without a time)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic


def write_nifti(path: str | Path, data: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    """Write a template-space image atomically (``.nii.gz``), with the affine as sform and qform (code 4, MNI152)."""
    import nibabel as nib

    make: Any = nib.Nifti1Image  # untyped in nibabel
    image = make(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    return Path(path)


def resample_labels(
    labels: NDArray[Any], source: NDArray[np.float64], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.signedinteger[Any]]:
    """Resample a label volume to another grid of the same space by the nearest voxel.

    Parameters
    ----------
    labels : (I, J, K) array
        Whole numbers, of any type (a scaled file gives floats next to them).
    source : (4, 4) array
        Its affine.
    affine, shape
        The grid wanted.

    Returns
    -------
    array of int16, or int32 where a label needs it
    """
    whole = np.rint(labels).astype(np.int64)
    kind = np.dtype(np.int16 if abs(whole).max(initial=0) <= np.iinfo(np.int16).max else np.int32)
    to_voxel = np.linalg.inv(source) @ affine
    index = np.indices(shape).reshape(3, -1).T
    where = np.rint(index @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    inside = ((where >= 0) & (where < np.array(labels.shape))).all(1)
    out: NDArray[np.signedinteger[Any]] = np.zeros(len(index), kind)
    i, j, k = where[inside].T
    out[inside] = whole[i, j, k]
    return out.reshape(shape)


def write_labels_gifti(path: str | Path, labels: NDArray[Any], names: dict[int, str], structure: str) -> Path:
    """Write one hemisphere's labels as ``.label.gii``, atomically.

    Parameters
    ----------
    labels : (V,) array of int
    names : dict of int to str
        Label table; 0 is the medial wall.
    structure : str
        ``CortexLeft`` or ``CortexRight``.
    """
    from nibabel import gifti

    make: Any = gifti  # nibabel's GIFTI classes carry no types
    table = make.GiftiLabelTable()
    for key, name in sorted(names.items()):
        shade = (key * 0.618033988749895) % 1.0  # golden ratio: neighbours in the table get distant colours
        label = make.GiftiLabel(
            key=key, red=shade, green=(shade * 7) % 1.0, blue=(shade * 13) % 1.0, alpha=float(key > 0)
        )
        label.label = name
        table.labels.append(label)
    array = make.GiftiDataArray(labels.astype(np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
    image = make.GiftiImage(
        labeltable=table, darrays=[array], meta=make.GiftiMetaData({"AnatomicalStructurePrimary": structure})
    )
    with atomic(path) as temporary:
        temporary.write_bytes(image.to_bytes())
    return Path(path)
