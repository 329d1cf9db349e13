"""The tables of an evaluation: ``metrics.tsv`` and ``predictions.parquet``, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic, write_text

if TYPE_CHECKING:
    from boldmill.evaluate.cohort import Cohort
    from boldmill.evaluate.tasks import Task

NAN = float("nan")
MISSING = "n/a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one method.

    ``protocol`` is ``cv`` (out-of-fold scores of all subjects; methods without pre-training), ``heldout`` (the same
    folds, scored on subjects that no model was pre-trained on; all methods) or ``split`` (fitted on the training split
    once, scored on the held-out subjects).
    """

    task: str
    kind: str
    method: str
    model: str
    protocol: str
    metric: str
    value: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    p_permutation: float = NAN
    n_test: int = 0
    n_train: int = 0
    text_encoder: str = MISSING
    note: str = ""


COLUMNS = tuple(field.name for field in fields(Row))


def cell(value: Any) -> str:
    """Return a table cell: six significant digits, ``n/a`` for NaN, no tabs or line ends.

    >>> cell(0.123456789), cell(float("nan")), cell(12)
    ('0.123457', 'n/a', '12')
    """
    if isinstance(value, float):
        return MISSING if math.isnan(value) else f"{value + 0.0:.6g}"
    return " ".join(str(value).split()) or MISSING


def write_metrics(path: str | Path, rows: Sequence[Row]) -> Path:
    """Write rows in the order given."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(cell(getattr(row, name)) for name in COLUMNS) for row in rows]
    return write_text(path, "\n".join(lines) + "\n")


class Predictions:
    """Collects one row per task, method, protocol, repeat and scan."""

    NAMES = ("task", "method", "protocol", "repeat", "fold", "subject", "scan_id", "truth", "score")

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in self.NAMES}

    def add(
        self,
        task: Task,
        cohort: Cohort,
        *,
        method: str,
        protocol: str,
        scores: NDArray[np.float64],
        folds: NDArray[np.int64],
        tested: NDArray[np.bool_],
    ) -> None:
        """Add scan scores (Q, N) of the tested subjects; ``folds`` is (Q, S)."""
        for repeat, row in enumerate(scores):
            for scan, subject in enumerate(task.member):
                if tested[subject] and np.isfinite(row[scan]):
                    self.add_one(
                        task=task.name,
                        method=method,
                        protocol=protocol,
                        repeat=repeat,
                        fold=int(folds[repeat, subject]),
                        subject=task.subjects[subject],
                        scan_id=cohort.scan_ids[task.rows[scan]],
                        truth=float(task.truth[subject]),
                        score=float(row[scan]),
                    )

    def add_one(self, **values: Any) -> None:
        """Add one row."""
        for name in self.NAMES:
            self.columns[name].append(values[name])

    def write(self, path: str | Path) -> Path:
        """Write the table as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"repeat": pa.int32(), "fold": pa.int32(), "truth": pa.float64(), "score": pa.float64()}
        table = pa.table({n: pa.array(v, type=kinds.get(n, pa.string())) for n, v in self.columns.items()})
        with atomic(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return Path(path)
