"""The tables of an evaluation: ``metrics.tsv`` and ``predictions.parquet``, the same bytes for the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic
from boldmill.evaluate.rows import MISSING

if TYPE_CHECKING:
    from boldmill.evaluate.cohort import Cohort
    from boldmill.evaluate.design import Design
    from boldmill.evaluate.tasks import Task

NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one method.

    ``protocol`` is one of :data:`boldmill.evaluate.design.PROTOCOLS`; ``fold`` is ``all``, or one tested site.
    ``p_permutation`` is that of a label permutation (``p_kind``: ``refit``, or ``fixed`` predictions), ``p_t`` that of
    the corrected resampled t-test in rows of a difference from the reference, ``epochs`` the passes of pre-training.
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
    fold: str = "all"
    p_kind: str = MISSING
    p_t: float = NAN
    epochs: str = MISSING


COLUMNS = tuple(field.name for field in fields(Row))


class Predictions:
    """Collects one row per task, method, protocol, repeat and scan (and class, where there are several).

    ``fold`` is the fold or site that the scan was tested in; ``label`` the class that truth and score are about.
    """

    NAMES = ("task", "method", "protocol", "repeat", "fold", "subject", "scan_id", "truth", "score", "label")

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in self.NAMES}

    def add(self, task: Task, cohort: Cohort, design: Design, *, method: str, scores: NDArray[np.float64]) -> None:
        """Add scan scores (Q, N), or (Q, N, C), of the tested subjects that count."""
        fit, tested = design.fold, design.tested
        several = scores.ndim == 3
        labels = task.classes if several else [task.classes[0] if task.classes else ""]
        for repeat, row in enumerate(scores):
            for scan in np.flatnonzero(
                tested[repeat, task.member] & np.isfinite(row.reshape(len(row), -1)).all(axis=1)
            ):
                subject = task.member[scan]
                truth = float(task.truth[subject])
                for c, label in enumerate(labels):
                    self.add_one(
                        task=task.name,
                        method=method,
                        protocol=design.protocol,
                        repeat=repeat,
                        fold=design.names[fit[repeat, subject]],
                        subject=task.subjects[subject],
                        scan_id=cohort.scan_ids[task.rows[scan]],
                        truth=float(truth == c) if several else truth,
                        score=float(row[scan, c] if several else row[scan]),
                        label=label,
                    )

    def add_one(self, **values: Any) -> None:
        """Add one row."""
        for name in self.NAMES:
            self.columns[name].append(values[name])

    def write(self, path: str | Path) -> Path:
        """Write the table as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"repeat": pa.int32(), "truth": pa.float64(), "score": pa.float64()}
        table = pa.table({n: pa.array(v, type=kinds.get(n, pa.string())) for n, v in self.columns.items()})
        with atomic(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return Path(path)
