"""Whom the tables made with a checkpoint tested it on, as far as files and ledger can tell."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from boldmill.atomic import sha256_file
from boldmill.evaluate.cohort import HELDOUT
from boldmill.provenance.claims import CONFIG, read_dict
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import SUFFIX, shown

PREDICTIONS = "predictions.parquet"
RANDOM = "_random"
"""Part of the names of methods with random weights: they saw nobody."""
CONTROLS = tuple(f"zeroshot_f_{name}" for name in ("permuted_text", "permuted_weights", "random_vector"))
"""Controls of FM-APP's zero-shot ladder (:func:`boldmill.evaluate.zeroshot.ladder`): means over several draws on the
subjects of its other rungs, without predictions of their own."""
SPLIT_TABLES = ("few_shot", "zero_shot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One table, whom it tested the model on, and why that cannot be told."""

    table: str
    subjects: set[str]
    unknown: str = ""


def not_as_recorded(path: Path, ledger: Ledger) -> str:
    """Return what is wrong with a file, held against the ledger; nothing where it is what its command wrote."""
    row = ledger.row(shown(path))
    if row is None:
        return "is in no record"
    if not path.is_file():
        return "is gone"
    return "" if sha256_file(path) == row["sha256"] else "is not what was recorded"


def tables_of(name: str, weights: Path, config: dict[str, Any], ledger: Ledger) -> Iterator[Tested]:
    """Yield every table made with a checkpoint and the subjects it was tested on."""
    row = ledger.row(name)
    now = row["sha256"] if row else sha256_file(weights)
    for record, read in sorted({(record, read) for record, _, read in ledger.readers_of([name])}):
        out = Path(record.removesuffix(SUFFIX))
        made = ledger.row(out.as_posix())
        stage = made["stage"] if made else ""
        if stage == "evaluate":
            who, unknown = _predicted(out, str(config.get("model", "")), ledger)
        elif stage in SPLIT_TABLES:
            who, unknown = _held_out(record, out, ledger)
        else:
            continue
        if read != now:
            unknown = "other weights lie there than it was made with: evaluate again"
        yield Tested(table=out.as_posix(), subjects=who, unknown=unknown)


def _held_out(record: str, table: Path, ledger: Ledger) -> tuple[set[str], str]:
    """Return whom the snapshot of a few-shot or zero-shot table holds out, and why that is not whom it tested."""
    unknown = not_as_recorded(table, ledger)
    who: set[str] = set()
    for item in ledger.inputs_of(record):
        path = Path(item["path"])
        if path.name != "manifest.json":
            continue
        who |= {subject for subject, split in read_dict(path).get("subjects", {}).items() if split == HELDOUT}
        if not path.is_file() or sha256_file(path) != item["sha256"]:
            return who, f"the snapshot it was made with ({path}) is another now: evaluate again"
    return who, f"the table {unknown}" if unknown else ""


def _predicted(metrics: Path, model: str, ledger: Ledger) -> tuple[set[str], str]:
    """Return the subjects that methods of the model itself, with its trained weights, were scored on, and why not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    predictions = metrics.with_name(PREDICTIONS)
    for path in (metrics, predictions):
        if wrong := not_as_recorded(path, ledger):
            return set(), f"{path.name} {wrong}"
    with open(metrics, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    models = {row.get("model") for row in rows} - {"baseline", None}
    if models and models != {model}:
        return set(), f"it is of {', '.join(sorted(map(str, models)))}, {CONFIG} beside the weights says '{model}'"
    scored = [row for row in rows if row.get("model") == model and _is_number(row.get("value"))]
    own = {row["method"] for row in scored if RANDOM not in row["method"]}
    try:
        table = pq.read_table(predictions, columns=["method", "subject"]).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        return set(), f"{PREDICTIONS} cannot be read ({type(error).__name__})"
    found = {str(row["subject"]) for row in table if row["method"] in own}
    silent = own - {row["method"] for row in table}
    lacking = sorted(method for method in silent if not (found and method.startswith(CONTROLS)))
    return found, f"{PREDICTIONS} says nobody of {lacking[0]}" if lacking else ""


def _is_number(text: str | None) -> bool:
    try:
        return isfinite(float(text or "nan"))
    except ValueError:
        return False
