"""The sections of the results: what stands in them, what is absent, and where the marks stand."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from boldmill.evaluate.rows import write_rows
from boldmill.evaluate.table import Row
from boldmill.paths import Layout
from boldmill.report.compare import (
    BASELINE,
    CONSTANT,
    PRETRAINED,
    comparisons,
    forest,
    kind_of,
    nice_ticks,
    number,
)
from boldmill.report.experiments import ablation, explained, few_shot_curves, lead_of, transfers
from boldmill.report.results import Results, read_results
from boldmill.report.sections import present, render_results

SPEC = importlib.util.spec_from_file_location("report_tables", Path(__file__).with_name("tables.py"))
assert SPEC is not None and SPEC.loader is not None
tables: ModuleType = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)


def texts(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return rows as they are read from a file: a missing cell is n/a."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: str(row.get(name, "n/a")) for name in names} for row in rows]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(tmp_path_factory.mktemp("results"))
    tables.write_all(root)
    return root


@pytest.fixture(scope="module")
def html(results: Path) -> str:
    return str(render_results(read_results(Layout.at(results)), ["brainmass"], 72))


class Checked(HTMLParser):
    """Every element closes the one that is open; SVG marks are counted."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.marks: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.marks += [tag] if tag in ("circle", "rect", "path") else []
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.marks += [tag] if tag in ("circle", "rect", "path") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_everything_there_has_a_section_and_the_page_is_sound(html: str, results: Path) -> None:
    page = Checked(html)
    assert not page.open
    assert page.ids == ["evaluation", "few-shot", "zero-shot", "ablation", "interpretation"]
    assert [anchor for anchor, _ in present(read_results(Layout.at(results)))] == page.ids[1:]
    assert html.count("Small models trained for minutes (brainmass)") == 5


def test_what_was_not_made_has_no_section() -> None:
    page = Checked(str(render_results(Results(), [], 72)))
    assert page.ids == ["evaluation"] and present(Results()) == []


def test_every_file_is_named_as_read(results: Path) -> None:
    read = {path.name for path in read_results(Layout.at(results)).read}
    pictures = {f"asd_{m}_{w}.png" for m in ("rollout", "integrated_gradients") for w in ("bars", "connectogram")}
    assert (
        read == {"metrics.tsv", "few_shot.tsv", "zero_shot.tsv", "table.tsv", "regions.tsv", "summary.tsv"} | pictures
    )


def test_one_comparison_per_task_and_protocol() -> None:
    found = comparisons(texts(tables.metrics()))
    assert [(one.task, one.protocol) for one in found] == [
        (task, protocol) for task in ("asd", "sex") for protocol in ("split", "leave-one-site-out")
    ]
    split, sites = found[:2]
    assert split.metrics == ["auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity", "f1"]
    assert len(split.methods) == 9 and not split.refused and not split.sites
    assert [method.kind for method in split.methods] == [BASELINE] * 5 + [CONSTANT] + [PRETRAINED] * 2 + [BASELINE]
    reference, second = split.methods[:2]
    assert reference.gain is None and second.gain is not None and second.gain["metric"] == "auc_over_fc_logistic"
    assert [name for name, _ in sites.refused] == ["brainmass_frozen_logistic", "brainmass_finetuned"]
    assert "were in pre-training" in sites.refused[0][1] and len(sites.methods) == 7
    assert [float(method.lead["value"]) for method in sites.methods][:2] == [0.66, 0.64]  # pooled, not of a site
    assert [line["site"] for line in sites.sites] == ["SITE00", "SITE01", "SITE02"]
    assert sites.sites[0]["fc_logistic"] == "n/a" and sites.sites[1]["n test"] == "21"


