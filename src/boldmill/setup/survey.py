"""What lies in a BIDS folder, found cheaply (names, sidecars, a few headers): for `boldmill init`."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import ConfigError, DataFault
from boldmill.index.config import DatasetConfig
from boldmill.index.content import examine
from boldmill.index.layouts import recognise
from boldmill.index.listing import list_dataset
from boldmill.index.participants import Participants, read_participants
from boldmill.index.scans import Scan, build_scans

MAX_HEADERS = 200  # headers opened per data set; runs of one protocol are alike
GENERIC = frozenset(("bids", "data", "raw", "rawdata", "dataset", "derivatives", "nifti"))


@dataclass(slots=True)
class Survey:
    """One data set as `init` describes it.

    Parameters
    ----------
    runs : Counter
        (task, TR in s or None, volumes or None) -> number of runs looked at.
    """

    config: DatasetConfig
    title: str
    scans: list[Scan]
    participants: Participants
    n_ignored: int
    runs: Counter[tuple[str, float | None, int | None]] = field(default_factory=Counter)

    @property
    def subjects(self) -> set[str]:
        """Labels of the subjects with a scan."""
        return {scan.label("sub") for scan in self.scans}

    @property
    def shortest(self) -> tuple[int, float] | None:
        """Volumes and TR of the run with the fewest volumes whose TR is known."""
        if all(scan.ready is not None and scan.ready.taken.stage == "parcellate" for scan in self.scans):
            return None  # clean already: no regression asks for degrees of freedom
        known = [(n, tr) for _, tr, n in self.runs if n and tr]
        return min(known) if known else None


def survey(root: Path, taken: set[str]) -> Survey:
    """Look at one BIDS folder, or at a folder or file of tables of parcel series.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    taken : set of str
        Names already given; the new one differs.
    """
    from boldmill.setup.survey_tables import is_tables, survey_tables

    if is_tables(root):
        return survey_tables(root, taken)
    if not root.is_dir():
        why = "it is no file of parcel series" if root.exists() else "there is no such folder"
        raise ConfigError("no data set", root, why, "give a BIDS folder, a folder of derivatives, or parcel series")
    description: dict[str, Any] = {}
    if (root / "dataset_description.json").is_file():
        try:
            value = read_json(root / "dataset_description.json")
            description = value if isinstance(value, dict) else {}
        except ValueError as error:
            raise ConfigError(
                "cannot read", root / "dataset_description.json", str(error), "correct the JSON"
            ) from error
    title = str(description.get("Name") or root.name)
    said = str(description.get("DatasetType") or "")
    derived = said == "derivative" or (not said and recognise(root).name != "generic")
    config = DatasetConfig(
        name=dataset_name(root, title, taken),
        root=str(root),
        kind="derivative" if derived else "raw",
        licence=str(description.get("License") or ""),
    )
    listing = list_dataset(config)
    scans = build_scans(config, listing)
    found = Survey(config, title, scans, read_participants(root), len(listing.ignored))
    for scan in [scan for scan in scans if scan.kind != "anat"][:MAX_HEADERS]:
        try:
            metadata, _ = listing.sidecars.resolve(scan.files[0])
        except DataFault:
            metadata = {}
        tr = metadata.get("RepetitionTime")
        volumes, header = _volumes(root / scan.files[0].path)
        tr = tr if scan.ready is None else tr or header
        known = float(tr) if isinstance(tr, (int, float)) and tr > 0 else None
        found.runs[scan.label("task"), known, volumes] += 1
    return found


def dataset_name(root: Path, title: str, taken: set[str]) -> str:
    """Return a short name of letters and digits: of the folder, or of the title where the folder's says nothing.

    >>> dataset_name(Path("/data/ds000001-1.0.0"), "A study", set())
    'ds000001'
    """
    root = root.absolute()  # `.` has no name
    base = re.sub(r"-\d+(\.\d+)*$", "", root.name)
    if base.lower() in GENERIC or not re.search("[A-Za-z0-9]", base):
        base = " ".join(title.split()[:3])
        if base.lower() in GENERIC or base == root.name:
            base = root.parent.name
    name = re.sub("[^A-Za-z0-9]", "", base)[:24] or "data"
    return _unique(name, taken)


def _unique(name: str, taken: Container[str]) -> str:
    number, unique = 2, name
    while unique in taken:
        unique, number = f"{name}{number}", number + 1
    return unique


def _volumes(path: Path) -> tuple[int | None, float | None]:
    """Return the volumes a header promises (None: not there, damaged, or a surface) and its TR (s, CIFTI only)."""
    if path.name.endswith((".dtseries.nii", ".tsv", ".1D")):
        facts = examine(path, verify=False)
        return (facts.shape[0] if facts.shape else None), facts.header_tr or None
    if not path.name.endswith((".nii", ".nii.gz")):
        return None, None
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError

    try:
        shape = nib.load(path).shape  # type: ignore[attr-defined]
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError, HeaderDataError):
        return None, None
    return (int(shape[3]) if len(shape) > 3 else None), None


def task_suggestions(surveys: list[Survey], folds: int) -> list[tuple[dict[str, Any], str, bool]]:
    """Return downstream tasks the participants tables offer.

    Returns
    -------
    list of (task, remark, enough)
        A column with two levels is a classification; a numeric one with many values a regression. ``enough`` says
        whether each class has two subjects per fold; the others are suggested as a comment.
    """
    found: list[tuple[dict[str, Any], str, bool]] = []
    columns = sorted({column for one in surveys for column in one.participants.columns})
    for column in columns:
        values: Counter[str] = Counter()
        numeric, datasets = True, []
        for one in surveys:
            if column not in one.participants.columns:
                continue
            datasets.append(one.config.name)
            for subject in one.subjects:
                value = one.participants.rows.get(subject, {}).get(column)
                if value is not None:
                    values[str(value)] += 1
                    numeric = numeric and not isinstance(value, str)
        name = _unique(re.sub("[^A-Za-z0-9_-]", "-", column), {task["name"] for task, _, _ in found})
        shared = {"name": name, "column": column, "datasets": sorted(datasets)}
        if len(values) == 2:
            remark = ", ".join(f"{n} x {level}" for level, n in sorted(values.items()))
            task = {**shared, "kind": "classification", "positive": max(values)}
            found.append((task, remark, min(values.values()) >= 2 * folds))
        elif numeric and len(values) >= 20:
            task = {**shared, "kind": "regression"}
            found.append((task, f"{sum(values.values())} subjects, {len(values)} values", False))
    return found
