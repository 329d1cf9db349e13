"""FM-APP under the protocol ``split``: fitted on the training split, scored once on held-out subjects.

Axes: S subjects, R parcels, K phenotypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.metrics import LOWER_IS_BETTER, REGRESSION, over_repeats
from boldmill.evaluate.null import VARIED, varied
from boldmill.evaluate.protocol import undefined
from boldmill.evaluate.stats import block_permutations, bootstrap_weights, interval, p_value
from boldmill.evaluate.table import Predictions, Row
from boldmill.evaluate.zeroshot import Rung, ladder, ridge_baseline

if TYPE_CHECKING:
    from boldmill.models.fm_app.data import Scans
    from boldmill.models.fm_app.predictor import Modality, Predictor

Floats = NDArray[np.float64]

MIN_SUBJECTS = 3
"""Fewest held-out subjects with a value for a correlation to say anything at all."""


def subject_inputs(scans: Scans, modality: Modality) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.int64]]:
    """Return subjects, inputs and the subject of each input: one FC per scan, or one morphometry per subject."""
    if modality == "fmri":
        names = tuple(sorted(set(scans.subjects)))
        place = {name: i for i, name in enumerate(names)}
        member = np.array([place[subject] for subject in scans.subjects], dtype=np.int64)
        return names, scans.fc, member
    names = tuple(sorted(scans.morphometry))
    stacked = np.stack([scans.morphometry[name] for name in names]) if names else np.zeros((0, 1, 1), np.float32)
    return names, stacked, np.arange(len(names))


def average(values: Floats, member: NDArray[np.int64], n: int) -> Floats:
    """Average rows (..., N) over the inputs of each subject (..., S) that have a value; NaN where none has."""
    share = np.zeros((values.shape[-1], n))
    share[np.arange(len(member)), member] = 1.0
    known = np.isfinite(values)
    if known.all():
        return np.asarray(values @ (share / share.sum(axis=0)))
    count = known.astype(np.float64) @ share
    total = np.where(known, values, 0.0) @ share
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def flat_inputs(scans: Scans, modality: Modality) -> tuple[tuple[str, ...], Floats]:
    """Return one feature row per subject for the ridge baselines: mean Fisher z of its scans, or its morphometry."""
    from boldmill.represent.fc import fisher_z

    names, values, member = subject_inputs(scans, modality)
    if not names:
        return names, np.zeros((0, 1))
    if modality == "fmri":
        upper = np.triu_indices(values.shape[1], k=1)
        return names, average(fisher_z(values[:, upper[0], upper[1]]).T, member, len(names)).T
    return names, values.reshape(len(names), -1).astype(np.float64)


def split_rows(
    model: Predictor,
    learn: Scans,
    test: Scans,
    groups: Mapping[str, str],
    places: Mapping[str, str],
    config: EvaluateConfig,
    seed: int,
    device: str,
    predictions: Predictions,
    note: str,
) -> list[Row]:
    """Return rows of every phenotype, seen and unseen, from fMRI and from T1w.

    Parameters
    ----------
    model : Predictor
        Trained on ``learn``.
    learn, test : Scans
        Training split and held-out split.
    groups : mapping
        Subject -> family.
    places : mapping
        Subject -> data set and site.
    """
    import torch

    from boldmill.models.fm_app.phenotypes import numbers

    rows: list[Row] = []
    modalities: Sequence[Modality] = ("fmri", "t1w") if model.has_t1w else ("fmri",)
    sentinels = model.facts["sentinels"]
    for modality in modalities:
        names, values, member = subject_inputs(test, modality)
        train_names, train_x = flat_inputs(learn, modality)
        test_x = flat_inputs(test, modality)[1]
        label = "fc_ridge" if modality == "fmri" else "morphometry_ridge"
        fitted = "fitted on the same training subjects"
        if modality == "fmri" and not (np.isfinite(train_x).all() and np.isfinite(test_x).all()):
            fitted += "; undefined edges count as no correlation"
        inputs = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        scored = model.predict_seen(inputs, modality).T if names else np.zeros((len(model.bank.ids), 0))
        for column in (*model.bank.ids, *sorted(model.facts["unseen"])):
            truth = numbers(test.table.loc[list(names)], [column], sentinels)[:, 0]
            learned = numbers(learn.table.loc[list(train_names)], [column], sentinels)[:, 0]
            rungs: list[Rung] = []
            if names:
                if np.isfinite(learned).sum() >= MIN_SUBJECTS:
                    ridge = ridge_baseline(train_x, learned, test_x, scale=modality == "t1w")
                    name = label if column in model.bank.ids else f"zeroshot_h_supervised_{label}"
                    rungs.append(Rung(name=name, scores=ridge[None], note=fitted))
                if column in model.bank.ids:
                    own = average(scored[model.bank.ids.index(column)], member, len(names))
                    rungs.append(Rung(name=f"fm_app_{modality}", scores=own[None], note=f"from {modality}"))
                else:
                    text = model.facts["unseen"][column][1]
                    related = relation(learn, model.bank.ids, column, sentinels)
                    rungs += [
                        replace_rung(rung, average(rung.scores, member, len(names)), f"from {modality}; {related}")
                        for rung in ladder(model, inputs, modality, column, text, seed)
                    ]
            kept, at = [groups.get(name, name) for name in names], [places[name] for name in names]
            for rung in rungs:
                plain = rung.name.endswith(label)  # ridge on training labels, for a seen phenotype or as the ceiling
                base = Row(
                    task=column,
                    kind="regression",
                    method=rung.name if rung.name.startswith("fm_app") else f"{rung.name}_{modality}",
                    model="baseline" if plain else "fm_app",
                    protocol="split",
                    metric="",
                    n_train=int(np.isfinite(learned).sum()),
                    text_encoder="n/a" if plain else model.bank.fingerprint,
                    note="; ".join(part for part in (rung.note, note) if part),
                )
                only_r = column not in model.bank.ids
                rows += measured(base, truth, rung.scores, kept, at, names, config, seed, only_r=only_r)
                if len(rung.scores) == 1:
                    for i in np.flatnonzero(np.isfinite(truth)):
                        predictions.add_one(
                            task=column, method=base.method, protocol="split", repeat=0, fold="split",
                            subject=names[int(i)], scan_id="", truth=float(truth[i]), score=float(rung.scores[0, i]),
                            label="",
                        )  # fmt: skip
    return rows


def replace_rung(rung: Rung, scores: Floats, note: str) -> Rung:
    """Return a rung with subject scores and a longer note."""
    return Rung(name=rung.name, scores=scores, note=f"{rung.note}; {note}")


def measured(
    base: Row,
    truth: Floats,
    scores: Floats,
    groups: Sequence[str],
    places: Sequence[str],
    names: Sequence[str],
    config: EvaluateConfig,
    seed: int,
    *,
    only_r: bool,
) -> list[Row]:
    """Return the regression rows of fixed predictions (C, S); the p-value permutes the labels of held-out subjects.

    They move within a site (of a data set) where they vary within sites: what the site tells is part of the null.

    ``only_r``: scores of an unseen phenotype have no unit, so only signed correlation is given.
    """
    known = np.isfinite(truth)
    base = replace(base, n_test=int(known.sum()))
    metrics = {"pearson_r": REGRESSION["pearson_r"]} if only_r else REGRESSION
    if known.sum() < MIN_SUBJECTS:
        why = f"n/a: {int(known.sum())} held-out subjects with a value"
        return [replace(base, metric=name, note=f"{why}; {base.note}") for name in metrics]
    y, predicted = truth[known], scores[:, known]
    kept = [int(i) for i in np.flatnonzero(known)]
    subject, group = [names[i] for i in kept], [groups[i] for i in kept]
    weights = bootstrap_weights(group, config.bootstrap, seed, base.task, "split")
    layers, who = [places[i] for i in kept], "labels permuted within site"
    if len(set(layers)) < 2 or varied(y, layers) < VARIED:
        layers, who = [""] * len(kept), "labels permuted among held-out subjects"
    base = replace(base, note="; ".join(part for part in (base.note, who) if part))
    moves = block_permutations(subject, group, layers, config.permutations, seed, base.task)
    rows = []
    for name, metric in metrics.items():
        found = interval(metric, y, predicted, weights)
        null = np.array([over_repeats(metric, y[move], predicted)[0] for move in moves])
        p = p_value(found.value, null, lower_is_better=name in LOWER_IS_BETTER)
        reason = undefined(found.value, found.low, y, "regression")
        rows.append(
            replace(base, metric=name, value=found.value, ci_low=found.low, ci_high=found.high, p_permutation=p,
                    p_kind="fixed", note="; ".join(part for part in (reason, base.note) if part))
        )  # fmt: skip
    return rows


def relation(learn: Scans, seen: Sequence[str], column: str, sentinels: Mapping[str, Any]) -> str:
    """Return the largest absolute correlation, over training subjects, of an unseen label with a seen one.

    A near-duplicate of a seen phenotype says little about zero-shot prediction, so the figure stands in every row.
    """
    from boldmill.models.fm_app.phenotypes import numbers

    asked = numbers(learn.table, [column], sentinels)[:, 0]
    best, value = "", -1.0
    for name in seen:
        other = numbers(learn.table, [name], sentinels)[:, 0]
        both = np.isfinite(asked) & np.isfinite(other)
        if both.sum() >= MIN_SUBJECTS and asked[both].std() > 0 and other[both].std() > 0:
            r = abs(float(np.corrcoef(asked[both], other[both])[0, 1]))
            if r > value:
                best, value = name, r
    return f"largest |label r| with a seen phenotype {value:.2f} ({best})" if best else "no seen phenotype to relate to"
