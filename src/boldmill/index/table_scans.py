"""Data sets of tables: which files hold series, and which scan each is.

A series is one scan: a member of an npz archive, or a file. It enters at the parcellate stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from boldmill.errors import ConfigError, DataFault
from boldmill.index.config import DatasetConfig
from boldmill.index.listing import Listing
from boldmill.index.names import parse_name, scan_id, split_extension
from boldmill.index.scans import Scan, filtered
from boldmill.index.sidecars import Sidecars
from boldmill.index.table_cache import TableCache
from boldmill.index.table_files import ARRAYS, TEXTS, SeriesFacts, TableFacts
from boldmill.index.table_names import entities_of
from boldmill.index.walk import walk

NOT_SERIES = frozenset(
    ("participants", "phenotypes", "scans", "sessions", "events", "dseg", "channels", "confounds", "regressors")
)
"""Suffixes of BIDS tables that hold no parcel series."""
UNSAID = frozenset(("arr_0", "timeseries", "series", "ts", "bold", "data", "values", "x", "X", "roi_timeseries"))
"""Members that say nothing of the scan: the file's name does."""
SHOWN = 5

Ignored = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSeries:
    """One series: where it lies, its name and subject as written, and what is known of it and of its file."""

    path: str
    member: str
    name: str
    subject: str
    facts: SeriesFacts
    file: TableFacts

    @property
    def where(self) -> str:
        """File and member, for messages."""
        return f"{self.path}:{self.member}" if self.member else self.path


def base_folder(dataset: DatasetConfig) -> str:
    """Return the folder that paths of a data set are relative to: its root, or that of the one file it is."""
    root = Path(dataset.root)
    return root.parent.as_posix() if dataset.kind == "tables" and root.is_file() else dataset.root


def list_tables(dataset: DatasetConfig) -> tuple[list[str], Ignored]:
    """Return the files of series below the folder, sorted, and the tables that are none, with the reason.

    Raises
    ------
    ConfigError
        No such folder or file, or a name of ``files`` that matches nothing.
    """
    root, where = Path(dataset.root), f"datasets[{dataset.name}]"
    kinds = (*ARRAYS, *TEXTS)
    if root.is_file():
        if root.suffix not in kinds:
            raise ConfigError("no table", f"{where}.root", f"{root} is no file of {', '.join(kinds)}", "give one")
        return [root.name], []
    if not root.is_dir():
        raise ConfigError("data set not found", f"{where}.root", f"{root} is no folder and no file", "correct the path")
    other = (dataset.phenotypes, dataset.labels)
    present = [path for path in walk(root, "") if path.endswith((*kinds, ".txt"))]
    if dataset.files:
        for glob in dataset.files:
            if not any(fnmatch(path, glob) for path in present):
                why = f"'{glob}' matches none of {len(present)} tables below {root}"
                raise ConfigError("file not found", f"{where}.files", why, "correct the name")
        chosen = (path for path in present if any(fnmatch(path, glob) for glob in dataset.files))
        return sorted(path for path in chosen if path not in other), []
    files: list[str] = []
    ignored: Ignored = []
    for path in sorted(present):
        if path in other:
            continue
        if path.endswith(".txt"):
            ignored.append((path, "a text file; name it in `files` if it holds a series"))
        elif parse_name(path.rpartition("/")[2])[1] in NOT_SERIES:
            ignored.append((path, "a table of that name holds no parcel series"))
        else:
            files.append(path)
    if not files:
        raise ConfigError(
            "no table", f"{where}.root", f"{root} holds no file of {', '.join(kinds)}", "correct the path"
        )
    return files, ignored


def list_series(dataset: DatasetConfig, cache: TableCache) -> tuple[Listing, list[Scan]]:
    """Read the files of a data set of tables; return what is not read, and the scans the filters keep.

    Raises
    ------
    ConfigError
        No file, no scan, or a filter that matches nothing.
    """
    base = Path(base_folder(dataset)).absolute()
    files, ignored = list_tables(dataset)
    facts = cache.gather(f"{base}/{path}" for path in files)
    scans, unnamed = table_scans(dataset, {path: facts[f"{base}/{path}"] for path in files})
    return Listing([], [], Sidecars(base, []), sorted([*ignored, *unnamed])), filtered(dataset, scans)


def table_scans(dataset: DatasetConfig, facts: Mapping[str, TableFacts]) -> tuple[list[Scan], Ignored]:
    """Return one scan per series, sorted by scan id, and the series whose name says no scan, with the reason.

    Parameters
    ----------
    dataset : DatasetConfig
    facts : mapping
        Facts by path relative to the folder of the data set.

    Raises
    ------
    ConfigError
        No name says a scan.
    """
    scans: list[Scan] = []
    ignored: Ignored = []
    for path, found in sorted(facts.items()):
        for one in found.series:
            name = _name(
                path, one.member, alone=len(found.series) == 1 and len(facts) > 1, folders="/" in dataset.pattern
            )
            try:
                labels, subject = entities_of(name, dataset.pattern)
            except DataFault as fault:
                ignored.append((f"{path}:{one.member}" if one.member else path, one.fault or fault.why))
                continue
            series = TableSeries(path=path, member=one.member, name=name, subject=subject, facts=one, file=found)
            scans.append(Scan(scan_id(dataset.name, labels), dataset.name, labels, "table", table=series))
    if not scans:
        path, why = ignored[0]
        fix = "set its pattern, e.g. sub-{sub}-{ses}"
        raise ConfigError("no scan", f"datasets[{dataset.name}].pattern", f"no name says a scan; {path}: {why}", fix)
    return _without_collisions(scans), ignored


def _name(path: str, member: str, *, alone: bool, folders: bool) -> str:
    if member and not alone and member not in UNSAID:
        return member
    folder, _, name = path.rpartition("/")
    stem = split_extension(name)[0]
    return f"{folder}/{stem}" if folders and folder else stem


def _without_collisions(scans: list[Scan]) -> list[Scan]:
    """Refuse subjects that two names become, and scans that two series become; one row stands for each scan."""
    people: dict[str, set[str]] = {}
    for scan in scans:
        if scan.table is not None:
            people.setdefault(scan.label("sub"), set()).add(scan.table.subject)
    found: dict[str, list[Scan]] = {}
    for scan in scans:
        found.setdefault(scan.scan_id, []).append(scan)
    for same in found.values():
        series = sorted(scan.table.where for scan in same if scan.table is not None)
        written = sorted(people[same[0].label("sub")])
        if len(written) > 1:
            why = f"{' and '.join(written[:SHOWN])} would be one subject, {same[0].label('sub')}"
            same[0].fault = DataFault("ambiguous subject", series[0], why, "rename one, or set `pattern`")
        elif len(same) > 1:
            why = f"several series are one scan: {', '.join(series[:SHOWN])}"
            fix = "keep one, or tell them apart by `pattern` (ses, task, run)"
            same[0].fault = DataFault("ambiguous run", series[0], why, fix)
    return [found[name][0] for name in sorted(found)]