def test_a_table_without_the_newer_columns_is_read_too() -> None:
    old = [{k: v for k, v in row.items() if k not in ("fold", "p_kind", "p_t", "epochs")} for row in
           texts(tables.metrics(sites=0)) if row["protocol"] == "split"]  # fmt: skip
    (first, _) = comparisons(old)
    kinds = {method.name: method.kind for method in first.methods}
    assert kinds["brainmass_frozen_logistic"] == PRETRAINED and kinds["brainmass_random_logistic"] == BASELINE
    assert render_results(Results(metrics={"brainmass": old}), [], 72)


def test_kinds() -> None:
    assert kind_of({"method": "brainmass_random_logistic", "model": "brainmass", "epochs": "n/a"}) == BASELINE
    assert kind_of({"method": "fmri_mae_random_logistic", "model": "fmri_mae", "epochs": "50"}) == BASELINE
    assert kind_of({"method": "zeroshot_f_random_vector_fmri", "model": "fm_app", "epochs": "50"}) == PRETRAINED
    assert kind_of({"method": "x", "model": "baseline", "epochs": "50"}) == PRETRAINED
    assert kind_of({"method": "mean", "model": "baseline"}) == CONSTANT


def test_regression_and_tasks_that_could_not_be_evaluated() -> None:
    base = {
        "task": "age",
        "kind": "regression",
        "method": "fc_ridge",
        "model": "baseline",
        "protocol": "cv",
        "note": "",
    }
    rows = [{**base, "metric": "pearson_r", "value": 0.3}, {**base, "metric": "mae", "value": 4.0}]
    rows.append({**base, "task": "few", "method": "n/a", "metric": "n/a", "note": "n/a: task is too small"})
    good, none = comparisons(texts(rows))
    assert good.metrics == ["pearson_r", "mae"] and good.forest.chance is not None
    assert none.refused == [("n/a", "n/a: task is too small")] and not none.methods and not none.forest.marks
    assert "task is too small" in str(render_results(Results(metrics={"brainmass": texts(rows)}), [], 72))


def test_marks_stand_where_their_numbers_are() -> None:
    rows = texts([{"value": 0.6, "ci_low": 0.5, "ci_high": 0.8}, {"value": 0.7}, {"value": "n/a"}])
    drawn = forest("auc", [("a", BASELINE, rows[0]), ("b", PRETRAINED, rows[1]), ("c", CONSTANT, rows[2])])
    first, second, third = drawn.marks
    scale = (first.end - first.start) / 0.3  # type: ignore[operator]
    assert first.place == pytest.approx(first.start + 0.1 * scale)  # type: ignore[operator]
    assert second.place == pytest.approx(first.start + 0.2 * scale)  # type: ignore[operator]
    assert second.start is None and third.place is None
    assert drawn.chance == pytest.approx(first.start)
    at = {text: place for place, text in drawn.ticks}
    assert at["0.6"] == pytest.approx(first.place)
    everything = [first.start, first.end, first.place, drawn.chance, *at.values()]
    assert all(0 <= place <= 1 for place in everything if place is not None)


