"""What lies in a folder, or one file, of ready-made parcel series, and which phenotype table goes with it.

For `boldmill init`. The phenotype table is the one of the folder whose column names most of the series.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from boldmill.errors import ConfigError
from boldmill.index.config import DatasetConfig
from boldmill.index.participants import phenotypes_of
from boldmill.index.phenotype_rows import read_rows
from boldmill.index.scans import Scan
from boldmill.index.table_cache import TableCache
from boldmill.index.table_files import ARRAYS, TEXTS
from boldmill.index.table_names import plain_label
from boldmill.index.table_scans import base_folder, list_series, list_tables
from boldmill.represent.given_parcels import family
from boldmill.setup.survey import Survey, dataset_name

SESSIONS = re.compile(r"sub-[A-Za-z0-9]+-[A-Za-z0-9]+")
ENOUGH = 0.5
"""Share of the series a column must name to be taken for their identifiers."""
MANY = 50  # tables of a folder looked at for phenotypes
CODES = (-999.0, -9999.0, -99999.0)
"""Numbers that mean a missing value wherever they occur."""
SITES = ("site", "site_id", "scan_site", "center", "centre", "scanner")


def is_tables(root: Path) -> bool:
    """Return whether a path is a file of series, or a folder that holds such files and nobody's ``sub-*`` folder."""
    if root.is_file():
        return root.suffix in (*ARRAYS, *TEXTS)
    if not root.is_dir() or any(path.is_dir() for path in root.glob("sub-*")):
        return False
    described = (root / "dataset_description.json").exists()
    return not described and any(path.suffix in (*ARRAYS, *TEXTS) for path in root.iterdir() if path.is_file())


def survey_tables(root: Path, taken: set[str]) -> Survey:
    """Look at a folder or file of series (:func:`boldmill.setup.survey.survey`)."""
    name = dataset_name(root.with_suffix("") if root.is_file() else root, root.stem, taken)
    config = DatasetConfig(name=name, root=str(root), kind="tables")
    base = Path(base_folder(config))
    candidates = [path for path in sorted(base.iterdir()) if path.suffix in (".csv", ".tsv") and path != root][:MANY]
    tables = {path: rows for path in candidates if (rows := _columns(path))}
    if root.is_dir():
        listed, _ = list_tables(config)
        files = [path for path in listed if base / path not in tables]
        if not files:
            raise ConfigError("no series", root, "its tables hold words, not numbers", "give the files of the series")
        if len(files) < len(listed):
            config = config.model_copy(update={"files": _globs(files)})
    cache = TableCache(Path("absent"))
    config, scans, n_ignored = _named(config, cache)
    update: dict[str, object] = {}
    if found := _phenotypes(tables, scans):
        table, id_column, site_column = found
        update |= {"phenotypes": table.relative_to(base).as_posix(), "id_column": id_column}
        update |= {"site_column": site_column} if site_column else {}
        cells = {cell for column in tables[table].values() for cell in column}
        codes = sorted(code for code in CODES if {str(code), f"{code:.0f}"} & cells)
        update |= {"missing": codes} if codes else {}
    good = [scan.table for scan in scans if scan.table and not scan.table.facts.fault]
    if not good:
        why = next((scan.table.facts.fault for scan in scans if scan.table), "no series in it")
        raise ConfigError("no series", root, why, "give the files of the series")
    columns = Counter(one.facts.shape[1] for one in good).most_common(1)[0][0]
    if not any(sum(map(bool, map(family, one.file.names))) * 2 > columns for one in good[:1]):
        update["atlas"] = f"{name} {columns}"
    config = config.model_copy(update=update)
    result = Survey(config, root.name, scans, phenotypes_of(config, base, scans), n_ignored)
    for one in good:
        result.runs["", None, one.facts.shape[0]] += 1
    return result


def _named(config: DatasetConfig, cache: TableCache) -> tuple[DatasetConfig, list[Scan], int]:
    """Return the data set with the pattern its names ask for, its scans, and how many series have none."""
    try:
        listing, scans = list_series(config, cache)
        if not any(SESSIONS.search(path) for path, _ in listing.ignored):
            return config, scans, len(listing.ignored)
    except ConfigError as error:
        if not SESSIONS.search(error.why):
            raise
    config = config.model_copy(update={"pattern": "sub-{sub}-{ses}"})
    listing, scans = list_series(config, cache)
    return config, scans, len(listing.ignored)


def _globs(files: list[str]) -> list[str]:
    return sorted({f"*{Path(path).suffix}" for path in files}) if len(files) > 3 else files


def _columns(path: Path) -> dict[str, list[str]]:
    """Return the columns of a table that has words in them; nothing for a table of numbers, which is a series."""
    try:
        rows, _ = read_rows(path)
    except (ConfigError, OSError):  # no table, or a link of a DataLad data set whose file is not here
        return {}
    if len(rows) < 2 or all(_is_number(cell) for row in rows[1:20] for cell in row):
        return {}
    whole = [row for row in rows[1:] if len(row) == len(rows[0])]
    return {name.strip(): [row[i].strip() for row in whole] for i, name in enumerate(rows[0]) if name.strip()}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("n/a", "")
    return True


def _phenotypes(tables: dict[Path, dict[str, list[str]]], scans: list[Scan]) -> tuple[Path, str, str] | None:
    """Return the table, its column of identifiers and its column of sites (or an empty text)."""
    subjects = {scan.label("sub") for scan in scans}
    names = {plain_label(scan.table.name) for scan in scans if scan.table}
    best: tuple[float, Path, str] | None = None
    for path, columns in tables.items():
        for column, cells in columns.items():
            labels = {plain_label(cell) for cell in cells} | {plain_label(cell.removeprefix("sub-")) for cell in cells}
            share = max(len(known & labels) / max(len(known), 1) for known in (subjects, names))
            if share >= ENOUGH and (best is None or share > best[0]):
                best = (share, path, column)
    if best is None:
        return None
    sites = [column for column in tables[best[1]] if column.lower() in SITES]
    return best[1], best[2], sites[0] if sites else ""
