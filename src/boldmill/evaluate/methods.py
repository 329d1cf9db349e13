"""Every baseline and probe that is configured, as methods of one task, in the order of the table.

Axes: N scans of the cohort, E edges, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate import baselines
from boldmill.evaluate.bymask import in_fold
from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.covariates import SITE, covariate_method, kept_covariates
from boldmill.evaluate.harmonise import Harmonised
from boldmill.evaluate.knn import knn_probe
from boldmill.evaluate.method import Method
from boldmill.evaluate.packed import CODES, Facts, facts, pack
from boldmill.evaluate.tangent import shrunk_edges, tangent_vectors

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot

Floats = NDArray[np.float64]
Kind = Literal["classification", "regression"]

RANDOM = "_random"
"""End of the name of a set of features from random weights."""
ENCODERS = ("brainmass",)
"""Models whose encoder can be trained inside a fold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInputs:
    """What methods are made of.

    Parameters
    ----------
    cohort : Cohort
        All scans; features of a method are rows of it.
    task, column : str
        Name of the task, and its column, which is never a covariate.
    kind : {"classification", "regression"}
        A task of several classes is one classification for each.
    config : EvaluateConfig
        Which methods, and their settings.
    seed : int
        Base seed.
    model : str
        Name of the model under test.
    features : mapping
        Name of a set of frozen features -> (features (N, D), note, pretrained).
    network : module, optional
        The loaded model; with it and ``snapshot``, BrainMass is trained inside the folds where asked for.
    snapshot : Snapshot, optional
        Where series and FC are read.
    device : str
        Torch device of networks.
    note : str
        Said of the checkpoint.
    """

    cohort: Cohort
    task: str
    column: str
    kind: Kind
    config: EvaluateConfig
    seed: int
    model: str
    features: Mapping[str, tuple[Floats, str, bool]]
    network: Any = None
    snapshot: Snapshot | None = None
    device: str = "cpu"
    note: str = ""


def methods_of(inputs: MethodInputs) -> list[Method]:
    """Return the methods of a task in table order; the first is the reference of all comparisons.

    Methods that :func:`missing` names are left out.
    """
    if inputs.config.harmonise != "none" and inputs.column.lower() in SITE:
        # ComBat looks up the site of a tested scan, which here is the answer.
        plain = replace(inputs, config=inputs.config.model_copy(update={"harmonise": "none"}))
        why = "not harmonised: the target is the site"
        return [replace(one, note="; ".join(part for part in (one.note, why) if part)) for one in methods_of(plain)]
    config, asked = inputs.config, inputs.config.baselines
    about = _facts(inputs)
    found = _on_edges(inputs, about)
    if "tangent" in asked and inputs.snapshot is not None:
        found.append(_tangent(inputs))

    @cache  # methods that read the same FC share one array
    def edges(estimator: str) -> Floats:
        assert inputs.snapshot is not None
        read: Any = inputs.snapshot.fc_by
        return pack(about, np.asarray(read(estimator, inputs.cohort.scan_ids), dtype=np.float64))

    if "brainnetcnn" in asked and inputs.snapshot is not None:
        found.append(_brainnetcnn(inputs, about, edges("pearson")))
    if "transformer" in asked and _trainable(inputs):
        found.append(_encoder(inputs, about, edges(inputs.network.arch.estimator), fresh=True))
    if "covariates" in asked and (covariates := covariate_method(inputs.cohort, inputs.column, inputs.kind)):
        found.append(covariates)
    if "constant" in asked:
        found.append(baselines.constant_method(len(inputs.cohort), inputs.kind))
    for name, (features, note, pretrained) in inputs.features.items():
        if name.endswith(RANDOM) and "random" not in asked:
            continue
        found += _probes(name, features, note, pretrained, inputs, about)
    if "finetune" in config.probes and _trainable(inputs):
        found.append(_encoder(inputs, about, edges(inputs.network.arch.estimator), fresh=False))
    unique = {method.name: method for method in reversed(found)}
    return [method for method in found if unique[method.name] is method]