@pytest.mark.parametrize(("low", "high"), [(0.41, 0.93), (-0.2, 0.35), (0.499, 0.501), (3.0, 250.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6 and low <= ticks[0] and ticks[-1] <= high
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_kinds_have_shapes_of_their_own(html: str) -> None:
    marks = Checked(html.partition('id="few-shot"')[0]).marks
    # two tasks; the pre-trained are in one protocol of two
    assert (marks.count("circle"), marks.count("rect"), marks.count("path")) == (4, 24, 4)


def test_few_shot_curves_are_drawn_with_chance_and_all_labels() -> None:
    rows = texts(tables.few_shot())
    drawn = few_shot_curves(rows, 72)
    assert list(drawn) == ["asd"] and drawn["asd"].startswith(b"\x89PNG")
    assert few_shot_curves(rows, 72) == drawn
    fewer = [row for row in rows if row["k"] != "all"]
    assert few_shot_curves(fewer, 72)["asd"] != drawn["asd"]
    assert few_shot_curves(texts([{"task": "x", "metric": "n/a", "method": "n/a", "k": "n/a"}]), 72) == {}


def test_zero_shot_panels() -> None:
    (panel,) = transfers(texts(tables.zero_shot()))
    assert panel.title == "asd-to-new-sites: asd to asd2" and panel.heads == ["method", "auc", "p", "n test"]
    assert [mark.kind for mark in panel.forest.marks] == [CONSTANT, PRETRAINED, BASELINE]
    assert panel.lines[1] == ["brainmass_frozen_centroid", "0.580 [0.470, 0.690]", "0.08", "98"]
    assert panel.notes == ["our reading"]


def test_ablation_panels_join_a_variant_with_its_gain() -> None:
    (panel,) = ablation(texts(tables.ablation()))
    assert [mark.label for mark in panel.forest.marks] == [
        "fc_logistic",
        "loss: full",
        "loss: lra-only",
        "loss: mrm-only",
    ]
    assert [mark.kind for mark in panel.forest.marks] == [BASELINE] + [PRETRAINED] * 3
    assert panel.lines[2] == [
        "loss: lra-only",
        "weight: 0",
        "0.600 [0.510, 0.680]",
        "-0.030 [-0.080, 0.020]",
        "98",
        "50",
    ]
    assert panel.lines[1][3] == "n/a"


def test_maps_show_their_top_and_refused_tasks_their_reason(results: Path, html: str) -> None:
    found = read_results(Layout.at(results)).explained["brainmass"]
    views, refused = explained(found)
    assert [(view.map, len(view.top), len(view.pictures)) for view in views] == [
        ("rollout", 10, 2), ("integrated_gradients", 10, 2),
    ]  # fmt: skip
    assert [row["rank"] for row in views[0].top] == [str(i) for i in range(1, 11)]
    assert all(uri.startswith("data:image/webp;base64,") for view in views for _, uri in view.pictures)
    assert refused == [("age", "n/a: it is a task of kind regression")]
    words = re.sub(r"\s+", " ", html)
    assert "AUC of the probe on them: 0.61. Completeness: attributions miss 1.2 % of the log-odds" in words
    assert "overlap of the top 10 (Jaccard) 0.31, by chance 0.05" in words
    assert words.count("<td>n/a</td><td>n/a</td>") >= 20  # networks and sides of codes


def test_hostile_cells_stay_text() -> None:
    hostile = "<script>alert(1)</script>"
    rows = texts(tables.metrics(tasks=(hostile,)))
    few = [{**row, "task": hostile, "note": hostile} for row in texts(tables.few_shot())]
    zero = [{**row, "source": hostile} for row in texts(tables.zero_shot())]
    cut = [{**row, "overrides": hostile} for row in texts(tables.ablation())]
    made = Results(
        metrics={"brainmass": rows}, few_shot={"brainmass": few}, zero_shot={"brainmass": zero}, ablation=cut
    )
    text = str(render_results(made, [hostile], 72))
    assert "<script" not in text and text.count("&lt;script&gt;") > 10


def test_small_helpers() -> None:
    assert np.isnan([number("n/a"), number(""), number(None)]).all() and number("0.5") == 0.5
    assert lead_of(texts([{"metric": "accuracy"}, {"metric": "auc"}])) == "auc"
    assert lead_of(texts([{"metric": "accuracy"}])) == "accuracy" and lead_of([]) == ""


def test_a_page_of_seventeen_sites_stays_small() -> None:
    rows = texts(tables.metrics(sites=17))
    assert len(str(render_results(Results(metrics={"brainmass": rows}), [], 72))) < 300_000


def test_a_quotation_mark_in_a_name_swallows_no_row(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    row = Row(task="t", kind="classification", method="m", model="baseline", protocol="split", metric="auc")
    write_rows(layout.metrics("brainmass"), Row, [replace(row, fold='"A'), replace(row, fold='B"'), row])
    assert [row["fold"] for row in read_results(layout).metrics["brainmass"]] == ['"A', 'B"', "all"]
