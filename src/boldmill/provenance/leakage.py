"""Prove that nobody a model was tested on was in its pre-training, or name them.

For every checkpoint below the results (models, variants of an ablation, imported weights) and every table made with it:

  pre-training   subjects.json beside the weights, as its record knows it, held against the snapshot it was trained on:
                 nobody in it may be held out there
  tested         the subjects in predictions.parquet that the model itself was scored on; of few-shot and zero-shot
                 tables, which keep no predictions, everybody their snapshot holds out
  overlap        the tested who, or a member of whose family (where the data set names families), were in pre-training,
                 and those whose raw files have the very bytes of a subject in pre-training under another name

Whether one person takes part in two data sets cannot be known from labels: only equal bytes and families are found.
Tested people who have the label of somebody of another data set in pre-training are named: series of one study from two
pipelines look like that, and so do two studies that count from 01. Weights that a user vouches for (`import-weights
--unseen-data`) are named as such. Snapshots that hold out somebody a model has seen are named, for it must not be
tested there.

A table about which nothing can be said is named, and is no proof: its weights are gone or were trained again since, its
predictions, its snapshot or its list of subjects are missing or others than it was made with, the ledger does not know
it as it is.

Exit status: 0 no overlap, 1 overlap, or a tested model or a table of which it cannot be told, 2 the command line is
wrong.

Example:
  boldmill audit leakage
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from boldmill.evaluate.cohort import HELDOUT, group_of
from boldmill.evaluate.leakage import overlap, pretraining_subjects
from boldmill.provenance.claims import CONFIG, WEIGHTS, checkpoints, manifests, read_dict, renamed
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import SUFFIX, shown
from boldmill.provenance.tested import SPLIT_TABLES, not_as_recorded, tables_of
from boldmill.provenance.withdrawn import note as withdrawn
from boldmill.train.checkpoint import SUBJECTS, UNSEEN

TABLES = ("evaluate/*/metrics.tsv", "evaluate/*/few_shot.tsv", "evaluate/*/zero_shot.tsv", "ablation/*/metrics.tsv")
NO_MODEL = "(no weights)"
NAMED = 10
CANNOT_KNOW = (
    "whether one person takes part in two data sets cannot be known from labels: "
    "only equal raw files and families are found"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Everybody in the shards: subject -> group no split may divide, and subject -> hashes of raw files."""

    groups: dict[str, str]
    sources: dict[str, set[str]]
    damaged: int = 0

    def limits(self, trained: frozenset[str]) -> list[str]:
        """Return what could not be compared."""
        lost = sum(1 for subject in trained if not self.sources.get(subject))
        notes = [f"{lost} of its pre-training are in no shard: their raw files cannot be compared"] if lost else []
        return notes + (
            [f"{self.damaged} shards of scans cannot be read: who is in them is not compared"] * (self.damaged > 0)
        )

    def same_bytes(self, tested: set[str], trained: frozenset[str]) -> set[str]:
        """Return the tested who have a raw file of somebody in pre-training under another name."""
        seen = set().union(*(self.sources.get(subject, set()) for subject in trained))
        return {subject for subject in tested - trained if self.sources.get(subject, set()) & seen}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One model and one table made with it (or none); ``unknown`` says why of the table nothing can be told."""

    model: str
    table: str
    pretraining: int
    tested: int
    overlap: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unproved: bool = False
    unknown: str = ""

    @property
    def bad(self) -> bool:
        """Whether the audit fails."""
        return bool(self.overlap or self.unknown) or (self.unproved and self.tested > 0)


def read_people(results: Path) -> People:
    """Read subjects, families and hashes of raw files from the shards of scans, those of frozen snapshots included."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups: dict[str, str] = {}
    sources: dict[str, set[str]] = {}
    damaged = 0
    places = ("shards/scans/bucket-*.parquet", "datasets/*/shards/scans/bucket-*.parquet")  # frozen ones too
    for path in sorted(path for place in places for path in results.glob(place)):
        try:
            table = pq.read_table(path, columns=["dataset", "subject", "family", "source_sha256"])
        except (pa.ArrowException, OSError, KeyError):
            damaged += 1  # `audit verify` names it
            continue
        for row in table.to_pylist():
            subject = f"{row['dataset']}/{row['subject']}"
            group = group_of(row["dataset"], subject, row["family"])
            if group != subject or subject not in groups:  # a family that a later table no longer names still counts
                groups[subject] = group
            sources.setdefault(subject, set()).update(row["source_sha256"] or ())
    return People(groups=groups, sources=sources, damaged=damaged)


def audit(results: Path, ledger: Ledger) -> list[Finding]:
    """Return one finding per model and table, sorted."""
    people, snapshots = read_people(results), list(manifests(results).values())
    imported = [Path(p) for p in ledger.paths if Path(p).name == WEIGHTS and Path(p).is_file()]
    found: list[Finding] = []
    for weights in sorted({shown(path): path for path in (*checkpoints(results), *imported)}.items()):
        found += _model(*weights, ledger, people, snapshots)
    seen = {one.table for one in found}
    return found + [one for one in _others(results, ledger) if one.table not in seen]


