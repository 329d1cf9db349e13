"""Write the sections of the results (`results.html`) from the tables that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boldmill.report.compare import BASELINE, CONSTANT, PRETRAINED, comparisons, words_of
from boldmill.report.experiments import ablation, explained, few_shot_curves, shown, transfers
from boldmill.report.results import Results

NUMBERS = ("value", "ci_low", "ci_high", "p_permutation", "n_test")
COLUMNS = ("method", "metric", *NUMBERS, "text_encoder")
"""Columns of the table of all metrics."""
CLASSES = {PRETRAINED: "pretrained", BASELINE: "plain", CONSTANT: "constant"}
PAINT = {PRETRAINED: ("#0072B2", "#0072B2"), BASELINE: ("#8a5a00", "#e69f00"), CONSTANT: ("#777777", "none")}
"""Line and fill of a mark; shapes differ too."""
CAPTIONS = {
    "cortex": "inflated fsaverage5 surface, four views",
    "flat": "flat map, left hemisphere left; lines: borders of regions",
    "bars": "top regions by code",
    "connectogram": "strongest edges; width: size",
}
NAMES = {"few-shot": "Few-shot", "zero-shot": "Zero-shot", "ablation": "Ablation", "interpretation": "Interpretation"}


def render_results(results: Results, small: Sequence[str], dpi: int) -> Any:
    """Return the sections as safe HTML."""
    from markupsafe import Markup

    from boldmill.report.templating import load

    text = load("boldmill.report", "results.html").render(
        small=list(small),
        comparisons={model: comparisons(rows) for model, rows in results.metrics.items()},
        few_shot={model: few_shot_curves(rows, dpi) for model, rows in results.few_shot.items()},
        few_shot_notes={
            model: [note for note in dict.fromkeys(row["note"] for row in rows) if note != "n/a"]
            for model, rows in results.few_shot.items()
        },
        zero_shot={model: transfers(rows) for model, rows in results.zero_shot.items()},
        ablation=ablation(results.ablation),
        explained={model: explained(found) for model, found in results.explained.items()},
        evaluation_columns=COLUMNS,
        numbers=NUMBERS,
        classes=CLASSES,
        paint=PAINT,
        captions=CAPTIONS,
        words_of=words_of,
        shown=shown,
    )
    return Markup(text)  # the template escapes everything it is given


def present(results: Results) -> list[tuple[str, str]]:
    """Return anchor and name of the optional sections that are there, in the order of the page."""
    there = {
        "few-shot": results.few_shot, "zero-shot": results.zero_shot, "ablation": results.ablation,
        "interpretation": results.explained,
    }  # fmt: skip
    return [(anchor, NAMES[anchor]) for anchor, found in there.items() if found]
