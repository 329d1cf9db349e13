"""The methods text follows what ran."""

from __future__ import annotations

import re
from typing import Any

import pytest

from boldmill.preprocess.config import CleanConfig, EnginesConfig, PreprocessConfig
from boldmill.report import citations, methods
from boldmill.report.methods_words import ENGINES

RECIPE: dict[str, Any] = {"slice_timing": None, "regressors": ["trans_x", "a_comp_cor_00"], "censored": [3]}


def run(
    name: str = "r1", *, flags: tuple[str, ...] = (), recipe: dict[str, Any] | None = None, **files: str
) -> methods.Run:
    qc = {"coreg_method": "boundary", "residual_dof": 30}
    entry = {"kind": "volume", "tr": 2.0, "n_volumes": 100, "files": files, "qc": qc, "flags": list(flags)}
    return methods.Run(scan_id=name, entry=entry, recipe=RECIPE if recipe is None else recipe)


def text(*runs: methods.Run, clean: CleanConfig | None = None, **preprocess: Any) -> str:
    facts = methods.Facts(
        preset="boldmill", space="MNI152NLin6Asym", resolution=2.0, template_source="templateflow",
        preprocess=PreprocessConfig(**preprocess), clean=clean or CleanConfig(),
        anat={"status": "ok", "qc": {}, "flags": []}, runs=runs, versions={"boldmill": "1"},
    )  # fmt: skip
    return citations.markdown(methods.paragraphs(facts), "title")


def test_field_maps_are_named_run_by_run() -> None:
    words = text(run("r1", distortion="d.nii.gz"), run("r2"))
    assert "No field map was used (r2)" in words and "EPI distortion was corrected in r1" in words
    assert "Motion, distortion, coregistration" in words
    assert "switched off" in text(run(), distortion="off")
    assert "Motion, coregistration" in text(run())


def test_slice_timing_says_why_not() -> None:
    timed = {**RECIPE, "slice_timing": {"reference": 0.5, "times": [0.0], "axis": 2}}
    words = text(run("r1", recipe=timed), run("r2", flags=("no slice timing: SliceTiming is missing",)))
    assert "corrected in r1 with" in words and "not corrected in r2 (no slice timing: SliceTiming is missing)" in words


def test_regressors_are_those_of_the_recipe() -> None:
    many = {**RECIPE, "regressors": [*RECIPE["regressors"], "a_comp_cor_01", "cosine_00", "global_signal"]}
    words = text(run("r1"), run("r2", recipe=many))
    assert "1 to 2 aCompCor components" in words and "0 to 1 cosines" in words and "the global signal" in words
    assert "cosines" not in text(run())  # the filter does it: asked for by the settings, not regressed


def test_censoring_and_filter() -> None:
    words = text(run(), clean=CleanConfig(censor="interpolate", order="after", filter="fft"))
    assert "left out of the fit and interpolated" in words and "r1: 1" in words
    assert "filtered after the regression (0.01-0.1 Hz, an ideal Fourier box)" in words
    assert "No temporal filter" in text(run(), clean=CleanConfig(band_low=None, band_high=None))


def test_ready_made_runs_claim_no_steps() -> None:
    entry = {"kind": "surface", "tr": 2.0, "n_volumes": 9, "files": {}, "qc": {}, "flags": [], "layout": "fmriprep"}
    words = text(methods.Run(scan_id="s", entry=entry))
    assert "preprocessed elsewhere, taken over as fmriprep (surface)" in words and "Head motion" not in words
    assert "no framewise displacement was computed" in words and "DVARS" not in words


@pytest.mark.parametrize("step", sorted(EnginesConfig.model_fields))
def test_every_engine_has_words_with_known_works(step: str) -> None:
    allowed = EnginesConfig.model_fields[step].annotation.__args__  # type: ignore[union-attr]
    assert set(ENGINES[step]) == set(allowed)
    for words in ENGINES[step].values():
        assert set(citations.cited([("", words)])) <= set(citations.WORKS)


def test_citations_in_three_forms() -> None:
    words = 'Both <x> [@bbr; @n4] and "one" [@fd].'
    assert citations.cited([("", words)]) == ["bbr", "n4", "fd"]
    shown = citations.as_html(words)
    assert shown.startswith('Both &lt;x&gt; (<a href="#ref-bbr">Greve 2009</a>; <a href="#ref-n4">Tustison 2010</a>)')
    bib = citations.bibliography(["n4", "bbr"])
    assert bib.index("@article{bbr") < bib.index("@article{n4") and "pages = {1310--1320}" in bib
    for key, work in citations.WORKS.items():
        assert re.match(r"10\.\d{4,}/", work.doi) or key == "sklearn", key
        assert work.bibtex(key).count("{") == work.bibtex(key).count("}")