def missing(inputs: MethodInputs) -> dict[str, str]:
    """Return configured methods that this task or model cannot have, with the reason."""
    config, found = inputs.config, {}
    if "covariates" in config.baselines and covariate_method(inputs.cohort, inputs.column, inputs.kind) is None:
        found["covariates"] = "no age, sex, site or mean FD that is not the target itself"
    for name, asked in (("transformer", config.baselines), ("finetune", config.probes)):
        if name in asked and not _trainable(inputs):
            found[name] = f"the encoder of {inputs.model} cannot be trained in a fold, only that of {ENCODERS[0]}"
    return found


def _trainable(inputs: MethodInputs) -> bool:
    return inputs.model in ENCODERS and inputs.network is not None and inputs.snapshot is not None


def _facts(inputs: MethodInputs) -> Facts:
    cohort = inputs.cohort
    sites = [f"{dataset}/{site}" for dataset, site in zip(cohort.datasets, cohort.sites, strict=True)]
    return facts(cohort.groups, sites, kept_covariates(cohort, inputs.column)[0])


def _on_edges(inputs: MethodInputs, about: Facts) -> list[Method]:
    """Return the methods on functional connectivity that take its edges as they are."""
    edges, kind, config = inputs.cohort.fc, inputs.kind, inputs.config
    # An edge without data is no number that a site could have shifted: ComBat must see that it is missing.
    fill = config.harmonise == "none"
    found = []
    if "fc_linear_selected" in config.baselines:
        found.append(baselines.selected_method(edges, kind, config, fill=fill))
    if "fc_svm" in config.baselines:
        found.append(baselines.svm_method(edges, kind))
    if "fc_ridge" in config.baselines or ("fc_logistic" in config.baselines and kind == "regression"):
        found.append(baselines.ridge_method(edges, kind, fill=fill))
    if "fc_logistic" in config.baselines and kind == "classification":
        found.append(baselines.logistic_method(edges, config))
    if config.harmonise == "none" or not found:
        return found
    packed = pack(about, edges)
    return [_harmonised(method, packed, inputs, about) for method in found]


def _probes(
    name: str, features: Floats, note: str, pretrained: bool, inputs: MethodInputs, about: Facts
) -> list[Method]:
    """Return the probes of one set of frozen features."""
    kind, config = inputs.kind, inputs.config
    base = Method(name=name, fit=baselines.linear_probe(kind), features=features, pretrained=pretrained, note=note)
    found = []
    if "logistic" in config.probes:
        linear = "logistic" if kind == "classification" else "ridge"
        grid = baselines.linear_grid(kind, config)
        found.append(replace(base, name=f"{name}_{linear}", permute="refit", grid=grid))
    if "svm_rbf" in config.probes:
        found.append(replace(base, name=f"{name}_svm_rbf", fit=baselines.svm_probe(kind)))
    if "knn" in config.probes:
        found.append(replace(base, name=f"{name}_knn", fit=knn_probe(kind, config.knn), permute="refit"))
    if config.harmonise == "none" and "mlp" not in config.probes:
        return found
    packed = pack(about, features)
    if config.harmonise == "combat":
        found = [_harmonised(method, packed, inputs, about) for method in found]
    if "mlp" in config.probes:
        mlp = _mlp(replace(base, name=f"{name}_mlp", features=packed), features.shape[1], inputs, about)
        found.append(mlp if config.harmonise == "none" else _harmonised(mlp, packed, inputs, about, inner_packed=True))
    return found


def _harmonised(
    method: Method, packed: Floats, inputs: MethodInputs, about: Facts, *, inner_packed: bool = False
) -> Method:
    """Return the method with ComBat inside each training fold; ``inner_packed`` where its fit takes packed features."""
    wrap = partial(Harmonised, covariates=about.covariates.shape[1], packed=inner_packed)
    return replace(
        method,
        fit=wrap(fit=method.fit),
        grid=tuple(wrap(fit=fit) for fit in method.grid),
        features=packed,
        note="; ".join(part for part in (method.note, _combat_words(inputs)) if part),
    )


