"""Small BIDS trees on disk, with a known fault at will. Images are seeded, a few kilobytes, and byte-stable."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (6, 5, 4, 24)
GZIP_KEEP = 400  # bytes left of a truncated image


def nifti(shape: tuple[int, ...], tr: float = 2.0, unit: str = "sec", seed: int = 0, dtype: Any = np.int16) -> bytes:
    """Return the bytes of an uncompressed NIfTI of small integers."""
    data = np.random.default_rng(seed).integers(0, 900, shape).astype(dtype)
    image = nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm", unit)
    if len(shape) > 3:
        image.header["pixdim"][4] = tr
    return image.to_bytes()


def gifti(vertices: int, volumes: int) -> bytes:
    """Return a GIFTI time series of zeros, one array per volume."""
    arrays = [nib.gifti.GiftiDataArray(np.zeros(vertices, np.float32), "NIFTI_INTENT_TIME_SERIES")] * volumes
    return nib.gifti.GiftiImage(darrays=arrays).to_bytes()


class Tree:
    """One BIDS data set below a folder, and the results folder beside it."""

    nifti = staticmethod(nifti)

    def __init__(self, base: Path, name: str = "ds") -> None:
        self.base, self.name = base, name
        self.root = base / name
        self.results = base / "results"
        self.write("dataset_description.json", {"Name": name, "BIDSVersion": "1.10.0", "License": "CC0"})

    def write(self, path: str, content: bytes | str | dict[str, Any]) -> Path:
        """Write a file relative to the root: bytes as they are (compressed for .gz), text, or JSON."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        data = content.encode() if isinstance(content, str) else content
        target.write_bytes(gzip.compress(data, mtime=0) if path.endswith(".gz") else data)
        return target

    def t1w(self, subject: str, *, session: str = "", name: str = "T1w", seed: int = 1) -> Path:
        """Write a T1w image."""
        folder, stem = self._place(subject, session, "anat")
        return self.write(f"{folder}/{stem}_{name}.nii.gz", nifti((16, 16, 16), seed=seed))

    def bold(
        self,
        subject: str,
        *,
        session: str = "",
        rest: str = "task-rest",
        shape: tuple[int, ...] = SHAPE,
        tr: float = 2.0,
        unit: str = "sec",
        sidecar: dict[str, Any] | None = None,
        ext: str = ".nii.gz",
        seed: int = 2,
    ) -> Path:
        """Write a BOLD run; ``sidecar=None`` gives RepetitionTime 2.0, an empty mapping gives no sidecar."""
        folder, stem = self._place(subject, session, "func")
        sidecar = {"RepetitionTime": 2.0} if sidecar is None else sidecar
        if sidecar:
            self.write(f"{folder}/{stem}_{rest}_bold.json", sidecar)
        return self.write(f"{folder}/{stem}_{rest}_bold{ext}", nifti(shape, tr, unit, seed))

    def good(self, *subjects: str) -> None:
        """Write a T1w and a rest run of each subject."""
        for number, subject in enumerate(subjects):
            self.t1w(subject, seed=10 + number)
            self.bold(subject, seed=50 + number)

    def surface(self, subject: str, *, volumes: int = 22, sides: str = "LR", vertices: int = 10242) -> None:
        """Write an fsaverage5 pair with its sidecar and confounds."""
        folder, stem = self._place(subject, "", "func")
        for side in sides:
            name = f"{folder}/{stem}_task-rest_hemi-{side}_space-fsaverage5_bold.func.gii"
            self.write(name, gifti(vertices, volumes))
        self.write(f"{folder}/{stem}_task-rest_space-fsaverage5_bold.json", {"RepetitionTime": 1.4})
        rows = "\n".join("0.1\t0.2" for _ in range(volumes))
        self.write(f"{folder}/{stem}_task-rest_desc-confounds_timeseries.tsv", f"a\tb\n{rows}\n")

    def participants(self, text: str, about: dict[str, Any] | None = None) -> None:
        """Write participants.tsv (columns given by spaces) and .json."""
        rows = ["\t".join(line.split()) for line in text.strip().splitlines()]
        self.write("participants.tsv", "\n".join(rows) + "\n")
        if about:
            self.write("participants.json", about)

    def _place(self, subject: str, session: str, datatype: str) -> tuple[str, str]:
        stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        folder = f"sub-{subject}/" + (f"ses-{session}/" if session else "")
        return f"{folder}{datatype}", stem

    def settings(self, **dataset: Any) -> dict[str, Any]:
        """Return a configuration with this data set."""
        entry = {"name": self.name, "root": str(self.root), **dataset}
        return {"results": str(self.results), "datasets": [entry], "shards": {"n_buckets": 8}}

    def config(self, **dataset: Any) -> Path:
        """Write a configuration with this data set and return its path."""
        path = self.base / f"{self.name}.yaml"
        path.write_text(json.dumps(self.settings(**dataset)))
        return path

    def ingest(self, **dataset: Any) -> list[Any]:
        """Index the data set and return the rows of the index."""
        from boldmill.config.model import Config
        from boldmill.index.command import ingest
        from boldmill.index.read import read_index
        from boldmill.stages import Settings, stage_json

        config = Config.model_validate(self.settings(**dataset))
        rows = ingest(Settings(stage_json(config, "ingest")), self.results)
        assert read_index(self.results).scans == rows
        return rows

    def rows(self, **dataset: Any) -> dict[str, Any]:
        """Ingest and return the rows by scan id without the data set's name."""
        return {row.scan_id.removeprefix(f"{self.name}_"): row for row in self.ingest(**dataset)}

    def ticket(self, scan_id: str) -> dict[str, Any]:
        """Return the ticket of a scan (id without the data set's name)."""
        return json.loads(self.ticket_path(scan_id).read_text())

    def ticket_path(self, scan_id: str) -> Path:
        """Return where the ticket of a scan lies."""
        return self.results / "index" / "tickets" / f"{self.name}_{scan_id}.json"

    def table(self, name: str) -> list[dict[str, str]]:
        """Return a TSV of the index folder as rows."""
        text = (self.results / "index" / name).read_text()
        return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))

    def snapshot(self) -> dict[str, bytes]:
        """Return the bytes of everything ingest wrote but its provenance record and its cache."""
        folder = self.results / "index"
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.endswith(".prov.json") and path.name != "hashes.parquet"
        }
