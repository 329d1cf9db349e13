"""A task: which scans have the label, and the label as a number.

Axes: N scans, S subjects.

One scan is one sample for a probe; scores are averaged over the scans of a subject before anything is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import BoldmillError, ConfigError, nearest
from boldmill.evaluate.cohort import HELDOUT, Cohort
from boldmill.evaluate.config import TaskConfig
from boldmill.evaluate.selection import select

MIN_SUBJECTS = 4
"""Fewest labelled subjects of a task's own data sets (two folds of two)."""


class CannotEvaluate(BoldmillError):
    """The cohort is too small for a number: the row says n/a and why, everything else goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Labelled scans of one task.

    Parameters
    ----------
    name, kind, column : str
        As configured.
    rows : (N,) int array
        Rows of the cohort.
    member : (N,) int array
        Subject of each scan, an index into ``subjects``.
    subjects, groups, sites : tuple of str
        The S subjects, sorted, the group of each, and the site of its first scan.
    truth : (S,) array
        1 for the positive class and 0 for all others, the number of the class (multiclass), or the value.
    classes : tuple of str
        Labels: of class 0, 1, ... (multiclass), or the positive one alone (classification); none for regression. They
        are those of the task's own data sets.
    heldout : (S,) bool array
        Subjects that no model was pre-trained on.
    external : (S,) bool array
        Subjects of the data sets that are tested only.
    note : str
        What was left out: by filters, and external scans with labels that none of the others has.
    """

    name: str
    kind: str
    column: str
    rows: NDArray[np.int64]
    member: NDArray[np.int64]
    subjects: tuple[str, ...]
    groups: tuple[str, ...]
    sites: tuple[str, ...]
    truth: NDArray[np.float64]
    classes: tuple[str, ...]
    heldout: NDArray[np.bool_]
    external: NDArray[np.bool_]
    note: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """``"<dataset>/<site>"`` of each subject: labels are exchanged within these, whatever the names of sites."""
        return tuple(
            f"{subject.rpartition('/')[0]}/{site}" for subject, site in zip(self.subjects, self.sites, strict=True)
        )

    def of_subjects(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average scan scores (..., N) over the scans of each subject (..., S); scans without a score are left out."""
        known = np.isfinite(scores)
        out = np.zeros((*scores.shape[:-1], len(self.subjects)))
        count = np.zeros_like(out)
        for scan, subject in enumerate(self.member):
            out[..., subject] += np.where(known[..., scan], scores[..., scan], 0.0)
            count[..., subject] += known[..., scan]
        return np.divide(out, count, out=np.full_like(out, np.nan), where=count > 0)


def make_task(config: TaskConfig, cohort: Cohort) -> Task:
    """Return the labelled scans of a task.

    Classes are those of the task's own data sets: an external scan with another label (one more diagnosis, or another
    coding) is left out and counted, for no method can have learnt it, and taking it for negative would be a guess.

    Raises
    ------
    ConfigError
        The column exists nowhere, or a filter names what no scan has.
    CannotEvaluate
        Too few labelled subjects of its own data sets, or no variance among them.
    """
    if config.column not in cohort.phenotypes.columns:
        known = [str(c) for c in cohort.phenotypes.columns]
        why = f"no participants table has the column `{config.column}`{nearest(config.column, known)}"
        raise ConfigError("unknown phenotype", f"evaluate.tasks[{config.name}]", why, "correct the column")
    labels = cohort.phenotypes[config.column].tolist()
    wanted, note = select(config, cohort)
    if not wanted.any():
        why = f"its data sets and filters leave no scan ({note})" if note else "no scan is of its data sets"
        raise CannotEvaluate("task is empty", config.name, why, "correct its datasets, sites or include")
    external = np.isin(np.array(cohort.datasets, dtype=str), config.external)
    values, classes, unknown = _values(config, labels, wanted, wanted & ~external)
    note = "; ".join(part for part in (note, unknown) if part)
    rows = np.flatnonzero(wanted & np.isfinite(values)).astype(np.int64)
    subjects = tuple(sorted({cohort.subjects[i] for i in rows}))
    own = {cohort.subjects[i] for i in rows if not external[i]}
    if len(own) < MIN_SUBJECTS:
        why = f"only {len(own)} subjects{' of its own data sets' * bool(config.external)} have a value of "
        why += f"`{config.column}`"
        why += f" ({note})" if note else ""
        raise CannotEvaluate("task is too small", config.name, why, f"at least {MIN_SUBJECTS} are needed")
    position = {subject: i for i, subject in enumerate(subjects)}
    member = np.array([position[cohort.subjects[i]] for i in rows], dtype=np.int64)
    first = [int(rows[np.flatnonzero(member == i)[0]]) for i in range(len(subjects))]
    for i, subject in enumerate(subjects):
        if np.unique(values[rows[member == i]]).size > 1:
            why = f"`{config.column}` differs between scans of the subject"
            raise CannotEvaluate("label is not one per subject", subject, why, "give one value per subject")
    truth = values[first]
    if np.unique(truth[~external[first]]).size < 2:
        raise CannotEvaluate("nothing to tell apart", config.name, "all labels are equal", "choose another column")
    return Task(
        name=config.name,
        kind=config.kind,
        column=config.column,
        rows=rows,
        member=member,
        subjects=subjects,
        groups=tuple(cohort.groups[i] for i in first),
        sites=tuple(cohort.sites[i] for i in first),
        truth=truth,
        classes=classes,
        heldout=np.array([cohort.splits[i] == HELDOUT for i in first]),
        external=external[first],
        note=note,
    )


def _values(
    config: TaskConfig, labels: Sequence[Any], wanted: NDArray[np.bool_], own: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], tuple[str, ...], str]:
    """Return labels as numbers (NaN where missing or unknown), the names of the classes, and what is unknown, in words.

    ``own`` are the wanted scans that are not external.
    """
    if config.kind == "regression":
        return _numbers(config, labels, wanted), (), ""
    texts = [label_text(value) for value in labels]
    classes = sorted({t for t, ok in zip(texts, own, strict=True) if t is not None and ok})
    if len(classes) < 2:
        whose = " of its own data sets" * bool(config.external)
        why = f"the labels{whose} are {classes}"
        raise CannotEvaluate("nothing to tell apart", config.name, why, "choose another column")
    positive = config.positive or classes[-1]
    if config.kind == "classification" and positive not in classes:
        why = f"`{positive}` is no label of `{config.column}`; labels are {classes}{nearest(positive, classes)}"
        raise ConfigError("unknown label", f"evaluate.tasks[{config.name}]", why, "correct `positive`")
    several = config.kind == "multiclass"
    number = {label: float(i if several else label == positive) for i, label in enumerate(classes)}
    values = np.array([np.nan if t is None else number.get(t, np.nan) for t in texts])
    lost = [t for t, ok in zip(texts, wanted, strict=True) if ok and t is not None and t not in number]
    words = f"{len(lost)} external scans left out for labels of no other scan: {', '.join(sorted(set(lost)))}"
    return values, tuple(classes) if several else (positive,), words if lost else ""


def _numbers(config: TaskConfig, labels: Sequence[Any], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    out = np.full(len(labels), np.nan)
    for i, value in enumerate(labels):
        try:
            out[i] = np.nan if value is None else float(value)
        except (TypeError, ValueError):
            if wanted[i]:
                raise ConfigError(
                    "not a number",
                    f"evaluate.tasks[{config.name}]",
                    f"`{config.column}` holds {value!r}",
                    "use kind: classification, or another column",
                ) from None
    return out


def label_text(value: Any) -> str | None:
    """Return a label as text, or None where it is missing.

    >>> label_text(1.0), label_text("patient"), label_text(float("nan"))
    ('1', 'patient', None)
    """
    if value is None or value != value or str(value).strip() in ("", "n/a"):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
