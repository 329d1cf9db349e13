"""The subject page through its command, on a small results tree written by the project's own writers."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import read_json, write_json, write_text
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.paths import Layout
from boldmill.preprocess import pictures
from boldmill.preprocess.confounds import Table, write
from boldmill.preprocess.images import Volume
from boldmill.provenance.record import Recorder
from boldmill.report import subject_figures, svg
from boldmill.represent.operators import save_arrays
from boldmill.stages import Settings, stage_json

HOSTILE = "<script>alert('x')</script>"
RUN, BAD = "ds_sub-01_task-rest", "ds_sub-01_task-nback"
T = 40
CONFIG = parse({"datasets": [{"name": "ds", "root": "raw"}], "clean": {"censor": "spike"}})


class Html(HTMLParser):
    """Tags, addresses, alternative texts and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def head() -> Volume:
    x, y, z = np.indices((36, 40, 34)).astype(np.float32) - np.array([18, 20, 17], np.float32)[:, None, None, None]
    ball = np.clip(15 - np.sqrt(x**2 + (y / 1.1) ** 2 + z**2), 0, 1)
    return Volume(ball.astype(np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))


def columns() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    found = {name: rng.normal(0, 0.1, T) for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")}
    found |= {name: rng.normal(100, 1, T) for name in ("global_signal", "csf", "white_matter", "std_dvars")}
    found["framewise_displacement"] = np.r_[np.nan, np.abs(rng.normal(0, 0.1, T - 1))]
    found["a_comp_cor_00"] = rng.normal(0, 1, T)
    found["motion_outlier00"] = (np.arange(T) == 17).astype(float)
    return found


def make(results: Path, subject: str = "01") -> Path:
    """Write manifest, record and files of one subject; return the manifest."""
    layout, scan, ball = Layout.at(results), RUN.replace("01", subject), head()
    rng = np.random.default_rng(3)
    flat = np.zeros((*ball.data.shape, 3), np.float32)
    zoom = {"zoom": 4.0, "template_zoom": 4.0}
    half = ball.like(0.5 * ball.data)
    anat = pictures.anat_arrays(ball, ball, half, half, ball, ball, Volume(flat, ball.affine), **zoom)
    save_arrays(layout.figures("ds", f"sub-{subject}_anat"), **anat)
    inside = int((ball.data > 0.5).sum())
    series = rng.normal(1000, 10, (T, inside)).astype(np.float32)
    labels = np.repeat(np.array([1, 2, 3, 4], np.uint8), [inside // 2, inside // 4, 50, inside])[:inside]
    run = pictures.run_arrays(series, labels, np.full(inside, 60.0), ball, np.eye(T) * 0.5, 2.0)
    for name in ("bold", "distorted"):
        run |= pictures.edge_arrays(ball, ball, np.eye(4), name=name, zoom=4.0)
    save_arrays(layout.figures("ds", scan), **run)
    folder = f"derivatives/ds/sub-{subject}"
    notes = {"Method": "aCompCor", "Mask": "combined", "CumulativeVarianceExplained": 0.4}
    write(Table(columns(), {"a_comp_cor_00": notes}), *(results / folder / f"confounds.{e}" for e in ("tsv", "json")))
    recipe = {"slice_timing": {"times": [0, 1], "axis": 2, "reference": 0.95}, "engines": {"motion": "fsl"}}
    recipe |= {"regressors": ["trans_x", "rot_x", "a_comp_cor_00", "csf", "csf_power2"], "censored": [17, 18]}
    write_json(results / "recipe.json", recipe)
    files = {"figures": f"preprocess/ds/figures/{scan}.npz", "confounds": f"{folder}/confounds.tsv"}
    files |= {"recipe": "recipe.json", "distortion": "x.nii.gz"}
    qc = {"mean_fd": 0.123, "tsnr": 61.0, "residual_dof": 22, "coreg_method": "boundary", "sdc_method": "phasediff"}
    write_json(
        layout.subject("ds", subject),
        {
            "schema": 1, "dataset": "ds", "subject": subject, "space": "MNI152NLin6Asym",
            "anat": {"status": "ok", "files": {"figures": f"preprocess/ds/figures/sub-{subject}_anat.npz"},
                     "qc": {"mask_ml": 1400.0, "t1w_merged": 2}, "flags": [f"odd: {HOSTILE}"],
                     "engines": {"n4": "ants: N4 (antspyx 0.5.3)"}, "sources": ["bids:raw:a", "bids:raw:b"]},
            "scans": {
                scan: {"status": "ok", "stage": "preprocess", "kind": "volume", "tr": 2.0, "n_volumes": T,
                       "files": files, "qc": qc, "flags": []},
                BAD.replace("01", subject): {"status": "quarantined", "stage": "preprocess", "kind": "volume",
                                             "reason": "too short", "fix": "leave it out", "files": {}, "qc": {},
                                             "flags": []},
            },
        },
    )  # fmt: skip
    settings = Settings(stage_json(CONFIG, "preprocess", {"ds"}))
    with Recorder(settings, out=layout.subject("ds", subject)) as record:
        record.note(cost_cpu_s={"anat": {"N4": {"cpu_s": 16.4, "wall_s": 19.1}}}, threads=1)
    return layout.subject("ds", subject)


def call(results: Path, *manifests: Path) -> dict[str, Any]:
    out, refused = results / "reports" / "bucket-000.json", results / "index" / "quarantine.tsv"
    rows = [["scan_id", "dataset", "subject", "stage", "reason", "fix", "file"]]
    rows += [[f"ds_sub-{s}_task-lost", "ds", s, "ingest", '"bold" is truncated', "copy again", ""] for s in ["01", "9"]]
    write_text(refused, "".join("\t".join(row) + "\n" for row in rows))
    words = ["--subjects", *map(str, manifests), "--results", str(results)]
    assert main(["pages", *words, "--out", str(out), "--config-json", stage_json(CONFIG, "pages")]) == 0
    return dict(read_json(out)["subjects"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    made = call(root, make(root))
    assert made["ds/01"]["status"] == "ok", made
    return root


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return Layout.at(results).subject_page("ds", "01").read_text()


def test_page_needs_nothing_from_elsewhere_and_runs_no_script(text: str) -> None:
    page = Html(text)
    assert not page.of("script") and "alert('x')" in page.text and HOSTILE not in text
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            address = attrs.get(name)
            assert address is None or re.match(r"#|data:image/|sub-01_methods\.(md|bib)$", address), address
    assert "@import" not in text and "url(" not in text
    assert len(text) < 2_000_000


def test_every_picture_has_words_and_every_link_a_target(text: str) -> None:
    page = Html(text)
    assert all(image.get("alt") for image in page.of("img"))
    drawn = [s for s in page.of("svg") if s.get("role") == "img" and s.get("aria-label")]
    assert len(drawn) == len(page.of("svg")) == 4  # T1w, flicker, edges, distortion
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")}
    assert wanted <= set(ids)
    assert [name for name, _ in page.tags if name in ("h1", "h2")].count("h1") == 1


def test_what_a_reviewer_looks_for_is_there(text: str) -> None:
    words = " ".join(Html(text).text.split())
    for expected in (
        "too short", "leave it out", '"bold" is truncated', "field map: corrected (phasediff)",
        "slice timing: corrected", "1 outlier volumes", "2 censored", "Correlations of confounds", "CompCor variance",
        "Spectrum of grey matter", "tSNR", "N4", "16.4", "CBL", "odd:",
    ):  # fmt: skip
        assert expected in words, expected
    assert "sub-9" not in words


def test_methods_beside_the_page_say_what_ran(results: Path, text: str) -> None:
    folder = results / "reports" / "ds"
    words, bib = (folder / "sub-01_methods.md").read_text(), (folder / "sub-01_methods.bib").read_text()
    cited = set(re.findall(r"@(\w+)", words))
    assert cited == set(re.findall(r"@article\{(\w+),", bib))
    assert all(f'id="ref-{key}"' in text for key in cited)
    for expected in (
        "MCFLIRT",
        "as antspyx 0.5.3",
        "2 T1w images were aligned",
        "0.95 s after the start",
        "phase difference",
    ):
        assert expected in words, expected
    assert "Gauss-Newton" not in words


def test_same_bytes_again(results: Path, text: str) -> None:
    page = Layout.at(results).subject_page("ds", "01")
    call(results, Layout.at(results).subject("ds", "01"))
    assert page.read_text() == text
    record = read_json(results / "reports" / "bucket-000.json.prov.json")
    assert {Path(o["path"]).suffix for o in record["outputs"]} == {".html", ".md", ".bib", ".json"}
    assert any(i["path"].endswith(f"{RUN}.npz") for i in record["inputs"])


def test_a_broken_subject_costs_only_its_own_page(tmp_path: Path) -> None:
    one, two, three = (make(tmp_path, subject) for subject in ("01", "02", "03"))
    Layout.at(tmp_path).figures("ds", "sub-02_anat").write_bytes(b"PK nothing")
    Layout.at(tmp_path).figures("ds", RUN.replace("01", "03")).unlink()
    found = call(tmp_path, one, two, three)
    assert [found[f"ds/{s}"]["status"] for s in ("01", "02", "03")] == ["ok", "failed", "failed"]
    assert "broken" in found["ds/02"]["reason"] and "missing" in found["ds/03"]["reason"]
    assert all(found[f"ds/{s}"]["fix"] for s in ("02", "03"))
    assert not Layout.at(tmp_path).subject_page("ds", "02").exists()


def test_outline_keeps_the_circle() -> None:
    rows, across = np.indices((60, 70))
    disc = (np.clip(20.5 - np.hypot(rows - 30, across - 35), 0, 1) * 255).astype(np.uint8)
    empty = np.zeros_like(disc)
    path = svg.outline([np.stack([empty, disc]), np.zeros((1, 50, 140), np.uint8), np.zeros((1, 5, 5), np.uint8)])
    assert path.count("M") == 1 and path.endswith("z")
    numbers = [int(n) for n in re.findall(r"-?\d+", path)]
    points = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0) / svg.SCALE
    away = np.hypot(points[:, 0] - (70 + 35.5), points[:, 1] - 30.5)
    assert np.abs(away - 20).max() < 0.6 and len(points) < 60


def test_correlations_and_marks() -> None:
    found = columns()
    found["global_signal"] = -2 * found["trans_x"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a column without a value is no reason for a warning in the log
        flat = {"csf": np.full(T, 0.1), "white_matter": np.full(T, np.nan)}
        names = subject_figures.main_confounds({**found, **flat})
    assert not {"csf", "white_matter"} & set(names) and names[0] == "framewise_displacement"
    r = subject_figures.correlations(found, names)
    assert r[names.index("global_signal"), names.index("trans_x")] == pytest.approx(-1)
    assert subject_figures.impulses(found, "motion_outlier").tolist() == [17]
    assert subject_figures.compcor_curves(
        {"a": {"CumulativeVarianceExplained": 0.5, "Method": "aCompCor"}, "b": {}}
    ) == {"aCompCor": [0.5]}
