"""The table of an ablation: every variant's frozen linear probe, and its gain over the full model.

Axes: Q repeats, S subjects, R bootstrap draws.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.evaluate.leakage import pretraining_epochs
from boldmill.evaluate.metrics import metrics_of, over_repeats
from boldmill.evaluate.stats import MIN_DEFINED, bootstrap_weights
from boldmill.train.checkpoint import WEIGHTS, checkpoint_note

if TYPE_CHECKING:
    from boldmill.ablation.config import AblationConfig, VariantConfig

Floats = NDArray[np.float64]

NAN = float("nan")
BASELINE = "baseline"
KINDS = ("classification", "regression")
ENDINGS = ("_frozen_logistic", "_frozen_ridge", "n/a")
"""Methods of the table: the linear probe of the frozen encoder, and lines that say why there is none."""
SEED = "one training seed per variant: a gain holds the noise of training too"


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """One metric of one variant; ``<metric>_over_<reference>`` is its gain over the full model."""

    variant: str
    group: str
    overrides: str
    task: str = "n/a"
    method: str = "n/a"
    protocol: str = "n/a"
    metric: str = "n/a"
    value: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    n_test: int = 0
    epochs: str = "n/a"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What the evaluation of one variant left: its metrics, epochs, size note, and subject scores.

    Parameters
    ----------
    rows : list of dict
        Lines of its ``metrics.tsv``.
    scores : mapping
        (task, method, protocol) -> subjects (S,), truth (S,) and scores (Q, S), NaN where a repeat tests nobody.
    """

    rows: list[dict[str, str]]
    epochs: str
    note: str
    scores: Mapping[tuple[str, str, str], tuple[list[str], Floats, Floats]]


def read_evaluated(metrics: Path) -> Evaluated:
    """Read the evaluation of a variant and what lies beside its weights."""
    checkpoint = metrics.with_name(WEIGHTS)
    with open(metrics, encoding="utf-8", newline="") as handle:
        rows = [
            row
            for row in csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
            if row["fold"] == "all"  # no rows of single sites
        ]
    return Evaluated(
        rows=rows,
        epochs=pretraining_epochs(checkpoint),
        note=checkpoint_note(checkpoint),
        scores=subject_scores(metrics.with_name("predictions.parquet")),
    )


def subject_scores(path: Path) -> dict[tuple[str, str, str], tuple[list[str], Floats, Floats]]:
    """Return the subject scores of every task, method and protocol of a table of predictions."""
    import pyarrow.parquet as pq

    columns = ["task", "method", "protocol", "repeat", "subject", "truth", "score"]
    table = pq.read_table(path, columns=columns).to_pandas()
    found = {}
    for key, part in table.groupby(["task", "method", "protocol"], sort=True):
        scores = part.pivot_table(index="repeat", columns="subject", values="score", aggfunc="mean")
        truth = part.groupby("subject")["truth"].first().reindex(scores.columns)
        task, method, protocol = map(str, key)
        subjects = [str(subject) for subject in scores.columns]
        found[task, method, protocol] = (subjects, truth.to_numpy(np.float64), scores.to_numpy(np.float64))
    return found


