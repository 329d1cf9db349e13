"""The one real run of the demo: a resting-state run on fsaverage5 that the ``brainspace`` wheel carries.

Written as a BIDS derivative, so that real data enter at the surface stage. The wheel is located, never imported.

Axis legend: V vertices of one hemisphere (10,242), T volumes (652).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import atomic, write_json, write_text
from boldmill.demo.bids import BIDS_VERSION, generated_by
from boldmill.errors import MachineFault
from boldmill.spaces.packages import package_file

SUBJECT, SESSION = "010188", "02"
SOURCE = f"sub-{SUBJECT}_ses-{SESSION}_task-rest_acq-AP_run-01"
FOLDER = "datasets/preprocessing"
TR = 1.4
VERTICES = 10242
MEMBERS = [f"{FOLDER}/{SOURCE}.fsa5.lh.mgz", f"{FOLDER}/{SOURCE}.fsa5.rh.mgz", f"{FOLDER}/{SOURCE}_confounds.txt"]
REFERENCES = [
    "Babayan et al. 2019, Scientific Data 6:180308, doi:10.1038/sdata.2018.308",
    "Vos de Wael et al. 2020, Communications Biology 3:103, doi:10.1038/s42003-020-0794-7",
]


def sources() -> list[Path]:
    """Return the three files of the wheel, located without importing it."""
    return [package_file("brainspace", member) for member in MEMBERS]


def write_surface_run(root: Path) -> list[Path]:
    """Write the derivative data set and return its files.

    Raises
    ------
    MachineFault
        The wheel or one of its files is missing, or a file does not have the expected shape.
    """
    import nibabel as nib

    left, right, confounds = sources()
    func = root / f"sub-{SUBJECT}" / f"ses-{SESSION}" / "func"
    files: list[Path] = []
    counts: set[int] = set()
    for hemisphere, source in (("L", left), ("R", right)):
        image: Any = nib.load(source)
        series = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[0], -1)
        if len(series) != VERTICES:
            raise MachineFault(
                "cannot read the real run", source, f"{len(series)} vertices, not {VERTICES}", "use brainspace 0.3.0"
            )
        counts.add(series.shape[1])
        name = f"{SOURCE}_hemi-{hemisphere}_space-fsaverage5_bold"
        files.append(_write_gifti(func / f"{name}.func.gii", series, hemisphere))
        files.append(write_json(func / f"{name}.json", _sidecar(source.name)))
    table = np.loadtxt(confounds)
    if counts != {len(table)}:
        raise MachineFault(
            "cannot read the real run", confounds, f"{len(table)} rows, runs of {counts}", "use brainspace 0.3.0"
        )
    names = [f"confound_{column:02d}" for column in range(table.shape[1])]
    lines = ["\t".join(names), *("\t".join(f"{value:.10g}" for value in row) for row in table)]
    stem = func / f"{SOURCE}_desc-confounds_timeseries"
    files.append(write_text(stem.with_suffix(".tsv"), "\n".join(lines) + "\n"))
    unnamed = "unnamed in the source; no column is known to be a motion parameter, so framewise displacement is n/a"
    files.append(
        write_json(
            stem.with_suffix(".json"),
            {"Sources": [f"brainspace wheel: {MEMBERS[2]}"], **{n: {"Description": unnamed} for n in names}},
        )
    )
    return sorted(files + _write_tree(root))


def _write_gifti(path: Path, series: Any, hemisphere: str) -> Path:
    """Write a (V, T) float32 series as GIFTI, one data array per volume."""
    from nibabel import gifti

    make: Any = gifti  # nibabel's GIFTI classes carry no types
    structure = {"L": "CortexLeft", "R": "CortexRight"}[hemisphere]
    meta = make.GiftiMetaData({"AnatomicalStructurePrimary": structure})
    arrays = [
        make.GiftiDataArray(
            np.ascontiguousarray(series[:, volume]),
            intent="NIFTI_INTENT_TIME_SERIES",
            datatype="NIFTI_TYPE_FLOAT32",
            encoding="GIFTI_ENCODING_B64GZ",
        )
        for volume in range(series.shape[1])
    ]
    with atomic(path) as temporary:
        temporary.write_bytes(make.GiftiImage(meta=meta, darrays=arrays).to_xml())
    return path


def _sidecar(source: str) -> dict[str, Any]:
    return {
        "RepetitionTime": TR,
        "RepetitionTimeNote": "From the LEMON protocol (TR 1400 ms); the header of the source says 1000 ms.",
        "TaskName": "rest",
        "Space": "fsaverage5",
        "SpatialReference": "fsaverage5 of FreeSurfer",
        "SamplingFrequency": 1 / TR,
        "Sources": [f"brainspace wheel: {FOLDER}/{source}"],
        "Description": "Real resting-state BOLD on fsaverage5, mean zero, as distributed; zero on the medial wall.",
        "FramewiseDisplacement": "n/a",
    }


def _write_tree(root: Path) -> list[Path]:
    description = {
        "Name": "LEMON: one resting-state run on fsaverage5",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "CC0",
        "Authors": ["A. Babayan et al."],
        "HowToAcknowledge": "Cite the papers in ReferencesAndLinks. The run is part of MPI-Leipzig Mind-Brain-Body "
        "(LEMON; OpenNeuro ds000221, CC0) and is carried by the brainspace wheel (BSD-3-Clause).",
        "ReferencesAndLinks": REFERENCES,
        "GeneratedBy": [generated_by(), {"Name": "brainspace", "Version": "0.3.0"}],
        "SourceDatasets": [{"URL": "https://openneuro.org/datasets/ds000221"}],
    }
    participants = f"participant_id\tsite\nsub-{SUBJECT}\tLeipzig\n"
    columns = {"site": {"Description": "Scanning site", "Levels": {"Leipzig": "MPI CBS Leipzig, Siemens Verio 3 T"}}}
    readme = "One real resting-state run (652 volumes) on fsaverage5, entering the workflow at the surface stage.\n"
    return [
        write_json(root / "dataset_description.json", description),
        write_json(root / "participants.json", columns),
        write_text(root / "participants.tsv", participants),
        write_text(root / "README", readme),
        write_text(root / ".bidsignore", "**/func/*_hemi-*\n*_timeseries.*\n"),  # BIDS has no name for them yet
    ]
