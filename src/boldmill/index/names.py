"""BIDS names: what a path below a data set says, and why a file is not used.

Labels are kept as written (``run-01`` stays ``01``); only the comparison of two files reads an index as a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

SCAN_ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part")
"""Entities that tell two BOLD runs apart, in BIDS order; they make up the scan id."""

KNOWN_ENTITIES = frozenset(
    (*SCAN_ENTITIES, "tpl", "cohort", "sample", "tracksys", "nuc", "voi", "trc", "stain", "mod", "flip", "inv", "mt")
).union(
    ("proc", "hemi", "space", "split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc")
)
INDEX_ENTITIES = frozenset(("run", "echo"))
EXCLUDED_FOLDERS = frozenset(("derivatives", "sourcedata", "outputs", "output", "results", "work", "code"))
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".func.gii", ".mgz")

_NAME = re.compile(r"sub-[A-Za-z0-9]+(?:_[a-zA-Z]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+")
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_SESSION = re.compile(r"ses-[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class BidsFile:
    """One file below a data set: its path relative to the root and what its name says."""

    path: str
    entities: Mapping[str, str]
    datatype: str
    suffix: str
    ext: str

    @property
    def identity(self) -> tuple[tuple[str, str | int], ...]:
        """What tells this file from another: equal for ``run-1`` and ``run-01``, whatever the extension."""
        return tuple((k, _as_index(k, v)) for k, v in sorted(self.entities.items()))


def _as_index(entity: str, label: str) -> str | int:
    return int(label) if entity in INDEX_ENTITIES and label.isdigit() else label


def split_extension(name: str) -> tuple[str, str]:
    """Return stem and full extension: ``("sub-01_bold", ".nii.gz")``.

    >>> split_extension("sub-01_task-rest_bold.nii.gz")
    ('sub-01_task-rest_bold', '.nii.gz')
    """
    stem, dot, ext = name.partition(".")
    return stem, dot + ext


def parse_name(name: str) -> tuple[dict[str, str], str, str]:
    """Return entities, suffix and extension of a file name; parts that are no ``key-value`` pair are left out."""
    stem, ext = split_extension(name)
    *parts, suffix = stem.split("_")
    if "-" in suffix:
        parts, suffix = [*parts, suffix], ""
    return {key: value for key, dash, value in (part.partition("-") for part in parts) if dash}, suffix, ext


def scan_id(dataset: str, entities: Mapping[str, str], suffix: str = "") -> str:
    """Return the scan id: data set name and scan entities, unique over all data sets."""
    words = [dataset, *(f"{key}-{entities[key]}" for key in SCAN_ENTITIES if entities.get(key))]
    return "_".join([*words, suffix] if suffix else words)


def read_path(path: str) -> tuple[BidsFile | None, str]:
    """Return the file a relative path stands for, or ``None`` and the reason it is not BIDS.

    Parameters
    ----------
    path : str
        Path relative to the data set's root, with forward slashes.
    """
    *folders, name = path.split("/")
    stem, ext = split_extension(name)
    if excluded := EXCLUDED_FOLDERS.intersection(folders):
        return None, f"inside a folder that holds no raw data ({sorted(excluded)[0]})"
    if not _NAME.fullmatch(stem):
        return None, "not a BIDS file name (sub-<label>[_<entity>-<label>...]_<suffix>)"
    entities, suffix, _ = parse_name(name)
    keys = re.findall(r"(?:^|_)([a-zA-Z]+)-", stem)
    if len(set(keys)) < len(keys):
        return None, "an entity occurs twice in the name"
    if unknown := sorted(set(keys) - KNOWN_ENTITIES):
        return None, f"not a BIDS entity: {unknown[0]}-"
    for entity in sorted(INDEX_ENTITIES.intersection(entities)):
        if not entities[entity].isdigit():
            return None, f"{entity}-{entities[entity]} is not a number"
    if not folders or not _SUBJECT.fullmatch(folders[0]):
        return None, "not inside a sub-<label> folder"
    inner = folders[1:]
    session = inner.pop(0)[4:] if inner and _SESSION.fullmatch(inner[0]) else ""
    if folders[0][4:] != entities["sub"] or session != entities.get("ses", ""):
        return None, "subject or session of the name differ from those of its folder"
    if len(inner) != 1 or not re.fullmatch("[a-z]+", inner[0]):
        return None, "not directly inside a data type folder (anat, func, ...)"
    return BidsFile(path, entities, inner[0], suffix, ext), ""


def unusable(file: BidsFile, kind: str) -> str | None:
    """Return why an image cannot become a scan: ``None`` if it can, an empty string for data of no concern here.

    Parameters
    ----------
    file : BidsFile
        An image with a BIDS name.
    kind : {"raw", "derivative"}
        Kind of the data set.
    """
    bold, t1w = file.suffix == "bold", file.suffix == "T1w"
    if not (bold or t1w):
        return ""
    if file.datatype != ("func" if bold else "anat"):
        return f"a {file.suffix} image outside {'func' if bold else 'anat'}/"
    if bold and "task" not in file.entities:
        return "a BOLD run needs a task entity"
    if kind == "derivative":
        if t1w:
            return ""
        if file.ext != ".func.gii":
            return "derivative data sets are read as fsaverage5 surfaces (hemi-L and hemi-R .func.gii) only"
        if file.entities.get("hemi") not in ("L", "R"):
            return "a surface series needs hemi-L or hemi-R"
        space, density = file.entities.get("space", "fsaverage5"), file.entities.get("den", "")
        if space != "fsaverage5" and (space, density) != ("fsaverage", "10k"):
            return f"space-{space} is not read; only fsaverage5 is"
        return None
    if made := [key for key in ("space", "desc", "res", "den", "label") if key in file.entities]:
        return f"a derivative ({made[0]}- entity) inside a raw data set"
    if file.ext not in (".nii", ".nii.gz"):
        return f"{file.ext} is not read as raw data (.nii and .nii.gz are)"
    return None


def bids_ignored(path: str, patterns: list[str]) -> bool:
    """Return whether ``.bidsignore`` patterns (a subset of gitignore: globs and folders) cover a path."""
    parts = path.split("/")
    for pattern in patterns:
        glob = pattern.strip("/")
        if fnmatch(path, glob) or fnmatch(path, f"{glob}/*"):
            return True
        if "/" not in glob and any(fnmatch(part, glob) for part in parts):
            return True
    return False
