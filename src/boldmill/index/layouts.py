"""Which pipeline made a data set of derivatives, and where its files lie.

Recognised by ``GeneratedBy`` (or ``PipelineDescription``) of ``dataset_description.json``, else by the folders and
names that the pipeline writes. Anything else is the generic layout: fsaverage5 pairs with any confounds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boldmill.index.walk import walk

Name = Literal["fmriprep", "cpac", "xcpd", "halfpipe", "hcp", "generic"]

GENERATORS: dict[str, Name] = {
    "fmriprep": "fmriprep",
    "nibabies": "fmriprep",
    "cpac": "cpac",
    "xcpd": "xcpd",
    "halfpipe": "halfpipe",
    "hcppipelines": "hcp",
}
"""Generator, lower case without punctuation -> layout."""

TITLES = {"fmriprep": "fMRIPrep", "cpac": "C-PAC", "xcpd": "XCP-D", "halfpipe": "HALFpipe", "hcp": "HCP minimal"}
LOOK_AT = 400
"""File names looked at where nothing else tells the pipeline."""

_HCP_SUBJECT = re.compile(r"[A-Za-z0-9]*\d[A-Za-z0-9]*(_V\d+_MR)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A recognised layout.

    Parameters
    ----------
    name : str
    by : str
        What it was recognised by.
    """

    name: Name
    by: str

    @property
    def title(self) -> str:
        """Name of the pipeline."""
        return TITLES.get(self.name, "derivatives")


def recognise(root: Path) -> Layout:
    """Return the layout of a folder of derivatives.

    Parameters
    ----------
    root : Path
        Root of the data set.
    """
    if (root / "spec.json").is_file() and (root / "derivatives" / "halfpipe").is_dir():
        return Layout(name="halfpipe", by="spec.json and derivatives/halfpipe")
    for generator in _generators(root):
        plain = re.sub("[^a-z]", "", generator.lower())
        for known, name in GENERATORS.items():
            if plain.startswith(known):
                return Layout(name=name, by=f"GeneratedBy {generator}")
    if _cpac_folders(root):
        return Layout(name="cpac", by="a folder output/pipeline_*")
    if next(_hcp_subjects(root), None):
        return Layout(name="hcp", by="folders <subject>/MNINonLinear/Results")
    names = [path.rpartition("/")[2] for path in _first_files(root)]
    marks: tuple[tuple[str, Name], ...] = (
        (r"_feature-[^_]+_.*timeseries\.tsv$", "halfpipe"),
        (r"_desc-denoised(Smoothed)?_bold\.", "xcpd"),
        (r"_stat-mean_timeseries\.", "xcpd"),
        (r"_space-[^_]+_(res-[^_]+_)?desc-preproc_bold\.nii", "fmriprep"),
        (r"_space-fsLR_.*bold\.(dtseries\.nii|func\.gii)$", "fmriprep"),
    )
    for pattern, name in marks:
        if seen := next((one for one in names if re.search(pattern, one)), None):
            return Layout(name=name, by=f"file names like {seen}")
    return Layout(name="generic", by="no known pipeline")


def _generators(root: Path) -> list[str]:
    try:
        value = json.loads((root / "dataset_description.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return []  # absent, or reported where the description itself is read
    if not isinstance(value, dict):
        return []
    made: Any = value.get("GeneratedBy") or value.get("PipelineDescription") or []
    entries = made if isinstance(made, list) else [made]
    return [str(entry["Name"]) for entry in entries if isinstance(entry, dict) and entry.get("Name")]


def layout_files(root: Path, layout: Layout) -> list[str]:
    """Return the files of a recognised layout below the root, sorted; only its own folders are walked."""
    if layout.name == "cpac":
        return sorted(path for folder in _cpac_folders(root) for path in walk(root, folder, _subject))
    if layout.name == "hcp":
        results = (f"{subject}/MNINonLinear/Results" for subject in _hcp_subjects(root))
        return sorted(path for folder in results for path in walk(root, folder))
    folders = [folder for folder in ("derivatives/halfpipe", "derivatives/fmriprep") if (root / folder).is_dir()]
    if layout.name == "halfpipe" and folders:
        found = [path for folder in folders for path in walk(root, folder, _subject)]
        tables = [folder for folder in ("atlas", "atlases") if (root / folder).is_dir()]
        return sorted([*found, *(path for folder in tables for path in walk(root, folder))])
    return sorted(walk(root, "", lambda name: _subject(name) or name in ("atlas", "atlases")))


def _subject(name: str) -> bool:
    return name.startswith("sub-")


def _cpac_folders(root: Path) -> list[str]:
    found = [*root.glob("output/pipeline_*"), *root.glob("pipeline_*")]
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_dir())


def _hcp_subjects(root: Path) -> Iterator[str]:
    for entry in sorted(os.scandir(root), key=lambda one: one.name):
        if _HCP_SUBJECT.fullmatch(entry.name) and (root / entry.name / "MNINonLinear" / "Results").is_dir():
            yield entry.name


def _first_files(root: Path) -> list[str]:
    found = []
    for path in walk(root, "", _subject):
        found.append(path)
        if len(found) == LOOK_AT:
            break
    return found
