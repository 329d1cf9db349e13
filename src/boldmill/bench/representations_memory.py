"""Peak memory of parcellation and flat maps of a long run, streamed from an uncompressed NIfTI file.

The child does what the stages do after preprocessing: it opens the file as a cleaned series, averages it over the
parcels, then maps it to the flat grid, z-scored, as float16.

Axes: X voxels, T volumes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.bench.preprocess_run import measured
from boldmill.bench.representations_case import Case, Size, frame_of
from boldmill.bench.table import Row

GIB = 2.0**30
LIMIT = 4.0
CYCLE = 40
"""Distinct volumes of the long run: the rest repeat them, since only memory and time count."""


def rows(case: Case) -> list[Row]:
    """Return the row: peak memory of the child process, with its time in the name."""
    from boldmill.represent.operators import membership, save_arrays, save_operator

    with tempfile.TemporaryDirectory(prefix="boldmill-bench-") as folder:
        root, size, labels = Path(folder), case.size, case.labels
        write_run(root, size, case.mask, labels)
        ids = [int(i) for i in np.unique(labels[case.mask]) if i]
        for name, matrix in (
            ("parcels", membership(labels, ids)),
            ("ribbon", case.ribbon),
            ("flat", case.grid.operator),
        ):
            save_operator(root / f"{name}.npz", matrix)
        save_arrays(root / "grid.npz", affine=size.affine, shape=np.array(size.shape))
        used = measured([sys.executable, "-m", "boldmill.bench.representations_memory", folder], root)
    peak = used.peak_bytes / GIB
    what = f"{size.long_volumes} volumes of {size.mm:g} mm, parcels and flat maps"
    return [
        Row(
            name=f"memory: {what} ({used.cpu_s:.0f} CPU-s)",
            ours=peak,
            peer=None,
            unit="GiB",
            ratio=None,
            goal=f"<= {LIMIT:g} GiB",
            met=peak <= LIMIT,
        )
    ]


def write_run(root: Path, size: Size, mask: Any, labels: Any) -> None:
    """Write ``clean.nii`` (float32, uncompressed, volume by volume) and ``mask.nii`` below a folder."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_shape((*size.shape, size.long_volumes))
    header.set_data_dtype(np.float32)
    header.set_sform(size.affine, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    distinct = [frame_of(size, labels, index) for index in range(min(CYCLE, size.long_volumes))]
    with (root / "clean.nii").open("wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        for index in range(size.long_volumes):
            stream.write(distinct[index % len(distinct)].tobytes())
    grid = mask.astype(np.uint8).reshape(size.shape, order="F")
    nib.save(nib.Nifti1Image(grid, size.affine), root / "mask.nii")


def child(root: Path) -> None:
    """Parcellate and flat-map the run below a folder, as the stages do."""
    from boldmill.represent.flatmap import fill_vertices, flat_run, vertex_series
    from boldmill.represent.operators import load_operator
    from boldmill.represent.parcellate import parcel_series
    from boldmill.represent.series import volume_series
    from boldmill.spaces.meshes import surface
    from boldmill.spaces.surfaces import HEMISPHERES

    with np.load(root / "grid.npz", allow_pickle=False) as stored:
        affine, shape = stored["affine"], tuple(int(n) for n in stored["shape"])
    series = volume_series(root / "clean.nii", root / "mask.nii", affine, shape)
    parcel_series(load_operator(root / "parcels.npz"), series, 0.0)
    values, covered = vertex_series(series, load_operator(root / "ribbon.npz"))
    spheres = [surface("fsLR", "sphere", hemisphere).coords for hemisphere in HEMISPHERES]
    flat_run(fill_vertices(values, covered, spheres), covered, load_operator(root / "flat.npz"), 0.8, 1.0)


if __name__ == "__main__":
    child(Path(sys.argv[1]))
