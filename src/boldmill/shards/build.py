"""Rows of one bucket's shards, from tickets, manifests and arrays.

Axes: T time or frames, P parcels, E edges, X valid pixels, H W flat grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boldmill import __version__
from boldmill.atomic import canonical_json, read_json
from boldmill.errors import BoldmillError, DataFault
from boldmill.represent.fc import correlation, fisher_z, vectorise
from boldmill.tables import MORPHOMETRY_FEATURES

if TYPE_CHECKING:
    from boldmill.represent.config import ParcellateConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What is known of one bucket: its manifests, read and joined.

    Parameters
    ----------
    number : int
        Number of the bucket.
    results : Path
        Folder that paths in manifests are relative to.
    tickets : dict
        Scan id -> ticket, sorted.
    subjects : dict
        ``"<dataset>/<subject>"`` -> subject manifest.
    participants, parcellated, flat : dict
        Content of the bucket's manifests; empty where a command does not read one.
    digests : dict
        ``"<dataset>/<subject>"`` -> stage -> settings digest.
    read : list
        Every data file read, for the provenance record; filled while rows are made.
    faults : dict
        Scan id -> fault of the data found while rows are made.
    """

    number: int
    results: Path
    tickets: dict[str, dict[str, Any]]
    subjects: dict[str, dict[str, Any]]
    participants: dict[str, Any]
    parcellated: dict[str, Any]
    flat: dict[str, Any]
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    read: list[Path] = field(default_factory=list)
    faults: dict[str, DataFault] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, dict[str, Any]]:
        """The manifests of representations that were read, by stage."""
        return {name: found for name, found in (("parcellate", self.parcellated), ("flatmap", self.flat)) if found}

    def path(self, relative: str) -> Path:
        """Return a file named in a manifest, and remember that it was read."""
        path = self.results / relative
        self.read.append(path)
        return path

    def frames(self, entry: Mapping[str, Any]) -> Path:
        """Return the flat-map frames of a scan.

        Raises
        ------
        BoldmillError
            They are gone: nothing keeps them once they are clips.
        """
        path = self.path(entry["files"]["frames"])
        if not path.is_file():
            why = "frames are kept only until they are clips (flatmap.keep)"
            raise BoldmillError("no flat-map frames", path, why, "run `snakemake -R flatmap_bucket`")
        return path

    def refuse(self, scan_id: str, fault: DataFault) -> None:
        """Remember a fault of a scan; a second one of the same scan is added to the first."""
        first = self.faults.get(scan_id)
        if first is not None and fault.why not in first.why:
            self.faults[scan_id] = DataFault(
                first.what, first.where, f"{first.why}; {fault.why}", f"{first.fix}; {fault.fix}"
            )
        self.faults.setdefault(scan_id, fault)

    def check_complete(self) -> None:
        """Refuse a ticket that an upstream manifest says nothing of: no scan is dropped without a reason.

        Raises
        ------
        BoldmillError
            A scan that is missing from its subject's manifest, or from the bucket's parcel series or flat maps.
        """
        for scan_id, ticket in sorted(self.tickets.items()):
            if ticket["kind"] == "table":
                if "parcellate" in self.given and scan_id not in self.parcellated.get("scans", {}):
                    raise _absent(scan_id, f"the parcellate manifest of bucket {self.number}", "parcellate_bucket")
                continue
            subject = self.subjects.get(subject_key(ticket))
            if subject is None or (ticket["kind"] != "anat" and scan_id not in subject.get("scans", {})):
                raise _absent(scan_id, f"the manifest of {subject_key(ticket)}", "preprocess_bucket")
        for scan_id, ticket, _ in self.usable():
            for name, manifest in self.given.items():
                if name == "flatmap" and ticket["kind"] in ("parcels", "table"):
                    continue  # parcel series have nothing to map
                if ticket["kind"] != "anat" and scan_id not in manifest.get("scans", {}):
                    raise _absent(scan_id, f"the {name} manifest of bucket {self.number}", f"{name}_bucket")

    def usable(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield scan id, ticket and entry of every scan that preprocessing let through, sorted.

        A table of parcel series was never preprocessed: its entry is that of parcellation.
        """
        for scan_id, ticket in sorted(self.tickets.items()):
            if ticket["kind"] == "table":
                table = entry_of(self.parcellated, scan_id)
                if table is not None:
                    yield scan_id, ticket, table
                continue
            subject = self.subjects.get(subject_key(ticket), {})
            entry = subject.get("scans", {}).get(scan_id, {})
            if ticket["kind"] == "anat":
                entry = {"flags": [], "space": subject.get("space", ""), **entry, **subject.get("anat", {})}
            if entry.get("status") == "ok":
                yield scan_id, ticket, entry


def subject_key(ticket: Mapping[str, Any]) -> str:
    """Return ``"<dataset>/<subject>"``."""
    return f"{ticket['dataset']}/{ticket['subject']}"


def entry_of(manifest: Mapping[str, Any], scan_id: str) -> dict[str, Any] | None:
    """Return a scan's entry of a bucket manifest, or ``None`` where the scan is absent or not ok."""
    entry: dict[str, Any] | None = manifest.get("scans", {}).get(scan_id)
    return entry if entry is not None and entry.get("status") == "ok" else None


def read_timeseries(path: Path) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Return parcel names and the (T, P) series of a TSV; ``n/a`` is NaN.

    Raises
    ------
    BoldmillError
        A value is no number, or a row has another length.
    """
    head, _, body = path.read_text(encoding="utf-8").partition("\n")
    names = head.rstrip("\r").split("\t")
    shape = (body.count("\n") + (not body.endswith("\n") and bool(body)), len(names))
    fix = "run the parcellate stage again"
    try:
        values = np.fromstring(body.replace("n/a", "nan"), dtype=np.float64, sep=" ")
    except ValueError as error:
        raise BoldmillError("cannot read parcel series", path, "a value is no number", fix) from error
    if values.size != shape[0] * shape[1]:
        why = f"{values.size} numbers, {shape[0]} rows of {shape[1]} parcels would have {shape[0] * shape[1]}"
        raise BoldmillError("cannot read parcel series", path, why, fix)
    return names, values.reshape(shape).astype(np.float32)


def common(bucket: Bucket, scan_id: str, ticket: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity and provenance columns of a scan of the bucket."""
    return identity(scan_id, ticket, bucket.digests.get(subject_key(ticket), {}))


def identity(scan_id: str, ticket: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the identity and provenance columns every table carries."""
    images = [*ticket.get("bold", []), *ticket.get("t1w", []), *ticket.get("series", [])]
    raw = [*images, *filter(None, [ticket.get("confounds")])]
    return {
        "scan_id": scan_id,
        "dataset": ticket["dataset"],
        "subject": ticket["subject"],
        "source_sha256": [image["sha256"] for image in raw],
        "pipeline_version": __version__,
        "stage_digests": sorted(digests.items()),
    }


def scan_row(
    bucket: Bucket,
    scan_id: str,
    ticket: Mapping[str, Any],
    entry: Mapping[str, Any],
    *,
    atlases: Sequence[str],
    n_clips: int,
    morphometry: npt.NDArray[np.float32] | None,
) -> dict[str, Any]:
    """Return the row of a scan in ``scans``."""
    person = bucket.participants.get("subjects", {}).get(subject_key(ticket), {})
    qc = {str(k): float(v) for k, v in (entry.get("qc") or {}).items() if _is_number(v)}
    return {
        **common(bucket, scan_id, ticket),
        **{name: ticket.get(name) or "" for name in ("session", "task", "run", "kind")},
        "entities": sorted((str(k), str(v)) for k, v in (ticket.get("entities") or {}).items()),
        "bucket": bucket.number,
        **{name: str(person.get(name) or "") for name in ("site", "family")},
        "licence": str(bucket.participants.get("licences", {}).get(ticket["dataset"]) or ""),
        "space": entry.get("space") or "",
        "phenotypes": canonical_json(person.get("phenotypes") or {}),
        "tr": entry.get("tr"),
        "n_volumes": int(entry.get("n_volumes") or 0),
        "mean_fd": qc.get("mean_fd"),
        "qc": sorted(qc.items()),
        "flags": sorted(str(flag) for flag in entry.get("flags") or []),
        "atlases": list(atlases),
        "n_clips": n_clips,
        "morphometry": None if morphometry is None else morphometry.ravel(),
    }


def timeseries_row(
    base: Mapping[str, Any], atlas: str, series: npt.NDArray[np.float32], tr: float | None
) -> dict[str, Any]:
    """Return the row of a scan in ``timeseries``."""
    values = np.ascontiguousarray(series, dtype="<f4").tobytes()
    shape = {"n_volumes": len(series), "n_parcels": series.shape[1]}
    return {**base, "atlas": atlas, "tr": tr, **shape, "values": values}


def fc_row(
    base: Mapping[str, Any], atlas: str, series: npt.NDArray[np.float32], cfg: ParcellateConfig
) -> dict[str, Any]:
    """Return the row of a scan in ``fc``."""
    edges = vectorise(correlation(series, estimator=cfg.fc_estimator, where=str(base["scan_id"])))
    values = (fisher_z(edges) if cfg.fisher_z else edges).astype(np.float32)
    return {**base, "atlas": atlas, "n_volumes": len(series), "values": values}


def morphometry_of(bucket: Bucket, key: str) -> tuple[list[str], npt.NDArray[np.float32]] | None:
    """Return feature names and (P, 9) features of a subject, or ``None`` without a usable T1w."""
    entry = bucket.parcellated.get("subjects", {}).get(key) or {}
    if not entry.get("morphometry"):
        return None
    import pandas as pd

    path = bucket.path(entry["morphometry"])
    table = pd.read_csv(path, sep="\t", na_values=["n/a"]).select_dtypes("number")
    features = [str(name) for name in table.columns][-MORPHOMETRY_FEATURES:]
    if len(features) < MORPHOMETRY_FEATURES:
        why = f"{len(features)} numeric columns, expected {MORPHOMETRY_FEATURES}"
        raise BoldmillError("cannot read morphometry", path, why, "run the parcellate stage again")
    return features, table[features].to_numpy(dtype=np.float32)


def phenotype_descriptions(bucket: Bucket) -> str:
    """Return the words of the phenotypes of the bucket's data sets as JSON."""
    present = {ticket["dataset"] for ticket in bucket.tickets.values()}
    words = bucket.participants.get("descriptions", {})
    return canonical_json({name: words[name] for name in sorted(present & set(words))})


def load_bucket(
    *,
    number: int,
    results: Path,
    tickets: list[Path],
    subjects: list[Path],
    participants: Path | None = None,
    parcellated: Path | None = None,
    flat: Path | None = None,
    clips: Path | None = None,
) -> Bucket:
    """Read and join the manifests of a bucket, and refuse any that lack one of its scans.

    ``clips`` is a shard that was made before: its settings are part of the digests.
    """
    from boldmill.shards.lineage import Lineage, check_tickets

    check_tickets(tickets, [*subjects, *filter(None, [parcellated])])
    lineage = Lineage()
    shared = [path for path in (clips, parcellated, flat) if path is not None]
    read_tickets = [read_json(path) for path in tickets]
    manifests = {subject_key(m): (path, m) for path in subjects for m in [read_json(path)]}
    digests = {key: lineage.digests(*shared, path) for key, (path, _) in manifests.items()}
    of_tables = lineage.digests(*filter(None, [parcellated]), leave=subjects)
    digests |= {subject_key(ticket): of_tables for ticket in read_tickets if ticket["kind"] == "table"}
    bucket = Bucket(
        number=number,
        results=results,
        tickets={ticket["scan_id"]: ticket for ticket in read_tickets},
        subjects={key: manifest for key, (_, manifest) in manifests.items()},
        participants=read_json(participants) if participants else {},
        parcellated=read_json(parcellated) if parcellated else {},
        flat=read_json(flat) if flat else {},
        digests={key: dict(found) for key, found in digests.items()},
    )
    bucket.check_complete()
    return bucket


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _absent(scan_id: str, where: str, rule: str) -> BoldmillError:
    return BoldmillError("inputs do not fit together", scan_id, f"{where} lacks it", f"run `snakemake -R {rule}`")


def mismatch(where: str | Path, why: str, stage: str) -> BoldmillError:
    """Return the error of inputs that were not made for each other."""
    return BoldmillError("inputs do not fit together", where, why, f"run the {stage} stage again for all scans")
