"""What the cohort page says of every scan: figures, outliers, inclusion, and why a scan is not there at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.index.quarantine import QuarantineRow
from boldmill.quality.config import InclusionConfig
from boldmill.quality.inclusion import RULES, reasons, unchecked
from boldmill.quality.measures import MEASURES, Measure, figures_of
from boldmill.quality.outliers import Outlier, outliers

Rules = Callable[[str], InclusionConfig]
"""Data set -> its inclusion rules."""


@dataclass(slots=True, kw_only=True)
class CohortScan:
    """One scan that preprocessing let through.

    Parameters
    ----------
    scan_id, dataset, subject, site, kind : str
        Who it is.
    tr : float or None
        Repetition time, s.
    n_volumes : int
        Volumes.
    figures : dict
        Quality figures by name (:data:`boldmill.quality.measures.MEASURES`).
    flags : list of str
        What its stages said a person should look at.
    reasons : list of str
        Why the inclusion rules leave it out; empty: included.
    unchecked : list of str
        Rules whose figure is missing.
    outliers : list of Outlier
        Figures that lie outside the cohort or the site.
    page : str
        Address of the subject page, relative to the folder of the cohort page; empty: it has none.
    """

    scan_id: str
    dataset: str
    subject: str
    site: str
    kind: str
    tr: float | None
    n_volumes: int
    figures: dict[str, float]
    flags: list[str]
    page: str
    reasons: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    outliers: list[Outlier] = field(default_factory=list)

    @property
    def included(self) -> bool:
        """Whether the inclusion rules keep it."""
        return not self.reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """All scans that passed, all that did not, and the figures at least one scan has."""

    scans: list[CohortScan]
    quarantine: list[QuarantineRow]
    measures: list[Measure]


def collect(
    subjects: Iterable[tuple[Path, Mapping[str, Any]]],
    parcellated: Iterable[tuple[Path, Mapping[str, Any]]],
    participants: Iterable[Mapping[str, Any]],
    refused: Iterable[QuarantineRow],
    rules: Rules,
) -> Cohort:
    """Join the manifests to one row per scan.

    Parameters
    ----------
    subjects, parcellated : iterable of (Path, mapping)
        Subject manifests, and bucket manifests of the parcel series, with their paths.
    participants : iterable of mapping
        Participants of the buckets: the site of each subject.
    refused : iterable of QuarantineRow
        What ingest refused.
    rules : callable
        Inclusion rules of a data set.
    """
    people = {key: person for table in participants for key, person in (table.get("subjects") or {}).items()}
    later: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    tables: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for path, manifest in parcellated:
        for scan_id, entry in (manifest.get("scans") or {}).items():
            if entry.get("kind") == "table":
                tables[scan_id] = path, entry
            elif entry.get("status") == "quarantined":
                later[scan_id] = path, entry
    quarantine = {row.scan_id: row for row in refused}
    scans = _tables(tables, people, quarantine)
    for path, manifest in subjects:
        dataset, subject = str(manifest["dataset"]), str(manifest["subject"])
        anat = manifest.get("anat") or {}
        site = str((people.get(f"{dataset}/{subject}") or {}).get("site") or dataset)
        for scan_id, entry in sorted((manifest.get("scans") or {}).items()):
            if entry.get("status") != "ok":
                quarantine[scan_id] = _refused(scan_id, dataset, subject, "preprocess", entry, path)
            elif scan_id in later:
                where, why = later[scan_id]
                quarantine[scan_id] = _refused(scan_id, dataset, subject, "parcellate", why, where)
            else:
                scans.append(
                    CohortScan(
                        scan_id=scan_id,
                        dataset=dataset,
                        subject=subject,
                        site=site,
                        kind=str(entry.get("kind") or ""),
                        tr=entry.get("tr"),
                        n_volumes=int(entry.get("n_volumes") or 0),
                        figures=figures_of(entry.get("qc") or {}, anat.get("qc") or {}),
                        flags=[*anat.get("flags", []), *entry.get("flags", [])],
                        page=f"{dataset}/sub-{subject}.html",
                    )
                )
    scans.sort(key=lambda scan: scan.scan_id)
    judge(scans, rules)
    present = {name for scan in scans for name in scan.figures}
    measures = [measure for measure in MEASURES if measure.name in present]
    return Cohort(scans=scans, quarantine=[quarantine[key] for key in sorted(quarantine)], measures=measures)


def _tables(
    tables: Mapping[str, tuple[Path, Mapping[str, Any]]],
    people: Mapping[str, Mapping[str, Any]],
    quarantine: dict[str, QuarantineRow],
) -> list[CohortScan]:
    """Return the tables of parcel series, which no subject manifest knows; those refused go to the quarantine."""
    scans = []
    for scan_id, (path, entry) in sorted(tables.items()):
        dataset, _, rest = scan_id.partition("_sub-")
        subject = rest.partition("_")[0]
        if entry.get("status") != "ok":
            quarantine[scan_id] = _refused(scan_id, dataset, subject, "parcellate", entry, path)
            continue
        scans.append(
            CohortScan(
                scan_id=scan_id,
                dataset=dataset,
                subject=subject,
                site=str((people.get(f"{dataset}/{subject}") or {}).get("site") or dataset),
                kind="table",
                tr=entry.get("tr"),
                n_volumes=int(entry.get("n_volumes") or 0),
                figures=figures_of(entry.get("qc") or {}, {}),
                flags=[*entry.get("flags", [])],
                page="",
            )
        )
    return scans


def judge(scans: list[CohortScan], rules: Rules) -> None:
    """Fill in the inclusion and the outliers of every scan; a T1w alone has no run to judge by the rules."""
    limits: dict[str, InclusionConfig] = {name: rules(name) for name in sorted({scan.dataset for scan in scans})}
    for scan in scans:
        if scan.kind != "anat":
            scan.reasons = reasons(scan.figures, limits[scan.dataset])
            scan.unchecked = unchecked(scan.figures, limits[scan.dataset])
    for limit in sorted({one.outlier_z for one in limits.values()}):
        found = outliers([scan.figures for scan in scans], [scan.site for scan in scans], limit)
        for scan, outside in zip(scans, found, strict=True):
            if limits[scan.dataset].outlier_z == limit:
                scan.outliers = outside


def by_site(cohort: Cohort) -> list[dict[str, Any]]:
    """Return one row per data set and site: subjects, scans, included, excluded, with outliers, quarantined."""
    rows = []
    groups: dict[tuple[str, str], list[CohortScan]] = {}
    for scan in cohort.scans:
        groups.setdefault((scan.dataset, scan.site), []).append(scan)
    for (dataset, site), here in sorted(groups.items()):
        rows.append(
            {
                "data set": dataset,
                "site": site,
                "subjects": len({scan.subject for scan in here}),
                "scans": len(here),
                "included": sum(scan.included for scan in here),
                "excluded": sum(not scan.included for scan in here),
                "with outliers": sum(bool(scan.outliers) for scan in here),
            }
        )
    return rows


def by_rule(cohort: Cohort, rules: Rules) -> list[dict[str, Any]]:
    """Return one row per rule that is set: its limits, how many scans it excludes, and how many lack the figure."""
    rows = []
    datasets = sorted({scan.dataset for scan in cohort.scans})
    for rule in RULES:
        limits = {name: getattr(rules(name), rule.key) for name in datasets}
        values = sorted({value for value in limits.values() if value is not None})
        if values:
            rows.append(
                {
                    "rule": rule.key,
                    "limit": ", ".join(f"{value:g}" for value in values),
                    "figure": rule.words + rule.unit.replace(" ", ", "),
                    "scans excluded": sum(any(f"({rule.key})" in r for r in scan.reasons) for scan in cohort.scans),
                    "not checked": sum(
                        any(u.startswith(f"{rule.key} ") for u in scan.unchecked) for scan in cohort.scans
                    ),
                }
            )
    return rows


def to_rows(cohort: Cohort) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of ``cohort.tsv``: every scan of the index, quarantined ones too, sorted by scan id."""
    names = [measure.name for measure in cohort.measures]
    head = ["scan_id", "dataset", "subject", "site", "kind", "inclusion", "reasons", "outliers", "flags", "tr"]
    head += ["n_volumes", *names]
    rows = [
        [
            *(scan.scan_id, scan.dataset, scan.subject, scan.site, scan.kind),
            "included" if scan.included else "excluded",
            _words(scan.reasons),
            _words([outlier.words for outlier in scan.outliers]),
            _words([*scan.flags, *scan.unchecked]),
            "n/a" if scan.tr is None else f"{scan.tr:g}",
            str(scan.n_volumes),
            *(f"{scan.figures[name]:.6g}" if name in scan.figures else "n/a" for name in names),
        ]
        for scan in cohort.scans
    ]
    rows += [
        [row.scan_id, row.dataset, row.subject, "n/a", "n/a", "quarantined", f"{row.stage}: {row.reason}"]
        + ["n/a"] * (len(head) - 7)
        for row in cohort.quarantine
    ]
    return head, sorted(rows)


def _words(texts: list[str]) -> str:
    return "; ".join(texts) or "n/a"


def _refused(
    scan_id: str, dataset: str, subject: str, stage: str, entry: Mapping[str, Any], file: Path
) -> QuarantineRow:
    reason, fix = (" ".join(str(entry.get(key) or "").split()) for key in ("reason", "fix"))
    return QuarantineRow(scan_id, dataset, subject, str(entry.get("stage") or stage), reason, fix, file.as_posix())
