"""Small tables of results as the stages write them, for the tests of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boldmill.atomic import write_text
from boldmill.paths import Layout

METRICS = ("task", "kind", "method", "model", "protocol", "metric", "value", "ci_low", "ci_high", "p_permutation",
           "n_test", "n_train", "text_encoder", "note", "fold", "p_kind", "p_t", "epochs")  # fmt: skip
METHODS = [
    ("fc_logistic", "baseline", 0.66, "n/a"),
    ("fc_svm_rbf", "baseline", 0.64, "n/a"),
    ("tangent_logistic", "baseline", 0.67, "n/a"),
    ("brainnetcnn", "baseline", 0.61, "n/a"),
    ("covariates", "baseline", 0.55, "n/a"),
    ("majority", "baseline", 0.5, "n/a"),
    ("brainmass_frozen_logistic", "brainmass", 0.63, "50"),
    ("brainmass_finetuned", "brainmass", 0.62, "50"),
    ("brainmass_random_logistic", "brainmass", 0.6, "n/a"),
]


def write_table(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] | None = None) -> Path:
    """Write rows of equal keys as TSV."""
    names = columns or tuple(rows[0])
    lines = ["\t".join(names), *("\t".join(str(row.get(name, "n/a")) for name in names) for row in rows)]
    return write_text(path, "\n".join(lines) + "\n")


def metrics(tasks: tuple[str, ...] = ("asd", "sex"), sites: int = 3) -> list[dict[str, Any]]:
    """Return the rows of an evaluation: two protocols, sites in one of them, a difference, and a refusal."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for protocol in ("split", "leave-one-site-out"):
            for name, model, value, epochs in METHODS:
                base = {"task": task, "kind": "classification", "method": name, "model": model, "protocol": protocol,
                        "text_encoder": "n/a", "n_test": 98, "n_train": 560, "fold": "all", "epochs": epochs,
                        "note": f"note of {name}", "p_kind": "refit", "p_permutation": 0.004}  # fmt: skip
                if protocol == "leave-one-site-out" and epochs != "n/a":
                    why = "not run: 592 of 690 tested subjects (or their families) were in pre-training"
                    rows.append({**base, "metric": "n/a", "note": why, "p_permutation": "n/a", "p_kind": "n/a"})
                    continue
                for metric, shift in (("auc", 0.0), ("balanced_accuracy", -0.04), ("accuracy", -0.03),
                                      ("sensitivity", -0.1), ("specificity", 0.02), ("f1", -0.05)):  # fmt: skip
                    low, high = value + shift - 0.09, value + shift + 0.08
                    rows.append({**base, "metric": metric, "value": value + shift, "ci_low": low, "ci_high": high})
                if name != "fc_logistic":
                    gain = {"metric": "auc_over_fc_logistic", "value": value - 0.66, "ci_low": value - 0.72,
                            "ci_high": value - 0.6, "p_t": 0.31, "note": "paired bootstrap"}  # fmt: skip
                    rows.append({**base, **gain})
                if protocol == "leave-one-site-out":
                    rows += [
                        {**base, "metric": "auc", "fold": f"SITE{i:02d}", "n_test": 20 + i,
                         "value": value + 0.01 * i if i else "n/a"}
                        for i in range(sites)
                    ]  # fmt: skip
    return rows


def few_shot() -> list[dict[str, Any]]:
    """Return curves of two methods, chance and all labels."""
    rows: list[dict[str, Any]] = [{"task": "asd", "method": "chance", "k": "0", "metric": "auc", "value": 0.5}]
    for name, slope in (("brainmass_frozen_logistic", 0.02), ("fc_logistic", 0.025)):
        for i, k in enumerate(["1", "2", "4", "8", "16", "32", "all"]):
            value = 0.51 + slope * i
            rows.append({"task": "asd", "method": name, "k": k, "metric": "auc", "value": value,
                         "ci_low": value - 0.05, "ci_high": value + 0.05, "draws": 50, "n_test": 98,
                         "note": "50 draws"})  # fmt: skip
    return rows


