"""Index the configured data sets: check every scan without loading it, and write one ticket per good scan.

Scans that fail a check are listed in index/quarantine.tsv with the reason and a fix; everything else goes on.
A second call reads only new or touched files, and touches only tickets whose content changed.

Example:
    boldmill ingest --config config.yaml my.yaml
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import write_text
from boldmill.errors import EXIT_OK, ConfigError, DataFault
from boldmill.index.config import DatasetConfig, IndexConfig
from boldmill.index.listing import Listing
from boldmill.index.participants import Participants
from boldmill.index.quarantine import QuarantineRow, to_tsv
from boldmill.index.read import ScanRow, settings_digest
from boldmill.index.ready_files import Wanted
from boldmill.index.scans import Scan
from boldmill.paths import Layout
from boldmill.stages import Settings

if TYPE_CHECKING:
    from boldmill.index.evaluate import Evaluator
    from boldmill.index.evaluate_tables import TableEvaluator
    from boldmill.index.table_cache import TableCache

IGNORED = ("dataset", "path", "reason")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")
    parser.add_argument("--config-json", metavar="TEXT", help="settings of the stage (given by the workflow)")
    parser.add_argument("--results", metavar="DIR", help="results folder (default: the configuration's)")


@dataclass(slots=True)
class _Source:
    """One data set on its way into the index."""

    config: DatasetConfig
    settings: IndexConfig
    listing: Listing
    scans: list[Scan]
    participants: Participants
    licence: str
    root: str
    withdrawn: set[str] = field(default_factory=set)

    def person(self, subject: str) -> dict[str, Any]:
        """Return site, family, phenotypes and flags of a subject; nothing of one who withdrew consent."""
        config = self.config
        if subject in self.withdrawn:
            return {"site": "", "family": None, "phenotypes": {}, "flags": []}
        return self.participants.entry(subject, config.site, config.site_column, config.family_column, config.name)

    def evaluator(self, facts: dict[str, Any]) -> Evaluator | TableEvaluator:
        """Return what checks its scans."""
        from boldmill.index.evaluate import Evaluator
        from boldmill.index.evaluate_tables import TableEvaluator

        if self.config.kind == "tables":
            return TableEvaluator(self.config, self.settings, self.scans)
        return Evaluator(self.root, self.listing.sidecars, facts, self.settings)


def run(args: argparse.Namespace) -> int:
    """Index everything; exit 0 even where scans are quarantined."""
    settings, results = _settings(args)
    ingest(settings, results)
    return EXIT_OK


def _settings(args: argparse.Namespace) -> tuple[Settings, Path]:
    if bool(args.config) == bool(args.config_json):
        raise ConfigError("no settings", "--config", "give --config FILE... or --config-json TEXT", "see --help")
    if args.config_json:
        if not args.results:
            raise ConfigError("no results folder", "--results", "--config-json needs --results", "give --results DIR")
        return Settings(args.config_json), Path(args.results)
    from boldmill.config.load import load
    from boldmill.stages import stage_json

    config = load(*args.config)
    return Settings(stage_json(config, "ingest")), Path(args.results or config.results)


def ingest(settings: Settings, results: Path) -> list[ScanRow]:
    """Index all data sets below ``results`` and return the rows of the index.

    Raises
    ------
    ConfigError
        A data set is missing or a filter matches nothing.
    """
    from boldmill.index.cache import FactsCache
    from boldmill.index.evaluate import absolute_root
    from boldmill.index.table_cache import TableCache
    from boldmill.provenance.record import Recorder

    datasets = [DatasetConfig.model_validate(entry) for entry in settings.raw("datasets")]
    if not datasets:
        raise ConfigError("no data sets", "datasets", "the list is empty", "list a data set, or use `boldmill init`")
    layout = Layout.at(results)
    with Recorder(settings, out=layout.index) as record:
        tables = TableCache(layout.index.parent / "hashes_tables.json")
        sources = [_source(config, settings, record, tables) for config in datasets]
        refuse_withdrawn(results, sources)
        wanted = [
            (f"{base}/{file.path}", source.settings.verify_gzip)
            for source in sources
            for base in (absolute_root(source.root),)
            for scan in source.scans
            if scan.fault is None
            for file in (
                *scan.files,
                *scan.t1w,
                *scan.fmaps,
                *((scan.confounds,) if scan.confounds else ()),
                *scan.roles.values(),
            )
        ]
        cache = FactsCache(layout.index.parent / "hashes.parquet")
        facts = cache.gather(wanted)
        tables.save()
        rows = _write(layout, settings, sources, facts, record)
        n_files, n_read = len(facts) + tables.n_files, cache.n_read + tables.n_read
        record.note(files=n_files, files_read=n_read)
    _summary(layout, sources, rows, n_read, n_files)
    return rows


def _source(config: DatasetConfig, settings: Settings, record: Any, tables: TableCache) -> _Source:
    from boldmill.atomic import read_json
    from boldmill.index.evaluate_tables import check_sites
    from boldmill.index.listing import list_dataset
    from boldmill.index.participants import phenotypes_of
    from boldmill.index.scans import build_scans
    from boldmill.index.table_scans import base_folder, list_series

    root = base_folder(config)
    description: Any = {}
    if config.kind == "tables":
        listing, scans = list_series(config, tables)
    else:
        listing = list_dataset(config)
        scans = build_scans(config, listing, wanted_form(settings))
    participants = phenotypes_of(config, Path(root), scans)
    about = Path(root) / "dataset_description.json"
    for path in (about, participants.path, participants.path.with_suffix(".json")):
        if path.is_file():
            record.add_input(path)
    if about.is_file():
        try:
            description = read_json(about)
        except ValueError as error:
            participants.warnings.append(f"dataset_description.json is not valid JSON ({error})")
    for name, rows in participants.unused.items():
        why = f"{rows} {'row' if rows == 1 else 'rows'} of the phenotype table without a series"
        listing.ignored.append((f"{participants.table}: {name}", why))
    licence = config.licence or (str(description.get("License") or "") if isinstance(description, dict) else "")
    limits = settings.section("index", IndexConfig, config.name)
    source = _Source(config, limits, listing, scans, participants, licence, root)
    check_sites(config, {source.person(scan.label("sub"))["site"] for scan in scans})
    return source


def refuse_withdrawn(results: Path, sources: Iterable[_Source]) -> None:
    """Refuse the scans of people who withdrew consent (`boldmill audit forget`): their files are not even read."""
    from boldmill.provenance.withdrawn import FIX, REASON, Forgotten

    forgotten = Forgotten.read(results)
    for source in sources if forgotten.people else ():
        for scan in source.scans:
            if forgotten.holds(source.config.name, scan.label("sub")):
                where = scan.files[0].path if scan.files else scan.scan_id
                scan.fault, scan.flags = DataFault(REASON, where, REASON, FIX), []
                source.withdrawn.add(scan.label("sub"))


def wanted_form(settings: Settings) -> Wanted:
    """Return what decides between the forms of ready-made data: template space and number of parcels."""
    count = re.match(r"\d+", str(settings.raw("spaces.atlas_desc")))
    return Wanted(space=str(settings.raw("spaces.template")), n_parcels=int(count.group()) if count else 0)


def _write(
    layout: Layout, settings: Settings, sources: list[_Source], facts: dict[str, Any], record: Any
) -> list[ScanRow]:
    from boldmill.index.buckets import write_bucket_lists
    from boldmill.index.evaluate import TICKET_SCHEMA
    from boldmill.index.write import bury, write_if_changed, write_index, write_participants, write_tickets
    from boldmill.rng import bucket_of

    n_buckets = int(settings.raw("shards.n_buckets"))
    tickets: dict[str, dict[str, Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    refused: list[QuarantineRow] = []
    buckets: dict[int, dict[str, Any]] = {}
    for source in sources:
        config = source.config
        evaluator = source.evaluator(facts)
        with_t1w = {file.entities["sub"] for file in source.listing.images if file.suffix == "T1w"}
        people: dict[str, tuple[int, dict[str, Any]]] = {}
        for scan in source.scans:
            subject = scan.label("sub")
            if subject not in people:
                people[subject] = bucket_of(config.name, subject, n_buckets), source.person(subject)
            bucket, person = people[subject]
            same = {
                "scan_id": scan.scan_id,
                "dataset": config.name,
                "subject": subject,
                "session": scan.label("ses"),
                "task": scan.label("task"),
                "run": scan.label("run"),
                "kind": scan.kind,
                "bucket": bucket,
            }
            row = same | {"site": person["site"], "licence": source.licence, "has_t1w": subject in with_t1w}
            try:
                found, content = evaluator.evaluate(scan, person["site"])
            except DataFault as fault:
                row |= {"status": "quarantined", "tr": None, "n_volumes": None, "ticket": "", "ticket_sha256": ""}
                row |= {"reason": fault.why, "fix": fault.fix, "flags": "; ".join(scan.flags)}
                file = f"{source.root.rstrip('/')}/{fault.where}"
                refused.append(QuarantineRow(scan.scan_id, config.name, subject, "ingest", fault.why, fault.fix, file))
            else:
                tickets[scan.scan_id] = same | content | {"schema": TICKET_SCHEMA, "root": source.root}
                tickets[scan.scan_id] |= {"entities": scan.entities}
                row |= {"status": "ok", "reason": "", "fix": "", "tr": found["tr"], "n_volumes": found["n_volumes"]}
                row |= {"flags": "; ".join([*found["flags"], *person["flags"]])}
                held = buckets.setdefault(bucket, {"subjects": {}, "descriptions": {}, "licences": {}})
                held["subjects"][f"{config.name}/{subject}"] = person
                held["descriptions"][config.name] = source.participants.descriptions
                held["licences"][config.name] = source.licence
            rows[scan.scan_id] = row
    write_text(layout.index_unfinished, "run `snakemake ingest` again\n")
    digests, _ = write_tickets(layout, tickets)
    for scan_id, digest in digests.items():
        ticket = layout.ticket(scan_id)
        rows[scan_id] |= {"ticket": ticket.relative_to(layout.results).as_posix(), "ticket_sha256": digest}
        record.add_output(ticket)
    write_participants(layout, buckets)
    for bucket in buckets:
        record.add_output(layout.participants(bucket))
    gone = bury(layout, tickets, (row.scan_id for row in refused))
    folder = layout.index.parent
    ignored = [(source.config.name, *item) for source in sources for item in source.listing.ignored]
    write_if_changed(folder / "ignored.tsv", to_tsv(sorted(ignored), IGNORED))
    write_if_changed(layout.index_quarantine, to_tsv(sorted(refused), QuarantineRow._fields))
    for name in ("ignored.tsv", "quarantine.tsv", "tombstones.tsv"):
        record.add_output(folder / name)
    table = [ScanRow(**rows[scan_id]) for scan_id in sorted(rows)]
    for path in write_bucket_lists(layout, table):
        record.add_output(path)
    write_index(layout.index, table, settings_digest(settings.text), n_buckets)
    layout.index_unfinished.unlink(missing_ok=True)
    digest = hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()
    record.note(scans=len(table), quarantined=len(refused), tombstones=len(gone), tickets_sha256=digest)
    return table


def _summary(layout: Layout, sources: list[_Source], rows: list[ScanRow], n_read: int, n_files: int) -> None:
    """Print one line per data set, then where the tables are."""
    print(f"{'data set':<20} {'subjects':>9} {'scans ok':>9} {'quarantined':>12} {'ignored files':>14}")
    status = Counter((row.dataset, row.status) for row in rows)
    people: dict[str, set[str]] = {}
    for row in rows:
        people.setdefault(row.dataset, set()).add(row.subject)
    for source in sources:
        name = source.config.name
        ok, bad = status[name, "ok"], status[name, "quarantined"]
        ignored = len(source.listing.ignored)
        print(f"{name:<20} {len(people.get(name, ())):>9} {ok:>9} {bad:>12} {ignored:>14}")
        for warning in source.participants.warnings:
            print(f"  {name}: {warning}")
    print(f"{n_files} files, {n_read} read now; index: {layout.index}")
    if any(not row.ok for row in rows):
        print(f"quarantined scans, with reasons and fixes: {layout.index_quarantine}")
    if any(source.listing.ignored for source in sources):
        print(f"files that are not part of any scan: {layout.index.parent / 'ignored.tsv'}")
