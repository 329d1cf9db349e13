"""Repeated stratified group k-fold: a group (family, else subject) lies in exactly one fold of a repeat.

Axes: N samples (scans), K folds, Q repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.rng import generator


def strata(truth: NDArray[Any], kind: str, bins: int = 5) -> NDArray[np.int64]:
    """Return the stratum of each sample: its class, or its quantile bin of a continuous target.

    Parameters
    ----------
    truth : (N,) array
        Labels or values.
    kind : {"classification", "multiclass", "regression"}
        Kind of task.
    bins : int
        Quantile bins of a continuous target; fewer where there are fewer than ``5 * bins`` samples.
    """
    if kind != "regression":
        return np.unique(truth, return_inverse=True)[1].astype(np.int64)
    bins = max(1, min(bins, truth.size // 5))
    edges = np.quantile(truth, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, truth, side="right").astype(np.int64)


def dealt(truth: NDArray[Any], kind: str, groups: Sequence[str], wanted: int) -> tuple[NDArray[np.int64], int]:
    """Return the strata (N,) to deal to folds, and how many folds they allow (at most ``wanted``, 0 of nobody).

    Bins of a continuous target only balance the folds: where one has too few groups, none are made.
    """
    if not len(truth):
        return np.zeros(0, dtype=np.int64), 0
    stratum = strata(truth, kind)
    number = possible_folds(stratum, groups, wanted)
    if kind == "regression" and number < wanted:
        stratum = np.zeros_like(stratum)
        number = possible_folds(stratum, groups, wanted)
    return stratum, number


def possible_folds(stratum: NDArray[np.int64], groups: Sequence[str], wanted: int) -> int:
    """Return the number of folds for which every stratum is in enough groups, one each (at most ``wanted``)."""
    return min(wanted, *_groups_with(stratum, groups).values())


def repeated_group_folds(
    stratum: NDArray[np.int64], groups: Sequence[str], folds: int, repeats: int, *key: str | int
) -> NDArray[np.int64]:
    """Assign every sample to one test fold per repeat, stratified over groups.

    Groups of one stratum (the rarest of their members) are shuffled and dealt to the folds like cards, every stratum
    from the first fold on: balanced classes stay balanced in every training set (an imbalance opposite to that of the
    test fold would push the pooled AUC of an uninformative method below one half), at the price of fold sizes that
    differ by up to one group per stratum. The result depends on the names of the groups and on the key, never on the
    order of the samples.

    Parameters
    ----------
    stratum : (N,) int array
        Stratum of each sample (:func:`strata`).
    groups : sequence of N str
        Group of each sample; no group is ever split.
    folds, repeats : int
        K and Q.
    *key : str or int
        Key of :func:`boldmill.rng.generator` (seed, task name, ...).

    Returns
    -------
    (Q, N) int array
        Test fold of each sample in each repeat.

    Raises
    ------
    ConfigError
        Fewer groups than folds.
    """
    per_group = _group_strata(stratum, groups)
    names = sorted(per_group)
    if len(names) < folds or folds < 2:
        raise ConfigError(
            "cannot make folds",
            f"{folds} folds",
            f"there are {len(names)} groups",
            "lower evaluate.folds or add subjects",
        )
    position = {name: i for i, name in enumerate(names)}
    member = np.array([position[group] for group in groups])
    out = np.empty((repeats, len(member)), dtype=np.int64)
    for repeat in range(repeats):
        rng = generator("folds", repeat, *key)
        fold_of = np.empty(len(names), dtype=np.int64)
        for value in sorted(set(per_group.values())):
            hand = np.array([i for i, name in enumerate(names) if per_group[name] == value])
            fold_of[rng.permutation(hand)] = np.arange(len(hand)) % folds
        out[repeat] = fold_of[member]
    return out


def _group_strata(stratum: NDArray[np.int64], groups: Sequence[str]) -> dict[str, int]:
    """Return the stratum of each group: of those of its members the one that fewest groups hold (ties: the lowest).

    A majority would hide a class that lives in mixed families only, and its few pure families would set the folds.
    """
    rank = {value: (number, value) for value, number in _groups_with(stratum, groups).items()}
    out: dict[str, int] = {}
    for group, value in zip(groups, stratum.tolist(), strict=True):
        out[group] = min(out.get(group, value), value, key=rank.__getitem__)
    return out


def _groups_with(stratum: NDArray[np.int64], groups: Sequence[str]) -> dict[int, int]:
    """Return how many groups hold each stratum."""
    pairs = set(zip(stratum.tolist(), groups, strict=True))
    return dict(Counter(value for value, _ in pairs))
