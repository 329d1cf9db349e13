"""The failure table: every scan any stage refused, with the reason and what to do about it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boldmill.atomic import read_json, write_text
from boldmill.errors import ConfigError
from boldmill.paths import Layout

if TYPE_CHECKING:
    from boldmill.index.read import ScanRow


class QuarantineRow(NamedTuple):
    """One refused scan. ``stage`` is the stage that refused it, ``file`` the file the reason is about."""

    scan_id: str
    dataset: str
    subject: str
    stage: str
    reason: str
    fix: str
    file: str


def to_tsv(rows: Iterable[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Return tab-separated text; tabs and line ends inside a value become spaces."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerows([header, *([" ".join(str(cell).split()) for cell in row] for row in rows)])
    return buffer.getvalue()


def read_quarantine(path: str | Path) -> list[QuarantineRow]:
    """Read a quarantine table; an absent one is empty."""
    path = Path(path)
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or tuple(lines[0].split("\t")) != QuarantineRow._fields:
        raise ConfigError("cannot read the quarantine table", path, "foreign columns", "run `boldmill ingest` again")
    return [QuarantineRow(*line.split("\t")) for line in lines[1:] if line]


def collect_quarantine(results: str | Path) -> list[QuarantineRow]:
    """Return every quarantined scan below a results folder, sorted by scan id; the first stage that refused counts.

    Reads the ingest table, then the subject manifests, then the bucket manifests. A manifest of a subject or scan that
    is no longer in the index does not count; a quarantined T1w is listed under ``<dataset>_sub-X_T1w``.
    """
    layout = Layout.at(results)
    found = {row.scan_id: row for row in read_quarantine(layout.index_quarantine)}
    known = _indexed(layout)
    for row in (*_of_subjects(layout, known), *_of_buckets(layout, known)):
        found.setdefault(row.scan_id, row)
    return [found[key] for key in sorted(found)]


def write_quarantine(results: str | Path) -> list[QuarantineRow]:
    """Write ``quarantine.tsv`` of the whole run atomically and return its rows."""
    rows = collect_quarantine(results)
    write_text(Layout.at(results).quarantine, to_tsv(rows, QuarantineRow._fields))
    return rows


def _indexed(layout: Layout) -> dict[str, ScanRow] | None:
    """Return scan id -> row of the index, or None where there is no index."""
    if not layout.index.is_file():
        return None
    from boldmill.index.read import read_index

    return {scan.scan_id: scan for scan in read_index(layout.results).scans}


def _manifest(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except json.JSONDecodeError as error:
        raise ConfigError("cannot read manifest", path, str(error), "delete it and run the stage again") from error
    return value if isinstance(value, dict) else {}


def _refused(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("status") == "quarantined"


def _by_atlas(scan: Any) -> dict[str, Any] | None:
    """Return an entry of the atlases a scan was refused for, where it goes on with others."""
    atlases = (scan.get("atlases") or {}) if isinstance(scan, dict) else {}
    bad = {label: entry for label, entry in sorted(atlases.items()) if _refused(entry)}
    if not bad:
        return None
    reason = "; ".join(f"not in {label}: {entry.get('reason')}" for label, entry in bad.items())
    return {"reason": reason, "fix": next(iter(bad.values())).get("fix")}


def _row(scan_id: str, dataset: str, subject: str, stage: str, entry: dict[str, Any], file: Path) -> QuarantineRow:
    named = str(entry.get("stage") or stage)
    words = [" ".join(str(entry.get(key) or "").split()) for key in ("reason", "fix")]
    return QuarantineRow(
        scan_id, dataset, subject, named, words[0], words[1], str(entry.get("file") or file.as_posix())
    )


def _of_subjects(layout: Layout, known: dict[str, ScanRow] | None) -> Iterator[QuarantineRow]:
    subjects = None if known is None else {(scan.dataset, scan.subject) for scan in known.values()}
    for path in sorted((layout.results / "preprocess").glob("*/sub-*.json")):
        dataset, subject = path.parent.name, path.stem.removeprefix("sub-")
        if path.name.endswith(".prov.json") or (subjects is not None and (dataset, subject) not in subjects):
            continue
        manifest, shown = _manifest(path), path.relative_to(layout.results)
        scans = manifest.get("scans") or {}
        for scan_id, entry in scans.items():
            if _refused(entry) and (known is None or scan_id in known):
                yield _row(scan_id, dataset, subject, "preprocess", entry, shown)
        anat = manifest.get("anat")
        if isinstance(anat, dict) and _refused(anat) and not any(_refused(entry) for entry in scans.values()):
            yield _row(f"{dataset}_sub-{subject}_T1w", dataset, subject, "preprocess", anat, shown)


BUCKET_MANIFESTS = {
    "parcellate": "parcellate/bucket-*.json",
    "flatmap": "flatmap/bucket-*.json",
    "clips": "shards/flat_clips/bucket-*.quarantine.json",
    "augment": "shards/pfc/*/bucket-*.quarantine.json",
    "shards": "shards/scans/bucket-*.quarantine.json",
}
"""Stage that works on buckets -> where its manifests, or its lists of refused scans, lie below the results."""


def _of_buckets(layout: Layout, known: dict[str, ScanRow] | None) -> Iterator[QuarantineRow]:
    """Yield what the bucket stages refused; a manifest left by another number of buckets does not count."""
    for stage, pattern in BUCKET_MANIFESTS.items():
        for path in sorted(layout.results.glob(pattern)):
            if path.name.endswith(".prov.json"):
                continue
            for scan_id, scan in (_manifest(path).get("scans") or {}).items():
                entry = scan if _refused(scan) else _by_atlas(scan)
                if entry is None:
                    continue
                if known is None:
                    dataset, _, rest = scan_id.partition("_sub-")
                    subject = rest.split("_")[0]
                elif scan_id in known and path.name.startswith(f"bucket-{known[scan_id].bucket:03d}."):
                    dataset, subject = known[scan_id].dataset, known[scan_id].subject
                else:
                    continue
                yield _row(scan_id, dataset, subject, stage, entry, path.relative_to(layout.results))
