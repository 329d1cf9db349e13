"""List a data set: usable images (by bids2table), sidecars, and every image that is not used, with the reason."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from boldmill.errors import ConfigError
from boldmill.index.config import DatasetConfig
from boldmill.index.fmap import is_field_map
from boldmill.index.layouts import Layout, layout_files, recognise
from boldmill.index.names import IMAGE_SUFFIXES, BidsFile, bids_ignored, read_path, unusable
from boldmill.index.ready_files import Ready
from boldmill.index.sidecars import Sidecars
from boldmill.index.walk import is_folder, walk


@dataclass(slots=True)
class Listing:
    """What lies in one data set.

    Parameters
    ----------
    images : list of BidsFile
        BOLD runs, T1w images or surface series that may become scans, sorted by path.
    tables : list of BidsFile
        Confounds tables (derivative data sets).
    sidecars : Sidecars
        All JSON sidecars, for the inheritance principle.
    ignored : list of (path, reason)
        Images with a name or place that BIDS does not know, sorted: reported, never dropped silently.
    layout : Layout or None
        The pipeline that made a derivative data set, where it is known.
    ready : list of Ready
        Every form of every run of such a data set.
    fmaps : list of BidsFile
        Field maps and single-band references (raw data sets).
    """

    images: list[BidsFile]
    tables: list[BidsFile]
    sidecars: Sidecars
    ignored: list[tuple[str, str]] = field(default_factory=list)
    layout: Layout | None = None
    ready: list[Ready] = field(default_factory=list)
    fmaps: list[BidsFile] = field(default_factory=list)


def list_dataset(dataset: DatasetConfig) -> Listing:
    """List one data set.

    Raises
    ------
    ConfigError
        The root is missing, not a folder, or holds no ``sub-*`` folder.
    """
    root = Path(dataset.root)
    where = f"datasets[{dataset.name}].root"
    if not root.is_dir():
        raise ConfigError("data set not found", where, f"{root} is not a folder", "correct the path")
    if dataset.kind == "derivative" and (layout := recognise(root)).name != "generic":
        return _list_ready(dataset, root, layout)
    files = sorted(walk(root, "", lambda name: name.startswith("sub-")))
    if not any(path.startswith("sub-") for path in files):
        raise ConfigError(
            "not a BIDS data set", where, f"{root} holds no sub-* folder with files", "give the folder that holds them"
        )
    indexed = _bids2table_paths(root)
    # Pipelines list good series there, because the validator has no name for them (fMRIPrep: `*_bold.func.gii`).
    patterns = _ignore_patterns(root) if dataset.kind == "raw" else []
    sidecars = Sidecars(root, [path for path in files if path.endswith(".json")])
    listing = Listing([], [], sidecars)
    for path in files:
        is_table = path.endswith((".tsv", ".tsv.gz"))
        if not path.endswith(IMAGE_SUFFIXES) and not is_table:
            continue
        file, reason = read_path(path)
        if is_table:
            if file and dataset.kind == "derivative" and file.entities.get("desc") == "confounds":
                listing.tables.append(file)
            continue
        if file is not None:
            why = unusable(file, dataset.kind)
            if why == "":
                if dataset.kind == "raw" and is_field_map(file) and not bids_ignored(path, patterns):
                    listing.fmaps.append(file)
                continue
            reason = why or ("" if path in indexed else "bids2table does not index it")
        if not reason and bids_ignored(path, patterns):
            reason = "listed in .bidsignore"
        if reason or file is None:
            listing.ignored.append((path, reason))
        else:
            listing.images.append(file)
    for folder in sorted(entry.name for entry in os.scandir(root) if is_folder(entry)):
        if folder in ("derivatives", "sourcedata"):
            listing.ignored.append((f"{folder}/", "not part of the data set; configure it as a data set of its own"))
    return listing


def _list_ready(dataset: DatasetConfig, root: Path, layout: Layout) -> Listing:
    """List the derivatives of a known pipeline.

    Raises
    ------
    ConfigError
        The folder holds no run of that pipeline.
    """
    from boldmill.index.layout_bids import FMRIPREP, XCPD, read_bids, read_halfpipe
    from boldmill.index.layout_cpac import read_cpac
    from boldmill.index.layout_hcp import read_hcp

    files = layout_files(root, layout)
    readers = {
        "fmriprep": lambda: read_bids(files, FMRIPREP),
        "xcpd": lambda: read_bids(files, XCPD),
        "halfpipe": lambda: read_halfpipe(files),
        "cpac": lambda: read_cpac(files),
        "hcp": lambda: read_hcp(files),
    }
    ready, ignored = readers[layout.name]()
    if not ready:
        raise ConfigError(
            "no run found",
            f"datasets[{dataset.name}].root",
            f"{root} is a folder of {layout.title} ({layout.by}), but holds no series that is read"
            + (f"; for example {ignored[0][0]}: {ignored[0][1]}" if ignored else ""),
            "give the folder that holds the subjects' folders",
        )
    sidecars = Sidecars(root, [path for path in files if path.endswith(".json")])
    return Listing([], [], sidecars, sorted(ignored), layout=layout, ready=ready)


def _bids2table_paths(root: Path) -> set[str]:
    """Return the data files bids2table finds.

    It takes no root with a dot in its name (OpenNeuro's ``ds000001-1.0.0``) and remembers folders for the life of the
    process, so it is given a fresh link without one.
    """
    import bids2table

    logging.getLogger("bids2table").setLevel(logging.ERROR)  # unknown entities are in our own table of ignored files
    with tempfile.TemporaryDirectory(prefix="boldmill") as folder:
        link = Path(folder) / "dataset"
        link.symlink_to(root.absolute(), target_is_directory=True)
        table = bids2table.index_dataset(link)
    return set(table.column("path").to_pylist())


def _ignore_patterns(root: Path) -> list[str]:
    path = root / ".bidsignore"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
