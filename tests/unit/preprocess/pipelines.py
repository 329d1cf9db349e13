"""Small trees in the layouts of fMRIPrep, C-PAC, XCP-D, HALFpipe and HCP, with planted signals. Seeded, byte-stable.

Every series is ``level + signal + nuisance``: the nuisance is a mix of the motion columns the run comes with, the
signal is a slow sine that differs from element to element in strength.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from boldmill.spaces.names import atlas_label

SPACE = "MNI152NLin6Asym"
T, TR = 40, 2.0
AFFINE = np.array([[6.0, 0, 0, -90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]])
SHAPE = (12, 11, 10)
AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
VERTICES, CORTEX, VOXELS = 32492, (29696, 29716), 31870


def write(root: Path, path: str, content: bytes | str | dict[str, Any]) -> Path:
    """Write bytes (compressed for .gz), text or JSON below a root."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(content) if isinstance(content, dict) else content
    raw = data.encode() if isinstance(data, str) else data
    target.write_bytes(gzip.compress(raw, mtime=0, compresslevel=1) if path.endswith(".gz") else raw)
    return target


def describe(root: Path, generator: str) -> None:
    """Write dataset_description.json of a pipeline."""
    made = [{"Name": generator, "Version": "1.0"}]
    write(root, "dataset_description.json", {"Name": "x", "DatasetType": "derivative", "GeneratedBy": made})


def motion(seed: int, count: int = T) -> np.ndarray:
    """Return motion parameters (T, 6): mm, then rad."""
    walk = np.random.default_rng(seed).normal(size=(count, 6)).cumsum(axis=0)
    return walk * np.array([0.05] * 3 + [0.0008] * 3)