def ablation_rows(
    config: AblationConfig, found: Mapping[str, Evaluated], groups: Mapping[str, str], bootstrap: int, seed: int
) -> list[AblationRow]:
    """Return the rows of all variants in the order configured, the FC reference first.

    Parameters
    ----------
    found : mapping
        Name of a variant -> its evaluation.
    groups : mapping
        Subject -> family (or the subject itself).

    Raises
    ------
    ConfigError
        A variant was not evaluated.
    """
    missing = sorted({variant.name for variant in config.variants} - set(found))
    if missing:
        raise ConfigError("ablation is incomplete", missing[0], "it was not evaluated", "run `snakemake ablation`")
    full = found[config.reference]
    first = {line["task"]: line["method"] for line in reversed(full.rows) if line["model"] == BASELINE}
    rows = [
        _row(line, AblationRow(variant=BASELINE, group=BASELINE, overrides="none"), "no model")
        for line in full.rows
        if line["model"] == BASELINE and line["method"] == first[line["task"]]
    ]
    for variant in config.variants:
        one = found[variant.name]
        base = AblationRow(
            variant=variant.name, group=variant.group or "n/a", overrides=overrides(variant), epochs=one.epochs
        )
        ours = [line for line in one.rows if line["model"] != BASELINE and line["method"].endswith(ENDINGS)]
        rows += [_row(line, base, one.note) for line in ours if "_over_" not in line["metric"]]
        if variant.name == config.reference:
            continue
        for task, method, protocol, kind in dict.fromkeys(
            (line["task"], line["method"], line["protocol"], line["kind"]) for line in ours
        ):
            key = (task, method, protocol)
            if kind in KINDS and key in one.scores and key in full.scores:
                placed = replace(base, task=task, method=method, protocol=protocol)
                rows.append(gain(placed, kind, one, full, key, config.reference, groups, bootstrap, seed))
    return rows


def gain(
    base: AblationRow,
    kind: str,
    ours: Evaluated,
    full: Evaluated,
    key: tuple[str, str, str],
    reference: str,
    groups: Mapping[str, str],
    bootstrap: int,
    seed: int,
) -> AblationRow:
    """Return the row of the gain over the full model in the leading metric, by a paired bootstrap over families."""
    name, metric = next(iter(metrics_of(kind).items()))
    base = replace(base, metric=f"{name}_over_{reference}", note="; ".join(p for p in (SEED, ours.note) if p))
    (mine, truth, scores), (theirs, _, other) = ours.scores[key], full.scores[key]
    place = {subject: i for i, subject in enumerate(theirs)}
    both = [i for i, subject in enumerate(mine) if subject in place]
    matched = other[:, [place[mine[i]] for i in both]]
    truth, scores = truth[both], scores[:, both]
    kept = np.isfinite(scores).all(axis=0) & np.isfinite(matched).all(axis=0)
    if scores.shape[0] != matched.shape[0] or kept.sum() < 2:
        return replace(
            base, n_test=int(kept.sum()), note=f"n/a: the repeats do not test the same subjects; {base.note}"
        )
    truth, pair = truth[kept], (scores[:, kept], matched[:, kept])
    names = [mine[both[i]] for i in np.flatnonzero(kept)]
    weights = bootstrap_weights([groups.get(n, n) for n in names], bootstrap, seed, base.task, "ablation")
    value = float(np.subtract(*(over_repeats(metric, truth, one)[0] for one in pair)))
    drawn = np.subtract(*(over_repeats(metric, truth, one, weights) for one in pair))
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn.size >= MIN_DEFINED * bootstrap else (NAN, NAN)
    said = base.note if np.isfinite(value) else f"n/a: the tested subjects are all of one class; {base.note}"
    return replace(base, value=value, ci_low=float(low), ci_high=float(high), n_test=int(kept.sum()), note=said)


def overrides(variant: VariantConfig) -> str:
    """Return the settings of a variant in one cell."""
    return "; ".join(f"{key}: {value}" for key, value in variant.set.items()) or "none"


def _row(line: Mapping[str, str], base: AblationRow, note: str) -> AblationRow:
    notes: Sequence[str] = [part for part in (line["note"], note) if part and part != "n/a"]
    return replace(
        base,
        task=line["task"],
        method=line["method"],
        protocol=line["protocol"],
        metric=line["metric"],
        value=_number(line["value"]),
        ci_low=_number(line["ci_low"]),
        ci_high=_number(line["ci_high"]),
        n_test=int(line["n_test"]),
        note="; ".join(dict.fromkeys("; ".join(notes).split("; "))),
    )


def _number(text: str) -> float:
    return NAN if text == "n/a" else float(text)