def _others(results: Path, ledger: Ledger) -> Iterator[Finding]:
    """Yield the tables that no weights that are there made, of the ledger and of the results folder."""
    known = set()
    for row in ledger.outputs.table.select(["path", "stage", "record"]).to_pylist():
        table = row["record"].removesuffix(SUFFIX)
        if row["path"] == table and row["stage"] in ("evaluate", *SPLIT_TABLES):
            known.add(table)
            why = "the weights it was made with are not there, or are named otherwise from this folder"
            yield Finding(model=NO_MODEL, table=table, pretraining=0, tested=0, unknown=why)
    for path in sorted(shown(path) for pattern in TABLES for path in results.glob(pattern)):
        if path not in known:
            why = "the ledger does not know it: run `snakemake audit`"
            yield Finding(model=NO_MODEL, table=path, pretraining=0, tested=0, unknown=why)


def _model(
    name: str, weights: Path, ledger: Ledger, people: People, snapshots: list[dict[str, Any]]
) -> Iterator[Finding]:
    config = read_dict(weights.with_name(CONFIG))
    try:
        trained = pretraining_subjects(weights)
        notes, seen_heldout = _against_snapshot(weights, config, trained, snapshots, people)
        why = not_as_recorded(weights.with_name(SUBJECTS), ledger)
        unproved, notes = bool(why), [*([f"unproved: its list of pre-training {why}"] if why else []), *notes]
        notes += people.limits(trained)
    except ConfigError as error:
        trained, unproved, notes, seen_heldout = frozenset(), True, [f"unproved: {error.why}"], []
    if config.get(UNSEEN):
        notes.append("a user vouches that these weights have seen nobody of the data")
    if gone := withdrawn(weights):
        notes.append(gone)
    for snapshot in snapshots:
        held = [s for s, split in snapshot.get("subjects", {}).items() if split == HELDOUT]
        both = overlap(held, trained, people.groups)
        if both and str(snapshot.get("id")) != renamed(weights, str(config.get("snapshot"))):
            notes.append(f"must not be tested on snapshot {snapshot.get('name')}: it holds out {len(both)} it has seen")
    tables = list(tables_of(name, weights, config, ledger))
    if seen_heldout or not tables:
        table = "its own snapshot" if seen_heldout else "not tested"
        yield Finding(model=name, table=table, pretraining=len(trained), tested=0, overlap=seen_heldout, notes=notes,
                      unproved=unproved)  # fmt: skip
    for one in tables:
        seen = {*overlap(one.subjects, trained, people.groups), *people.same_bytes(one.subjects, trained)}
        alike = namesakes(one.subjects - seen, trained)
        yield Finding(model=name, table=one.table, pretraining=len(trained), tested=len(one.subjects),
                      overlap=sorted(seen), notes=[*notes, *alike], unproved=unproved, unknown=one.unknown)  # fmt: skip


def namesakes(tested: set[str], trained: frozenset[str]) -> list[str]:
    """Return a note on the tested who have the label of somebody of another data set in pre-training."""
    labels = {who.partition("/")[2]: who for who in sorted(trained)}
    alike = sorted(who for who in tested - trained if who.partition("/")[2] in labels)
    if not alike:
        return []
    pair = f"{alike[0]} and {labels[alike[0].partition('/')[2]]}"
    return [f"{len(alike)} tested have the label of somebody of another data set in pre-training ({pair}): the same?"]


def _against_snapshot(
    weights: Path, config: dict[str, Any], trained: frozenset[str], snapshots: list[dict[str, Any]], people: People
) -> tuple[list[str], list[str]]:
    """Return notes on the list of pre-training, and whom of it its own snapshot holds out."""
    said = config.get("snapshot")
    if said is None:
        return [], []
    now = renamed(weights, str(said))
    own = next((one for one in snapshots if str(one.get("id")) == now), None)
    if own is None:
        return [f"its snapshot {said} is not there any more: only its list of subjects speaks for it"], []
    held = [subject for subject, split in own.get("subjects", {}).items() if split == HELDOUT]
    return [], overlap(held, trained, people.groups)


def lines(found: list[Finding]) -> Iterator[str]:
    """Yield the table, and below it who overlaps and what else is to be said."""
    yield f"{'pre-training':>12} {'tested':>7} {'overlap':>8}  model -> table"
    for one in found:
        yield f"{one.pretraining:>12} {one.tested:>7} {len(one.overlap):>8}  {one.model} -> {one.table}"
    for one in found:
        if one.overlap:
            more = f" and {len(one.overlap) - NAMED} more" if len(one.overlap) > NAMED else ""
            yield f"{one.model} -> {one.table}: seen in pre-training: {', '.join(one.overlap[:NAMED])}{more}"
        if one.unknown:
            yield f"{one.model} -> {one.table}: cannot be told: {one.unknown}"
    yield from dict.fromkeys(f"{one.model}: {note}" for one in found for note in one.notes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per model and table, with all names")


def run(args: argparse.Namespace) -> int:
    """Print the table; exit 1 on overlap."""
    found = audit(args.results, Ledger.load(args.results))
    bad = [one for one in found if one.bad]
    if args.json:
        print("\n".join(json.dumps(asdict(one)) for one in found))
        return EXIT_FAILURE if bad else EXIT_OK
    print("\n".join(lines(found)))
    print(CANNOT_KNOW)
    print(f"{len(found)} tables of models, {len(bad)} with overlap or without proof")
    return EXIT_FAILURE if bad else EXIT_OK