def zero_shot() -> list[dict[str, Any]]:
    """Return one transfer by two methods."""
    base = {"task": "asd-to-new-sites", "source": "asd", "target": "asd2", "metric": "auc", "n_test": 98}
    return [
        {**base, "method": "chance", "value": 0.5},
        {**base, "method": "brainmass_frozen_centroid", "value": 0.58, "ci_low": 0.47, "ci_high": 0.69,
         "p_permutation": 0.08, "note": "our reading"},
        {**base, "method": "fc_centroid", "value": 0.6, "ci_low": 0.49, "ci_high": 0.71, "p_permutation": 0.05},
    ]  # fmt: skip


def ablation() -> list[dict[str, Any]]:
    """Return a baseline and three variants with their gains."""
    base = {"task": "asd", "protocol": "heldout", "metric": "auc", "n_test": 98}
    rows = [{**base, "variant": "baseline", "group": "baseline", "overrides": "none", "method": "fc_logistic",
             "value": 0.66, "ci_low": 0.57, "ci_high": 0.74}]  # fmt: skip
    for name, value in (("full", 0.63), ("lra-only", 0.6), ("mrm-only", 0.61)):
        own = {**base, "variant": name, "group": "loss", "overrides": "none" if name == "full" else "weight: 0",
               "method": "brainmass_frozen_logistic", "epochs": 50}  # fmt: skip
        rows.append({**own, "value": value, "ci_low": value - 0.09, "ci_high": value + 0.08, "note": "one seed"})
        if name != "full":
            gain = {"value": value - 0.63, "ci_low": value - 0.68, "ci_high": value - 0.58}
            rows.append({**own, "metric": "auc_over_full", **gain})
    return rows


def interpretation(folder: Path, names: list[str], pictures: dict[str, Path] | None = None) -> None:
    """Write the tables of an interpretation of one task, a refusal, and its pictures (grey squares by default)."""
    from boldmill.spaces.parcels import parse_name

    regions, summary = [], []
    for kind in ("rollout", "integrated_gradients"):
        for rank, name in enumerate(names, start=1):
            parcel = parse_name(rank, name)
            regions.append({"task": "asd", "map": kind, "rank": rank, "region": parcel.name,
                            "network": parcel.network or "n/a", "hemisphere": parcel.hemisphere or "n/a",
                            "value": 1 / rank, "positive": 0.3, "negative": -0.2, "fold_mean": 1 / rank,
                            "fold_sd": 0.05, "top_share": 0.8, "note": "n"})  # fmt: skip
        drawn = [f"asd_{kind}_{what}.png" for what in ("bars", "connectogram")]
        for name in drawn:
            given = (pictures or {}).get(name)
            picture = Image.open(given) if given else Image.fromarray(np.full((40, 60, 3), 150, np.uint8))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / name)
        probe = kind == "integrated_gradients"
        summary.append({"task": "asd", "map": kind, "subjects": 98, "auc": 0.61 if probe else "n/a", "folds": 5,
                        "top": 10, "spearman": 0.42, "jaccard": 0.31, "jaccard_chance": 0.05,
                        "shuffled": 0.37 if probe else "n/a", "gap": 0.012 if probe else "n/a",
                        "positive": "1", "pictures": " ".join(drawn),
                        "note": "each subject by the probe of its test fold"})  # fmt: skip
    summary.append({"task": "age", "map": "n/a", "pictures": "n/a", "note": "n/a: it is a task of kind regression"})
    write_table(folder / "regions.tsv", regions)
    write_table(folder / "summary.tsv", summary, tuple(summary[0]))


def write_all(results: Path) -> None:
    """Write every table below a results folder."""
    layout = Layout.at(results)
    table = layout.metrics("brainmass")
    write_table(table, metrics(), METRICS)
    few = few_shot()
    write_table(table.with_name("few_shot.tsv"), few, tuple(few[1]))
    zero = zero_shot()
    write_table(table.with_name("zero_shot.tsv"), zero, tuple(zero[1]))
    ablated = ablation()
    write_table(layout.results / "ablation" / "table.tsv", ablated, (*ablated[1],))
    interpretation(layout.interpretation("brainmass").parent, [f"{2000 + i}" for i in range(111)])
