"""The cohort command on generated manifests: rows, page, table, and what is left out with its reason."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from boldmill.atomic import canonical_json, read_json, write_json
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.index.read import ScanRow
from boldmill.quality.cohort import collect, to_rows
from boldmill.quality.config import InclusionConfig
from boldmill.stages import Settings, stage_json

from . import manifests

INCLUSION = {"max_mean_fd": 0.6, "min_minutes": 5.0, "min_tsnr": 20.0}
SUBJECTS = 30


def settings(inclusion: dict[str, Any] | None = None) -> str:
    return stage_json(parse({"project": "Tom & <Jerry>", "inclusion": inclusion or {}}), "cohort")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with its page; not to be changed."""
    folder = tmp_path_factory.mktemp("cohort") / "results"
    words = manifests.write_cohort(folder, SUBJECTS)
    assert main([*words, "--config-json", settings(INCLUSION)]) == 0
    return folder


def table(results: Path) -> dict[str, dict[str, str]]:
    with open(results / "reports" / "cohort.tsv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["scan_id"] for row in rows] == sorted(row["scan_id"] for row in rows)
    return {row["scan_id"]: row for row in rows}


def embedded(results: Path) -> dict[str, Any]:
    page = (results / "reports" / "cohort.html").read_text()
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert text
    return dict(json.loads(text[1]))


def test_every_scan_is_a_row_with_its_reason(results: Path) -> None:
    rows = table(results)
    assert len(rows) == SUBJECTS + 1
    assert {row["inclusion"] for row in rows.values()} == {"included", "excluded", "quarantined"}
    moved = rows["toy_sub-000_task-rest_run-1"]
    assert moved["inclusion"] == "excluded"
    expected = "mean FD 1.4 mm is above 0.6 mm (max_mean_fd); kept time 2.3 min is below 5 min (min_minutes)"
    assert moved["reasons"] == expected
    assert "mean_fd: z +" in moved["outliers"] and "large motion" in moved["flags"]
    assert "tSNR 9 is below 20" in rows["toy_sub-001_task-rest_run-1"]["reasons"]
    stages = {name: row["reasons"].split(":")[0] for name, row in rows.items() if row["inclusion"] == "quarantined"}
    assert stages == {
        "toy_sub-002_task-rest_run-1": "preprocess",
        "toy_sub-003_task-rest_run-1": "parcellate",
        "toy_sub-004_task-other": "ingest",
    }
    kept = rows["toy_sub-005_task-rest_run-1"]
    assert (kept["inclusion"], kept["reasons"], kept["site"]) == ("included", "n/a", "east")
    figures = read_json(results / "preprocess" / "toy" / "sub-005.json")
    assert float(kept["tsnr"]) == pytest.approx(figures["scans"][kept["scan_id"]]["qc"]["tsnr"], rel=1e-5)
    assert float(kept["t1w_cnr"]) == pytest.approx(figures["anat"]["qc"]["cnr"], rel=1e-5)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_page_carries_all_it_needs(results: Path) -> None:
    page = (results / "reports" / "cohort.html").read_text()
    assert "No inclusion rule is set" not in page
    links = Links()
    links.feed(page)
    assert links.found and all(link.startswith(("#", "data:image/png;base64,")) for link in links.found)
    assert "http" not in page.replace("http-equiv", "")
    assert "Tom &amp; &lt;Jerry&gt;" in page and "<Jerry>" not in page
    assert "cannot read BOLD run: the file ends early" in page and "no RepetitionTime in any sidecar" in page


def test_the_page_and_the_table_say_the_same(results: Path) -> None:
    data, rows = embedded(results), table(results)
    assert len(data["scans"]) == SUBJECTS - 2
    names = [measure["name"] for measure in data["measures"]]
    assert {"mean_fd", "censored_share", "minutes_kept", "tsnr", "t1w_cnr", "t1w_template_mask_dice"} <= set(names)
    for scan in data["scans"]:
        row = rows[scan["id"]]
        assert scan["in"] is (row["inclusion"] == "included")
        assert scan["page"] == f"toy/sub-{row['subject']}.html"
        assert [f"{value:.6g}" for value in scan["q"]] == [row[name] for name in names]
        assert {names[int(column)] for column in scan["z"]} == set(re.findall(r"(\w+): z", row["outliers"]))


def rows_of(results: Path, text: str) -> dict[str, dict[str, str]]:
    """The table as the command makes it, without drawing the page."""
    given = Settings(text)
    found = collect(
        [(path, read_json(path)) for path in sorted((results / "preprocess" / "toy").glob("*.json"))],
        [],
        [],
        [],
        lambda dataset: given.section("inclusion", InclusionConfig, dataset),
    )
    head, rows = to_rows(found)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_without_rules_every_scan_is_included(tmp_path: Path) -> None:
    manifests.write_cohort(tmp_path, 6)
    rows = rows_of(tmp_path, settings())
    assert {row["inclusion"] for row in rows.values()} == {"included", "quarantined"}


def test_a_rule_of_one_data_set_is_its_own(tmp_path: Path) -> None:
    manifests.write_cohort(tmp_path, 6)
    text = json.loads(settings(INCLUSION))
    assert rows_of(tmp_path, canonical_json(text))["toy_sub-001_task-rest_run-1"]["inclusion"] == "excluded"
    text["overrides"] = {"toy": {"inclusion": {"min_tsnr": 5.0}}}
    assert rows_of(tmp_path, canonical_json(text))["toy_sub-001_task-rest_run-1"]["inclusion"] == "included"


def test_an_unknown_figure_keeps_the_scan_and_is_named(tmp_path: Path) -> None:
    manifests.write_cohort(tmp_path, 6)
    path = tmp_path / "preprocess" / "toy" / "sub-005.json"
    manifest = read_json(path)
    manifest["scans"]["toy_sub-005_task-rest_run-1"]["qc"]["mean_fd"] = None
    write_json(path, manifest)
    row = rows_of(tmp_path, settings(INCLUSION))["toy_sub-005_task-rest_run-1"]
    assert (row["inclusion"], row["mean_fd"], row["site"]) == ("included", "n/a", "toy")
    assert "max_mean_fd not checked: mean_fd is unknown" in row["flags"]


def test_a_t1w_alone_has_no_run_to_judge(tmp_path: Path) -> None:
    manifests.write_cohort(tmp_path, 6)
    path = tmp_path / "preprocess" / "toy" / "sub-005.json"
    manifest = read_json(path)
    manifest["scans"] = {"toy_sub-005_T1w": {"status": "ok", "kind": "anat", "files": {}, "qc": {}, "flags": []}}
    write_json(path, manifest)
    row = rows_of(tmp_path, settings(INCLUSION))["toy_sub-005_T1w"]
    assert (row["inclusion"], row["flags"]) == ("included", "n/a")
    assert float(row["t1w_cnr"]) > 0


def test_an_empty_cohort_has_a_page(tmp_path: Path) -> None:
    words = manifests.write_cohort(tmp_path, 0)
    assert main([*words, "--config-json", settings(INCLUSION)]) == 0
    page = (tmp_path / "reports" / "cohort.html").read_text()
    assert "No scan has quality figures" in page and "No inclusion rule is set" in page


def test_manifests_that_are_not_named_are_those_of_the_index(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boldmill.index.read as reader

    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    shutil.rmtree(copy / "reports")
    blank = dict.fromkeys(ScanRow._fields, "")
    rows = [
        ScanRow(**{**blank, "scan_id": name, "dataset": "toy", "subject": name[8:11], "status": "ok", "bucket": 0})
        for name in sorted(table(results))
        if "task-rest" in name
    ]
    monkeypatch.setattr(reader, "read_index", lambda folder: reader.Index(folder, rows))
    words = ["cohort", "--results", str(copy), "--out", str(copy / "reports" / "cohort.html")]
    assert main([*words, "--config-json", settings(INCLUSION)]) == 0
    for name in ("cohort.html", "cohort.tsv"):  # the same bytes, too
        assert (copy / "reports" / name).read_bytes() == (results / "reports" / name).read_bytes()
    record = read_json(copy / "reports" / "cohort.html.prov.json")
    assert len(record["inputs"]) == SUBJECTS + 3


def test_tables_of_parcel_series_are_in_the_cohort_without_a_page() -> None:
    good = {"status": "ok", "kind": "table", "tr": None, "n_volumes": 200, "qc": {"n_parcels": 111}, "flags": ["odd"]}
    bad = {"status": "quarantined", "kind": "table", "stage": "parcellate", "reason": "no", "fix": "do"}
    scans = {"abide_sub-A1": good, "abide_sub-B2_ses-x": bad}
    people = {"subjects": {"abide/A1": {"site": "NYU"}}}
    rules = InclusionConfig(max_mean_fd=0.2)
    cohort = collect([], [(Path("parcellate/bucket-000.json"), {"scans": scans})], [people], [], lambda _: rules)
    (scan,) = cohort.scans
    assert (scan.site, scan.kind, scan.tr, scan.n_volumes, scan.page) == ("NYU", "table", None, 200, "")
    assert scan.included and scan.flags == ["odd"] and scan.unchecked
    (row,) = cohort.quarantine
    assert (row.subject, row.stage, row.reason) == ("B2", "parcellate", "no")
    assert len(to_rows(cohort)[1]) == 2