def _combat_words(inputs: MethodInputs) -> str:
    names = kept_covariates(inputs.cohort, inputs.column)[1]
    kept = f", keeping {' and '.join(names)}" if names else ""
    return f"ComBat by site in the training fold{kept}; sites unseen in training stay unharmonised"


def _tangent(inputs: MethodInputs) -> Method:
    assert inputs.snapshot is not None
    kind = inputs.kind
    return Method(
        name="tangent_logistic" if kind == "classification" else "tangent_ridge",
        fit=in_fold(tangent_vectors, baselines.linear_probe(kind)),
        features=shrunk_edges(inputs.snapshot, inputs.cohort.scan_ids),
        grid=tuple(in_fold(tangent_vectors, fit) for fit in baselines.linear_grid(kind, inputs.config)),
        note="Ledoit-Wolf FC in the tangent space of the training fold's geometric mean, all edges, not harmonised",
    )


def _mlp(base: Method, width: int, inputs: MethodInputs, about: Facts) -> Method:
    from boldmill.evaluate.deep import NetworkFit, one_group
    from boldmill.evaluate.networks import Perceptron, scaled

    config = inputs.config.mlp
    fit = NetworkFit(
        build=partial(Perceptron, width, config.hidden, config.dropout),
        groups=one_group,
        prepare=scaled,
        kind=inputs.kind,
        budget=config,
        covariates=about.covariates.shape[1],
        key=(base.name, inputs.task, inputs.seed),
        device=inputs.device,
    )
    return replace(base, fit=fit)


def _brainnetcnn(inputs: MethodInputs, about: Facts, packed: Floats) -> Method:
    from boldmill.evaluate.deep import NetworkFit, one_group
    from boldmill.evaluate.networks import BrainNetCnn, as_they_are
    from boldmill.represent.fc import n_parcels

    config, width = inputs.config.brainnetcnn, packed.shape[1] - CODES - about.covariates.shape[1]
    fit = NetworkFit(
        build=partial(BrainNetCnn, n_parcels(width), config.width, config.dropout),
        groups=one_group,
        prepare=as_they_are,
        kind=inputs.kind,
        budget=config,
        covariates=about.covariates.shape[1],
        key=("brainnetcnn", inputs.task, inputs.seed),
        device=inputs.device,
    )
    note = f"Pearson FC, {config.width} channels, not harmonised; {_budget_words(config.epochs)}"
    return Method(name="brainnetcnn", fit=fit, features=packed, note=note)


def _encoder(inputs: MethodInputs, about: Facts, packed: Floats, *, fresh: bool) -> Method:
    """Return the encoder trained inside each fold, from random weights (``fresh``) or from the checkpoint.

    ``packed`` holds the FC edges by the estimator of its pre-training.
    """
    from boldmill.evaluate.deep import NetworkFit
    from boldmill.evaluate.finetune import classifier, layered
    from boldmill.evaluate.networks import as_they_are

    config = inputs.config.transformer if fresh else inputs.config.finetune
    name = "transformer" if fresh else f"{inputs.model}_finetune"
    fit = NetworkFit(
        build=classifier(inputs.network, fresh=fresh, head=config.head, kind=inputs.kind, dropout=config.dropout),
        groups=layered,
        prepare=as_they_are,
        kind=inputs.kind,
        budget=config,
        covariates=about.covariates.shape[1],
        key=(name, inputs.task, inputs.seed),
        device=inputs.device,
    )
    words = "the model's architecture from random weights" if fresh else "all weights, from the checkpoint in each fold"
    note = f"{words}, {config.head} head, not harmonised; {_budget_words(config.epochs)}"
    if not fresh and inputs.note:
        note += f"; {inputs.note}"
    return Method(name=name, fit=fit, features=packed, pretrained=not fresh, note=note)


def _budget_words(epochs: int) -> str:
    return f"up to {epochs} passes, stopped by scans carved out of the training fold"
