"""The report on a small results tree written by the project's own writers, through the command itself."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boldmill.atomic import canonical_json, write_json, write_text
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.evaluate.rows import write_rows
from boldmill.evaluate.table import Row
from boldmill.index.quarantine import QuarantineRow, read_quarantine, to_tsv
from boldmill.index.read import ScanRow
from boldmill.index.write import write_index
from boldmill.paths import Layout
from boldmill.preprocess.confounds import Table, write
from boldmill.preprocess.images import write_volume
from boldmill.report.page import by_site, network_of, read_motion
from boldmill.report.templating import number
from boldmill.stages import stage_json

HOSTILE = """<script>alert('x')</script>"><img src=http://evil.example/x onerror="alert(1)">"""
OK, ANAT, SURFACE = "ds_sub-01_task-rest", "ds_sub-02_T1w", "ds_sub-03_task-rest"
REFUSED, SPOILED = "ds_sub-04_task-rest", "ds_sub-05_task-rest"
T = 30


class Page(HTMLParser):
    """Tables as rows of cell texts, addresses of every element, number of scripts, pictures by their alt text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.pictures: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "img":
            self.pictures.append(dict(attrs)["alt"] or "")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.tables[-1][-1][-1] += data

    def table(self, first: str) -> list[dict[str, str]]:
        """Return the rows of the table whose first heading is ``first``."""
        head, *rows = next(table for table in self.tables if table[0][0] == first)
        return [dict(zip(head, row, strict=True)) for row in rows]


def row(scan_id: str, **values: Any) -> ScanRow:
    subject = scan_id.split("_")[1].removeprefix("sub-")
    plain = {
        "scan_id": scan_id, "dataset": "ds", "subject": subject, "session": "", "task": "rest", "run": "",
        "kind": "volume", "status": "ok", "bucket": 0, "site": "A", "licence": "CC0", "tr": 2.0, "n_volumes": T,
        "has_t1w": True, "ticket": "t.json", "ticket_sha256": "", "reason": "", "fix": "", "flags": "",
    }  # fmt: skip
    return ScanRow(**{**plain, **values})


def subject(layout: Layout, label: str, anat: dict[str, Any], scans: dict[str, Any]) -> None:
    value = {"schema": 1, "dataset": "ds", "subject": label, "space": "MNI", "anat": anat, "scans": scans}
    write_json(layout.subject("ds", label), value)


def manifests(layout: Layout) -> None:
    """Subject and bucket manifests, with the files of one complete scan."""
    results, rng = layout.results, np.random.default_rng(0)
    ball = (np.linalg.norm(np.indices((12, 14, 12)).T - [6, 7, 6], axis=-1).T < 4).astype(np.float32)
    for name in ("t1w", "mask", "gm", "boldref"):
        write_volume(results / "derivatives" / f"{name}.nii.gz", ball, np.diag([3.0, 3, 3, 1]), template=True)
    columns = {"framewise_displacement": np.r_[np.nan, rng.random(T - 1)], "dvars": np.r_[np.nan, rng.random(T - 1)]}
    write(Table(columns, {}), results / "derivatives/c.tsv", results / "derivatives/c.json")
    anat = {
        "status": "ok", "qc": {}, "flags": ["mask_volume: 900 ml"],
        "files": {"t1w_template": "derivatives/t1w.nii.gz", "brain_mask": "derivatives/mask.nii.gz",
                  "gm": "derivatives/gm.nii.gz"},
    }  # fmt: skip
    good = {"status": "ok", "tr": 2.0, "n_volumes": T, "files": {}, "flags": []}
    files = {"boldref": "derivatives/boldref.nii.gz", "confounds": "derivatives/c.tsv"}
    qc = {"mean_fd": 0.123456, "tsnr": 55.0, "residual_dof": 12, "coverage": 0.98}
    absent = {"status": "absent", "files": {}, "qc": {}, "flags": []}
    refused = {"status": "quarantined", "stage": "preprocess", "reason": f"bad {HOSTILE}", "fix": "exclude it"}
    full = {**good, "kind": "volume", "qc": qc, "files": files, "flags": [HOSTILE]}
    subject(layout, "01", anat, {OK: full})
    subject(layout, "02", {**anat, "flags": []}, {ANAT: {"status": "ok", "kind": "anat", "files": {}, "flags": []}})
    subject(layout, "03", absent, {SURFACE: {**good, "kind": "surface", "qc": {"mean_fd": None, "tsnr": 40.0}}})
    subject(layout, "05", absent, {SPOILED: {**refused, "kind": "volume", "files": {}, "qc": {}, "flags": []}})
    names = ["7Networks_LH_Vis_1", "7Networks_LH_Default_1", "7Networks_RH_Vis_1"]
    lines = ["\t".join(f"{v:.6g}" for v in values) for values in rng.standard_normal((T, 2))]
    text = "\n".join(["\t".join(names), *(f"{line}\tn/a" for line in lines)])
    write_text(results / "parcellate/ts.tsv", text + "\n")
    atlas = {"status": "ok", "files": {"timeseries": "parcellate/ts.tsv", "coverage": None}}
    scans = {OK: {"status": "ok", "atlases": {"Toy": atlas}}}
    write_json(layout.parcellated(0), {"configured": ["Toy"], "scans": scans})
    still, movie = layout.flat_scan("ds", OK, ".png"), layout.flat_scan("ds", OK, ".webp")
    still.parent.mkdir(parents=True)
    Image.new("L", (8, 8), 120).save(still)
    Image.new("L", (8, 8), 120).save(movie)
    shown = {name: path.relative_to(results).as_posix() for name, path in (("still", still), ("movie", movie))}
    write_json(layout.flat(0), {"scans": {OK: {"status": "ok", "files": shown}}})


def tree(results: Path, size: str = "tiny") -> Path:
    """Write the results folder of five scans and one trained model; return it."""
    layout = Layout.at(results)
    rows = [
        row(OK, site=HOSTILE), row(ANAT, kind="anat", tr=None, n_volumes=None), row(SURFACE, kind="surface", site=""),
        row(REFUSED, status="quarantined", tr=None, n_volumes=None, reason="no RepetitionTime"),
        row(SPOILED, n_volumes=50),
    ]  # fmt: skip
    write_index(layout.index, rows, "digest", 1)
    early = QuarantineRow(REFUSED, "ds", "04", "ingest", "no RepetitionTime", "add it", "sub-04/func/x.nii.gz")
    write_text(layout.index_quarantine, to_tsv([early], QuarantineRow._fields))
    manifests(layout)
    for path in (layout.template, layout.atlas("Toy"), layout.operator("flat")):
        write_json(path, {"source": HOSTILE, "space": "MNI"})
    write_json(layout.snapshot("latest"), {"id": "abc123", "shards": []})
    weights = layout.checkpoint("brainmass")
    write_json(weights.with_name("config.json"), {"size": size})
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation_loss": 1.5}]
    write_text(weights.with_name("history.jsonl"), "".join(canonical_json(line) + "\n" for line in history))
    plain = Row(task="group", kind="classification", method="m", model="brainmass", protocol="heldout", metric="auc")
    table = [replace(plain, value=0.876543, note=HOSTILE)]
    write_rows(layout.metrics("brainmass"), Row, table)
    return results


def snapshots(layout: Layout, frozen: str) -> None:
    """Write a frozen snapshot beside the latest one; they differ in one bucket of two."""
    for name, changed in (("latest", "0"), (frozen, "1")):
        hashes = {"bucket-000": "0", "bucket-001": changed}
        found = [{"table": "scans", "bucket": bucket, "sha256": sha256} for bucket, sha256 in hashes.items()]
        write_json(layout.snapshot(name), {"id": "abc123", "name": name, "shards": found})


def report(results: Path, **config: Any) -> str:
    settings = stage_json(parse({"project": f"study {HOSTILE}", "report": config}), "report")
    out = Layout.at(results).report
    words = ["report", "--results", str(results), "--snapshot", str(Layout.at(results).snapshot("latest"))]
    assert main([*words, "--out", str(out), "--config-json", settings]) == 0
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    results = tree(tmp_path_factory.mktemp("report") / "results")
    return results, report(results)


@pytest.fixture(scope="module")
def page(made: tuple[Path, str]) -> Page:
    return Page(made[1])


def test_cohort_counts_scans_by_site(page: Page) -> None:
    rows = {line["site"]: line for line in page.table("data set")}
    assert set(rows) == {HOSTILE, "A", "n/a"}
    assert (rows["A"]["subjects"], rows["A"]["scans"], rows["A"]["refused at ingest"]) == ("2", "2", "1")
    assert rows["A"]["kinds"] == "1 anat, 1 volume"
    assert (rows["A"]["TR (s)"], rows["A"]["volumes"], rows["n/a"]["volumes"]) == ("2", "50", str(T))


def test_quarantine_of_every_stage_is_shown_and_written(made: tuple[Path, str], page: Page) -> None:
    shown = page.table("scan_id")
    assert [(line["scan_id"], line["stage"]) for line in shown] == [(REFUSED, "ingest"), (SPOILED, "preprocess")]
    assert shown[1]["reason"] == f"bad {HOSTILE}"
    written = read_quarantine(made[0] / "quarantine.tsv")
    assert [line._asdict() for line in written] == shown


def test_every_scan_is_listed_and_missing_numbers_are_na(page: Page) -> None:
    rows = {line["scan"]: line for line in page.table("scan")}
    assert set(rows) == {OK, ANAT, SURFACE}  # quarantined scans are in the other table
    assert (rows[OK]["mean_fd"], rows[OK]["tsnr"], rows[OK]["volumes"]) == ("0.1235", "55", str(T))
    assert rows[OK]["warnings"] == f"mask_volume: 900 ml; {HOSTILE}"
    assert rows[SURFACE]["mean_fd"] == rows[SURFACE]["residual_dof"] == rows[SURFACE]["site"] == "n/a"
    assert rows[ANAT]["TR (s)"] == rows[ANAT]["volumes"] == "n/a"


def test_pictures_of_a_scan(page: Page) -> None:
    of = [alt.removeprefix(f"{OK}: ") for alt in page.pictures if alt.startswith(OK)]
    both = ["T1w in template space", "mean BOLD in template space"]
    assert of == [*both, "motion and carpet (parcel series)", "FC", "flat map", "flat-map movie"]
    assert [alt for alt in page.pictures if alt.startswith(ANAT)] == [f"{ANAT}: T1w in template space"]
    assert not [alt for alt in page.pictures if alt.startswith(SURFACE)]
    assert {"quality numbers by site", "training curves of brainmass"} <= set(page.pictures)


def test_the_page_refers_to_nothing_outside(page: Page) -> None:
    assert page.addresses
    assert all(address.startswith(("data:image/png;", "data:image/webp;", "#")) for address in page.addresses)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)


def test_hostile_names_stay_text(made: tuple[Path, str], page: Page) -> None:
    assert page.tags.count("script") == 1  # the one that sorts tables
    assert page.handlers == []
    assert "<script>alert" not in made[1]
    assert "<img src=http" not in made[1]
    assert page.text.count("evil.example") >= 6  # and nothing of it was dropped


def test_evaluation_table(page: Page) -> None:
    (line,) = page.table("method")
    assert (line["method"], line["kind"], line["AUC"]) == ("m", "pre-trained", "0.877")
    assert page.text.count(f"m: {HOSTILE}") == 1


def test_a_small_model_is_called_small_and_a_full_one_is_not(page: Page, tmp_path: Path) -> None:
    assert page.text.count("Small models trained for minutes (brainmass)") == 2
    assert "not that science was done" in page.text
    full = report(tree(tmp_path / "results", size="B"))
    assert "Small models" not in full and "not that science" not in full


def test_limits_of_pictures_and_movies(made: tuple[Path, str]) -> None:
    page = Page(report(made[0], max_scans=1, max_movies=0))
    assert "2 more scans have no pictures here" in page.text
    assert f"{OK}: flat map" in page.pictures and f"{OK}: flat-map movie" not in page.pictures
    assert not [alt for alt in page.pictures if alt.startswith(ANAT)]
    assert len(page.table("scan")) == 3


def test_the_same_results_give_the_same_bytes_and_the_record_names_what_was_read(made: tuple[Path, str]) -> None:
    results, first = made
    assert report(results) == first
    record = json.loads(Path(f"{Layout.at(results).report}.prov.json").read_text())
    read = {Path(item["path"]).name for item in record["inputs"]}
    assert {"runs.parquet", "quarantine.tsv", "manifest.json", "sub-01.json", "sub-05.json", "bucket-000.json"} <= read
    assert {"history.jsonl", "config.json", "metrics.tsv", "template.json", "atlas.json", "flat.json"} <= read
    assert {"ts.tsv", "c.tsv", "boldref.nii.gz", "t1w.nii.gz", f"{OK}.png", f"{OK}.webp"} <= read
    assert {Path(item["path"]).name for item in record["outputs"]} == {"index.html", "quarantine.tsv"}


def test_a_run_without_models_scans_or_faults_has_a_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    layout = Layout.at(results)
    write_index(layout.index, [], "digest", 1)
    for path in (layout.template, layout.atlas("Toy"), layout.operator("flat"), layout.snapshot("latest")):
        write_json(path, {})
    page = Page(report(results))
    assert "No scan was quarantined." in page.text
    assert page.pictures == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "n/a"), ("", "n/a"), (float("nan"), "n/a"), (1 / 3, "0.3333"), (120, "120"), ("n/a", "n/a"), ("x", "x")],
)
def test_numbers(value: Any, shown: str) -> None:
    assert number(value) == shown


def test_small_helpers(tmp_path: Path) -> None:
    assert network_of("7Networks_RH_SomMot_2") == "RH_SomMot"
    assert network_of("Left-Thalamus") == "Left-Thalamus"
    assert by_site([]) == {}
    (tmp_path / "c.tsv").write_text("a\n1\n2\n")
    fd, dvars = read_motion(tmp_path / "c.tsv", 2)
    assert np.isnan(fd).all() and np.isnan(dvars).all()
    assert np.isnan(read_motion(None, 3)[0]).tolist() == [True] * 3


def test_tables_alone_are_reported_without_template_or_flat_maps(tmp_path: Path) -> None:
    from boldmill.report.collect import collect

    layout = Layout.at(tmp_path)
    shown, refused = "ds_sub-01", "ds_sub-02"
    plain = {"kind": "table", "tr": None, "has_t1w": False, "task": ""}
    write_index(layout.index, [row(shown, **plain), row(refused, **plain)], "digest", 1)
    write_text(tmp_path / "parcellate/ts.tsv", "a\tb\n" + "1\t2\n3\t5\n" * 5)
    atlas = {"status": "ok", "files": {"timeseries": "parcellate/ts.tsv"}}
    good = {"status": "ok", "kind": "table", "atlases": {"Own": atlas}, "qc": {"n_parcels": 2}, "flags": ["f"]}
    bad = {"status": "quarantined", "kind": "table", "stage": "parcellate", "reason": "no", "fix": "do"}
    write_json(layout.parcellated(0), {"configured": [], "scans": {shown: good, refused: bad}})
    snapshot = layout.snapshot("latest")
    write_json(snapshot, {})
    lists = [tmp_path / f"shards/{name}/bucket-000.quarantine.json" for name in ("pfc/Own", "scans")]
    for path in lists:
        write_json(path, {"scans": {}})
    found = collect(tmp_path, snapshot)
    assert set(lists) <= set(found.read)  # the record of the page names all it was made from
    (scan,) = found.scans
    assert (scan.kind, scan.flags, scan.timeseries) == ("table", ["f"], tmp_path / "parcellate/ts.tsv")
    assert found.sources == {} and found.quarantine[0]["scan_id"] == refused


def test_the_page_says_when_shards_are_newer_than_the_snapshot(tmp_path: Path) -> None:
    from boldmill.report.collect import collect

    results = tree(tmp_path)
    layout = Layout.at(results)
    snapshots(layout, "first")
    found = collect(results, layout.snapshot("first"))
    assert found.newer.startswith("snapshot first: 1 of 2 buckets changed since; set snapshot.name to a new name")
    assert layout.snapshot("latest") in found.read
    assert collect(results, layout.snapshot("latest")).newer == ""
    assert found.newer not in report(results)  # the page of the latest snapshot
    settings = stage_json(parse({}), "report")
    words = ["report", "--results", str(results), "--snapshot", str(layout.snapshot("first"))]
    assert main([*words, "--out", str(layout.report), "--config-json", settings]) == 0
    assert f"{found.newer}." in layout.report.read_text()
