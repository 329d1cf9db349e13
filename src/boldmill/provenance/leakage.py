"""Prove that nobody a model was tested on was in its pre-training, or name them.

For every checkpoint below the results (models, variants of an ablation, imported weights) and every table made with it:

  pre-training   subjects.json beside the weights, held against the snapshot it was trained on: everybody in it must be
                 in a training or validation split there
  tested         the subjects in predictions.parquet that the model itself was scored on; of few-shot and zero-shot
                 tables, which keep no predictions, everybody their snapshot holds out
  overlap        the tested who, or a member of whose family (where the data set names families), were in pre-training,
                 and those whose raw files have the very bytes of a subject in pre-training under another name

Whether one person takes part in two data sets under different labels cannot be known from labels; only equal bytes and
families are found. Weights that a user vouches for (`import-weights --unseen-data`) are named as such. Snapshots that
hold out somebody a model has seen are named, for it must not be tested there.

Exit status: 0 no overlap, 1 overlap, or a tested model whose pre-training nobody lists, 2 the command line is wrong.

Example:
  boldmill audit leakage
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from boldmill.evaluate.cohort import HELDOUT, group_of
from boldmill.evaluate.leakage import overlap, pretraining_subjects
from boldmill.provenance.claims import CONFIG, WEIGHTS, checkpoints, manifests, renamed
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import SUFFIX, shown
from boldmill.provenance.withdrawn import note as withdrawn
from boldmill.train.checkpoint import UNSEEN

PREDICTIONS = "predictions.parquet"
RANDOM = "_random"
"""Part of the names of methods with random weights: they saw nobody."""
SPLIT_TABLES = ("few_shot", "zero_shot")
NAMED = 10
CANNOT_KNOW = (
    "whether one person takes part in two data sets under different labels cannot be known from labels: "
    "only equal raw files and families are found"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Everybody in the shards: subject -> group no split may divide, and subject -> hashes of raw files."""

    groups: dict[str, str]
    sources: dict[str, set[str]]

    def same_bytes(self, tested: set[str], trained: frozenset[str]) -> set[str]:
        """Return the tested who have a raw file of somebody in pre-training under another name."""
        seen = set().union(*(self.sources.get(subject, set()) for subject in trained))
        return {subject for subject in tested - trained if self.sources.get(subject, set()) & seen}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One model and one table made with it (or none)."""

    model: str
    table: str
    pretraining: int
    tested: int
    overlap: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unproved: bool = False

    @property
    def bad(self) -> bool:
        """Whether the audit fails."""
        return bool(self.overlap) or (self.unproved and self.tested > 0)


def read_people(results: Path) -> People:
    """Read subjects, families and hashes of raw files from the shards of scans, those of frozen snapshots included."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups: dict[str, str] = {}
    sources: dict[str, set[str]] = {}
    places = ("shards/scans/bucket-*.parquet", "datasets/*/shards/scans/bucket-*.parquet")  # frozen ones too
    for path in sorted(path for place in places for path in results.glob(place)):
        try:
            table = pq.read_table(path, columns=["dataset", "subject", "family", "source_sha256"])
        except (pa.ArrowException, OSError, KeyError):
            continue  # damaged: `audit verify` names it
        for row in table.to_pylist():
            subject = f"{row['dataset']}/{row['subject']}"
            groups[subject] = group_of(row["dataset"], subject, row["family"])
            sources.setdefault(subject, set()).update(row["source_sha256"] or ())
    return People(groups=groups, sources=sources)


def audit(results: Path, ledger: Ledger) -> list[Finding]:
    """Return one finding per model and table, sorted."""
    people, snapshots = read_people(results), list(manifests(results).values())
    imported = [Path(p) for p in ledger.paths if Path(p).name == WEIGHTS and Path(p).is_file()]
    found: list[Finding] = []
    for weights in sorted({shown(path): path for path in (*checkpoints(results), *imported)}.items()):
        found += _model(*weights, ledger, people, snapshots)
    return found


def _model(
    name: str, weights: Path, ledger: Ledger, people: People, snapshots: list[dict[str, Any]]
) -> Iterator[Finding]:
    config = _json(weights.with_name(CONFIG))
    try:
        trained = pretraining_subjects(weights)
        unproved, notes, seen_heldout = False, *_against_snapshot(weights, config, trained, snapshots, people)
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
    tables = list(_tables(name, config, ledger))
    if seen_heldout or not tables:
        table = "its own snapshot" if seen_heldout else "not tested"
        yield Finding(model=name, table=table, pretraining=len(trained), tested=0, overlap=seen_heldout, notes=notes,
                      unproved=unproved)  # fmt: skip
    for table, tested in tables:
        seen = {*overlap(tested, trained, people.groups), *people.same_bytes(tested, trained)}
        yield Finding(model=name, table=table, pretraining=len(trained), tested=len(tested), overlap=sorted(seen),
                      notes=notes, unproved=unproved)  # fmt: skip


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


def _tables(name: str, config: dict[str, Any], ledger: Ledger) -> Iterator[tuple[str, set[str]]]:
    """Yield every table made with a checkpoint and the subjects it was tested on."""
    for record in sorted({record for record, _, _ in ledger.readers_of([name])}):
        out = Path(record.removesuffix(SUFFIX))
        row = ledger.row(out.as_posix())
        stage = row["stage"] if row else ""
        if stage == "evaluate":
            yield out.as_posix(), _predicted(out.with_name(PREDICTIONS), out, str(config.get("model")))
        elif stage in SPLIT_TABLES:
            inputs = [item["path"] for item in ledger.inputs_of(record)]
            subjects = (_json(Path(path)).get("subjects") for path in inputs if path.endswith("manifest.json"))
            yield out.as_posix(), {s for one in subjects for s, split in (one or {}).items() if split == HELDOUT}


def _predicted(predictions: Path, metrics: Path, model: str) -> set[str]:
    """Return the subjects that methods of the model itself, with its trained weights, were scored on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(metrics, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    own = {row["method"] for row in rows if row.get("model") == model and RANDOM not in row["method"]}
    try:
        table = pq.read_table(predictions, columns=["method", "subject"]).to_pylist()
    except (pa.ArrowException, OSError):
        return set()
    return {str(row["subject"]) for row in table if row["method"] in own}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def lines(found: list[Finding]) -> Iterator[str]:
    """Yield the table, and below it who overlaps and what else is to be said."""
    yield f"{'pre-training':>12} {'tested':>7} {'overlap':>8}  model -> table"
    for one in found:
        yield f"{one.pretraining:>12} {one.tested:>7} {len(one.overlap):>8}  {one.model} -> {one.table}"
    for one in found:
        if one.overlap:
            more = f" and {len(one.overlap) - NAMED} more" if len(one.overlap) > NAMED else ""
            yield f"{one.model} -> {one.table}: seen in pre-training: {', '.join(one.overlap[:NAMED])}{more}"
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
