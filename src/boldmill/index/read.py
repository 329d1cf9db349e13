"""Read the index: the only thing Snakemake parses to know which scans, subjects and buckets there are.

Needs pyarrow only, so that a job's start-up, which parses the Snakefile again, stays cheap.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from boldmill.atomic import sha256_text
from boldmill.errors import ConfigError
from boldmill.paths import Layout

SCHEMA = 1
METADATA_KEY = b"boldmill"
TABLE = "table"
"""Kind of a scan that enters as a parcel series (data sets of tables): no job preprocesses it."""


class ScanRow(NamedTuple):
    """One scan of the index. Labels carry no BIDS prefix; a missing entity is the empty string."""

    scan_id: str
    dataset: str
    subject: str
    session: str
    task: str
    run: str
    kind: str
    status: str
    bucket: int
    site: str
    licence: str
    tr: float | None
    n_volumes: int | None
    has_t1w: bool
    ticket: str
    ticket_sha256: str
    reason: str
    fix: str
    flags: str

    @property
    def ok(self) -> bool:
        """Whether the scan passed ingest."""
        return self.status == "ok"


class _Held(NamedTuple):
    """What a bucket holds: subjects with images, data sets, and whether there are tables."""

    subjects: list[tuple[str, str]]
    datasets: frozenset[str]
    tables: bool


class Index:
    """All scans, with the questions the workflow asks. Later stages see only scans whose status is ``ok``.

    Parameters
    ----------
    results : Path
        Results folder; paths of tickets are relative to it.
    scans : list of ScanRow
        All rows, sorted by scan id, quarantined ones included.
    digest : str
        Digest of the settings the index was made with (:func:`settings_digest`).
    n_buckets : int
        Number of buckets the subjects were dealt to.
    """

    def __init__(self, results: Path, scans: list[ScanRow], digest: str = "", n_buckets: int = 0) -> None:
        self.results, self.scans, self.digest, self.n_buckets = results, scans, digest, n_buckets
        self._by_number: dict[int, _Held] = {}

    @cached_property
    def ok(self) -> list[ScanRow]:
        """Scans that passed ingest."""
        return [scan for scan in self.scans if scan.ok]

    @cached_property
    def quarantined(self) -> list[ScanRow]:
        """Scans refused at ingest, with ``reason`` and ``fix``."""
        return [scan for scan in self.scans if not scan.ok]

    @cached_property
    def _by_subject(self) -> dict[tuple[str, str], list[ScanRow]]:
        found: dict[tuple[str, str], list[ScanRow]] = {}
        for scan in self.ok:
            found.setdefault((scan.dataset, scan.subject), []).append(scan)
        return dict(sorted(found.items()))

    @cached_property
    def _by_bucket(self) -> dict[int, list[ScanRow]]:
        found: dict[int, list[ScanRow]] = {}
        for scan in self.ok:
            found.setdefault(scan.bucket, []).append(scan)
        return dict(sorted(found.items()))

    def subjects(self) -> list[tuple[str, str]]:
        """Return ``(dataset, subject)`` of everybody with a scan to preprocess, sorted; tables need none."""
        return [who for who, scans in self._by_subject.items() if any(scan.kind != TABLE for scan in scans)]

    def buckets(self) -> list[int]:
        """Return the buckets that hold a scan that passed, sorted."""
        return list(self._by_bucket)

    def preprocessed_buckets(self) -> list[int]:
        """Return the buckets that hold somebody with a scan to preprocess, sorted."""
        return [bucket for bucket in self._by_bucket if self.subjects_in(bucket)]

    def scans_of(self, dataset: str, subject: str) -> list[ScanRow]:
        """Return the scans of one subject that passed."""
        return self._by_subject.get((dataset, subject), [])

    def scans_in(self, bucket: int) -> list[ScanRow]:
        """Return the scans of one bucket that passed."""
        return self._by_bucket.get(int(bucket), [])

    def subjects_in(self, bucket: int) -> list[tuple[str, str]]:
        """Return ``(dataset, subject)`` of one bucket with a scan to preprocess, sorted."""
        return self._held(bucket).subjects

    def datasets_in(self, bucket: int) -> frozenset[str]:
        """Return the data sets with a scan in one bucket."""
        return self._held(bucket).datasets

    def has_tables(self, bucket: int) -> bool:
        """Whether one bucket holds a table of parcel series."""
        return self._held(bucket).tables

    def _held(self, bucket: int) -> _Held:
        """What one bucket holds, looked up once: every rule of a bucket asks."""
        if bucket not in self._by_number:
            scans = self.scans_in(bucket)
            self._by_number[bucket] = _Held(
                subjects=sorted({(scan.dataset, scan.subject) for scan in scans if scan.kind != TABLE}),
                datasets=frozenset(scan.dataset for scan in scans),
                tables=any(scan.kind == TABLE for scan in scans),
            )
        return self._by_number[bucket]

    def is_stale(self, settings_text: str) -> bool:
        """Return whether the index was made with other settings than ``stage_json(config, "ingest")``."""
        return self.digest != settings_digest(settings_text)


def settings_digest(settings_text: str) -> str:
    """Return the digest of what the index depends on.

    Parameters
    ----------
    settings_text : str
        The text of ``boldmill.stages.stage_json(config, "ingest")``, which holds no override of a later stage.
    """
    return sha256_text(settings_text)[:16]


def read_index(results: str | Path) -> Index:
    """Read ``index/runs.parquet`` below a results folder.

    Raises
    ------
    ConfigError
        There is no index yet, or another version of boldmill wrote it.
    """
    results = Path(results)
    path = Layout.at(results).index
    again = "run `snakemake ingest` with the same --configfile (or `boldmill ingest --config FILE`)"
    if not path.is_file():
        raise ConfigError("no index yet", path, "the data sets were not indexed", again)

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=False, use_threads=False)
        table.validate(full=True)  # a flipped byte can be anywhere, also within a text
        about = dict(json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}")))
        schema, digest, n_buckets = about.get("schema"), str(about.get("settings")), int(about.get("n_buckets", 0))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ConfigError("cannot read the index", path, str(error), again) from error
    if schema != SCHEMA or not set(ScanRow._fields) <= set(table.column_names):
        why = f"it has schema {schema}, this version reads {SCHEMA}"
        raise ConfigError("cannot read the index", path, why, again)
    columns = [table.column(name).to_pylist() for name in ScanRow._fields]
    scans = list(map(ScanRow._make, zip(*columns, strict=True)))
    return Index(results, scans, digest=digest, n_buckets=n_buckets)