def mixed(moves: np.ndarray, elements: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a series (T, V) with nuisance, and the planted signal (T, V) in it."""
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * 0.05 * TR * np.arange(len(moves)) + 0.3)
    signal = wave[:, None] * rng.uniform(1.0, 3.0, elements)
    scaled = (moves - moves.mean(0)) / moves.std(0)
    return (1000.0 + signal + scaled @ rng.normal(0, 4, (moves.shape[1], elements))).astype(np.float32), signal


def tsv(columns: dict[str, np.ndarray]) -> str:
    """Return a table as TSV, n/a for NaN."""
    rows = np.stack(list(columns.values()), axis=1)
    lines = ["\t".join("n/a" if np.isnan(v) else f"{v:.12g}" for v in row) for row in rows]
    return "\n".join(["\t".join(columns), *lines]) + "\n"


def confounds(moves: np.ndarray) -> dict[str, np.ndarray]:
    """Return fMRIPrep's columns of motion, with FD (Power, radius 50 mm) by its definition."""
    step = np.abs(np.diff(moves, axis=0)) @ np.array([1, 1, 1, 50, 50, 50])
    return {**dict(zip(AXES, moves.T, strict=True)), "framewise_displacement": np.concatenate([[np.nan], step])}


def image(data: np.ndarray, affine: np.ndarray = AFFINE, tr: float = TR) -> bytes:
    """Return an uncompressed NIfTI."""
    made = nib.Nifti1Image(np.ascontiguousarray(data.astype(np.float32)), affine)
    made.set_sform(affine, 4)
    if data.ndim == 4:
        made.header.set_xyzt_units("mm", "sec")
        made.header.set_zooms((*made.header.get_zooms()[:3], tr))
    return made.to_bytes()


def brain(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return a mask that leaves out the outer voxels."""
    mask = np.zeros(shape)
    mask[1:-1, 1:-1, 1:-1] = 1
    return mask


def volume(moves: np.ndarray, seed: int) -> np.ndarray:
    """Return a 4D series of the mask's voxels."""
    series, _ = mixed(moves, int(np.prod(SHAPE)), seed)
    return series.T.reshape(*SHAPE, len(moves))


def fmriprep_volume(root: Path, sub: str, *, space: str = SPACE, seed: int = 1, task: str = "rest") -> None:
    """Write one fMRIPrep run: volume, mask, sidecar, confounds."""
    stem = f"sub-{sub}/func/sub-{sub}_task-{task}"
    moves = motion(seed)
    write(root, f"{stem}_space-{space}_res-2_desc-preproc_bold.nii.gz", image(volume(moves, seed)))
    write(root, f"{stem}_space-{space}_res-2_desc-preproc_bold.json", {"RepetitionTime": TR, "SkullStripped": False})
    write(root, f"{stem}_space-{space}_res-2_desc-brain_mask.nii.gz", image(brain()))
    write(root, f"{stem}_desc-confounds_timeseries.tsv", tsv(confounds(moves)))


def gifti(series: np.ndarray) -> bytes:
    """Return a GIFTI of a series (T, V), one array per volume."""
    arrays = [nib.gifti.GiftiDataArray(row, "NIFTI_INTENT_TIME_SERIES", "NIFTI_TYPE_FLOAT32") for row in series]
    return nib.gifti.GiftiImage(darrays=arrays).to_bytes()


def used_vertices(side: int) -> np.ndarray:
    """Return which of the 32,492 vertices of a hemisphere have data in these fixtures."""
    return np.arange(VERTICES - CORTEX[side], VERTICES)


def dtseries(cortex: list[np.ndarray], tr: float = TR, drop: int = 0) -> bytes:
    """Return a CIFTI series of 91,282 grayordinates from both cortices (T, 32,492); ``drop`` leaves some voxels out."""
    axes = nib.cifti2.cifti2_axes
    space = np.zeros((91, 109, 91), bool)
    space.ravel()[: VOXELS - drop] = True
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    models = axes.BrainModelAxis.from_surface(used_vertices(0), VERTICES, "CORTEX_LEFT")
    models += axes.BrainModelAxis.from_surface(used_vertices(1), VERTICES, "CORTEX_RIGHT")
    models += axes.BrainModelAxis.from_mask(space, name="THALAMUS_LEFT", affine=affine)
    data = np.zeros((len(cortex[0]), len(models)), np.float32)
    data[:, : CORTEX[0]] = cortex[0][:, used_vertices(0)]
    data[:, CORTEX[0] : sum(CORTEX)] = cortex[1][:, used_vertices(1)]
    series = axes.SeriesAxis(0.0, tr, len(data))
    made = nib.Cifti2Image(data, (series, models))
    made.nifti_header.set_intent("ConnDenseSeries")
    return made.to_bytes()


def write_dtseries(root: Path, path: str, cortex: list[np.ndarray], **more: Any) -> None:
    """Write a CIFTI series."""
    write(root, path, dtseries(cortex, **more))


def cortex(moves: np.ndarray, seed: int, vertices: int = VERTICES) -> list[np.ndarray]:
    """Return both hemispheres (T, V) of a run."""
    return [mixed(moves, vertices, seed + side)[0] for side in (0, 1)]


def schaefer(count: int, networks: tuple[str, ...] = ("Vis", "SomMot", "Default")) -> list[str]:
    """Return names in the manner of Schaefer's parcels, left then right."""
    out = []
    for side in ("LH", "RH"):
        for index in range(count // 2):
            network = networks[index * len(networks) // (count // 2)]
            out.append(f"7Networks_{side}_{network}_{index + 1}")
    return out


def operators(folder: Path, names: list[str], atlas: str) -> Path:
    """Write the part of an operators manifest that parcel series need."""
    grid = {"affine": AFFINE.tolist(), "shape": list(SHAPE)}
    parcels = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    about = {"schema": 2, "what": "parcels", "label": atlas_label(atlas), "atlas": atlas, "space": "toy", "grid": grid}
    return write(folder, "parcels-asked.json", {**about, "parcels": parcels, "operators": {}})
