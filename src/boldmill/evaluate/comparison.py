"""The table for people: ``comparison.md``, one table per task and protocol, methods as rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from boldmill.evaluate.rows import MISSING
from boldmill.evaluate.table import Row

LEADING = {
    "classification": ("auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity", "f1"),
    "multiclass": ("macro_auc", "balanced_accuracy", "accuracy", "macro_f1"),
    "regression": ("pearson_r", "mae", "r2"),
}
"""Metrics shown, the one that p and the difference belong to first."""

EXPLAINED = {
    "cv": "Repeated cross-validation over all subjects; methods pre-trained on any of them are not run.",
    "heldout": "The folds of the cross-validation, scored on subjects that no model was pre-trained on.",
    "split": "Fitted once on the subjects pre-training may have seen, tested on all held-out ones, pooled over sites.",
    "paper": "70 % training, 15 % validation (not used), 15 % test, stratified by site, repeated.",
    "leave-one-site-out": "Every site tested by methods fitted on all others; scores pooled over sites. A constant "
    "prediction pools to less than AUC 0.5, for it leans against the site left out; the mean of sites is free of this.",
    "external": "Fitted on the task's own data sets, tested unchanged on others.",
    "nested": "Cross-validation; hyperparameters chosen by inner folds of the training part.",
}

LEGEND = (
    "Square brackets: 95 % bootstrap interval over subjects (families drawn whole). p: label permutation of the first "
    "metric; *refit*: the method fitted again for every draw, *fixed*: the same predictions. Gain: difference of the "
    "first metric from the first method of the table, with a paired bootstrap interval; p (t): corrected resampled "
    "t-test over test sets (Nadeau and Bengio 2003). No p is corrected for the number of methods. Epochs: passes of "
    "pre-training over its scans."
)


def comparison(rows: Sequence[Row]) -> str:
    """Return the Markdown text of rows of ``metrics.tsv``, in their order."""
    parts = ["# Methods compared", LEGEND]
    tasks = list(dict.fromkeys((row.task, row.kind) for row in rows))
    for task, kind in tasks:
        parts.append(f"## {task} ({kind})")
        own = [row for row in rows if (row.task, row.kind) == (task, kind)]
        for protocol in dict.fromkeys(row.protocol for row in own):
            parts += _section(protocol, kind, [row for row in own if row.protocol == protocol])
    return "\n\n".join(parts) + "\n"


def _section(protocol: str, kind: str, rows: Sequence[Row]) -> list[str]:
    pooled = [row for row in rows if row.fold == "all"]
    present = {row.metric for row in pooled}
    shown = [name for name in LEADING[kind] if name in present]
    head = ["method", "model", *(_words(name) for name in shown), "p", "gain", "p (t)", "n test", "n train", "epochs"]
    lines, notes = [], []
    for method, model in dict.fromkeys((row.method, row.model) for row in pooled):
        own = {row.metric: row for row in pooled if (row.method, row.model) == (method, model)}
        leading = own.get(shown[0]) if shown else None
        some = leading or next(iter(own.values()))
        if leading is None and MISSING in own:
            notes.append(f"- {method}: {own[MISSING].note}")
            lines.append([method, model, *[MISSING] * (len(head) - 3), some.epochs])
            continue
        gain = next((row for name, row in own.items() if "_over_" in name), None)
        chance = f"{_number(some.p_permutation)} ({some.p_kind})" if not math.isnan(some.p_permutation) else MISSING
        lines.append(
            [method, model, *(_value(own.get(name)) for name in shown), chance, _value(gain),
             _number(gain.p_t if gain else math.nan), str(some.n_test), str(some.n_train), some.epochs]
        )  # fmt: skip
        said = [some.note, f"gain: {gain.note}" if gain else ""]
        notes.append(f"- {method}: {'; '.join(text for text in said if text)}" if any(said) else "")
    parts = [f"### {protocol}", EXPLAINED.get(protocol, ""), _table(head, lines), _verdict(pooled)]
    parts += _sites(rows, shown[0]) if shown else []
    return [*(part for part in parts if part), "\n".join(note for note in notes if note)]


def _verdict(rows: Sequence[Row]) -> str:
    """Return in words which methods the interval of the gain puts above or below the reference, and which neither."""
    gains = [row for row in rows if "_over_" in row.metric]
    if not gains:
        return ""
    found: dict[str, list[str]] = {"above": [], "below": [], "no difference shown": [], "cannot be compared": []}
    for row in gains:
        if math.isnan(row.ci_low):
            found["cannot be compared"].append(row.method)
        elif row.ci_low > 0:
            found["above"].append(row.method)
        else:
            found["below" if row.ci_high < 0 else "no difference shown"].append(row.method)
    metric, reference = gains[0].metric.split("_over_", 1)
    said = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names)
    return f"Against {reference}, by the interval of the gain in {_words(metric)}: {said}."


def _sites(rows: Sequence[Row], metric: str) -> list[str]:
    """Return the table of the first metric per tested site, where there is one."""
    own = [row for row in rows if row.fold != "all" and row.metric == metric]
    if not own:
        return []
    methods = list(dict.fromkeys(row.method for row in own))
    value = {(row.fold, row.method): row for row in own}
    lines = []
    for site in dict.fromkeys(row.fold for row in own):
        count = max(row.n_test for row in own if row.fold == site)
        lines.append([site, str(count), *(_value(value.get((site, method)), short=True) for method in methods)])
    means = []
    for method in methods:
        known = [row.value for row in own if row.method == method and not math.isnan(row.value)]
        means.append(f"{sum(known) / len(known):.3f}" if known else MISSING)
    lines.append(["mean of sites", "", *means])
    title = f"{_words(metric)} per test site (n/a: too few subjects or a single class):"
    return [title, _table(["site", "n test", *methods], lines)]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(out)


def _words(metric: str) -> str:
    names = {"auc": "AUC", "f1": "F1", "macro_auc": "macro AUC", "macro_f1": "macro F1", "mae": "MAE", "r2": "R2"}
    return names.get(metric, metric.replace("pearson_r", "Pearson r").replace("_", " "))


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.3g}"


def _value(row: Row | None, *, short: bool = False) -> str:
    """Return a value with its interval."""
    if row is None or math.isnan(row.value):
        return MISSING
    if short or math.isnan(row.ci_low):
        return f"{row.value:.3f}"
    return f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"
