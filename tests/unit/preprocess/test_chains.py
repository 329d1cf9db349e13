"""Whole jobs on a phantom whose truth is known: `boldmill ingest`, `preprocess` and `apply` as a user calls them.

One head with four runs: ``good`` (no field map), ``sdc`` (distorted, with an EPI of opposite polarity), ``signal``
(planted signals, sequential slices) and ``spikes`` (jerks of the head). Settings change between jobs in one results
folder, so that the anatomy is estimated once.

Axes: T time, X Y Z voxels, N voxels of a mask in C order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import read_json, sha256_file
from boldmill.cli import main
from boldmill.preprocess.apply import cleaned
from boldmill.preprocess.distortion import Encoding
from boldmill.preprocess.images import Grid, Volume, read_volume
from boldmill.preprocess.recipe import Recipe

from . import phantom, sdc_phantom
from .bad_input.tree import COARSE, HEAD, RAW, Results, Tree
from .bold_phantom import CENTRE

LABEL = "one"
RUN, AGAINST = Encoding(1, -1, 0.02), Encoding(1, 1, 0.02)
SHIFTED = Grid(COARSE.shape, phantom.rigid((0, 0, 0), tuple(CENTRE)) @ COARSE.affine)
"""The grid of the distorted run: `sdc_phantom` has its field around `CENTRE`, and so the head is put there."""
TR, LONG, SHORT = 4.0, 140, 90
SLICES = [round(TR * k / COARSE.shape[2], 4) for k in range(COARSE.shape[2])]
JERKS = {12: 1.0, 21: 1.6, 31: 0.8, 43: 2.0, 52: 1.2, 61: 0.9, 73: 1.4}
STILL = np.array([t for t in range(SHORT) if t not in JERKS])
FREQUENCIES, PHYSIOLOGY = (0.021, 0.033, 0.047), (0.026, 0.039, 0.055)


def contrast(points: np.ndarray) -> np.ndarray:
    """EPI contrast of the head at world points (N, 3)."""
    part = phantom.parts(points)
    return np.asarray(90 * part["csf"] + 70 * part["gm"] + 50 * part["wm"] + 15 * part["scalp"])


def wave(frequencies: tuple[float, ...], seconds: np.ndarray) -> np.ndarray:
    """A signal inside every pass band, mean square 1."""
    phases = (0.3, 1.7, 4.1)
    parts = [np.cos(2 * np.pi * f * seconds + p) for f, p in zip(frequencies, phases, strict=True)]
    return np.asarray(np.sum(parts, axis=0) * np.sqrt(2 / 3))


NETWORK = {(52, 6, 10): 1.0, (-52, 6, 10): 1.0, (0, 66, 14): -1.0, (0, -70, 10): -1.0}
"""Centres (mm) and signs: what no rigid movement looks like, and what the global signal does not hold."""


def parcel(points: np.ndarray, centre: tuple[float, ...] = (52, 6, 10)) -> np.ndarray:
    """A ball around a centre: bool (N,) at template (and run) world points."""
    return np.asarray(np.linalg.norm(points - np.array(centre), axis=-1) < 20)


def moving(points: np.ndarray, volumes: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """What small movements (mm, degrees; each a random walk) add to the head, (N, T); linear in them."""
    added = np.zeros((len(points), volumes))
    for k in range(6):
        shift = [size * (k == axis) for axis in range(6)]
        there = np.linalg.inv(phantom.rigid(tuple(shift[3:]), tuple(shift[:3])))
        image = contrast(points @ there[:3, :3].T + there[:3, 3]) - contrast(points)
        walk = rng.standard_normal(volumes).cumsum()
        added += image[:, np.newaxis] * ((walk - walk.mean()) / walk.std())
    return added


def planted(volumes: int) -> np.ndarray:
    """The series (X, Y, Z, T): a signal in the cortex of a network, another in the whole brain, movement and noise."""
    points, rng = COARSE.points(), np.random.default_rng(3)
    slices = np.tile(SLICES, COARSE.shape[0] * COARSE.shape[1])  # Z runs fastest
    seconds = np.arange(volumes) * TR + slices[:, np.newaxis]
    part = phantom.parts(points)
    network = sum(sign * parcel(points, centre) for centre, sign in NETWORK.items()) * part["gm"]
    change = 0.02 * network[:, np.newaxis] * wave(FREQUENCIES, seconds)
    change += 0.02 * part["brain"][:, np.newaxis] * wave(PHYSIOLOGY, seconds)
    data = contrast(points)[:, np.newaxis] * (1 + change) + moving(points, volumes, 0.3, rng)
    return np.asarray(data + rng.normal(0, 1, change.shape)).reshape(*COARSE.shape, volumes)


def jerked() -> np.ndarray:
    """A run without signals (X, Y, Z, T): nods of several sizes, with a pattern over the head that no size predicts."""
    points, rng = COARSE.points(), np.random.default_rng(4)
    data = contrast(points)[:, np.newaxis] + moving(points, SHORT, 0.05, rng)
    for volume, size in JERKS.items():
        there = np.linalg.inv(phantom.rigid((1.0 * size, 0, 0), (0, 0, 1.0 * size)))
        pattern = 1 + 0.2 * np.sin(points @ rng.normal(0, 0.02, 3) + rng.uniform(0, 2 * np.pi))
        data[:, volume] = contrast(points @ there[:3, :3].T + there[:3, 3]) * pattern
    return np.asarray(data + rng.normal(0, 1, data.shape)).reshape(*COARSE.shape, SHORT)


def distorted(encoding: Encoding, volumes: int) -> np.ndarray:
    """A run of the head in the field of `sdc_phantom`."""
    image = sdc_phantom.epi(SHIFTED, encoding, noise=0, image=lambda p: contrast(p - CENTRE)).data[..., np.newaxis]
    rng = np.random.default_rng(encoding.polarity + 5)
    noise = rng.normal(0, 1, (*COARSE.shape, volumes))
    return np.asarray(image * (1 + 0.01 * rng.standard_normal(volumes)) + noise)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The head with its runs, indexed."""
    tree = Tree(tmp_path_factory.mktemp("chains"))
    tree.subject(LABEL)
    tree.participants()
    func, encoded = f"sub-{LABEL}/func/sub-{LABEL}_task-rest_acq-", {"TotalReadoutTime": RUN.readout}
    said = {"RepetitionTime": 2.0, "TaskName": "rest", "PhaseEncodingDirection": "j-", **encoded}
    tree.image(f"{func}sdc_bold", distorted(RUN, 24), SHIFTED.affine, 2.0, **said)
    meant = {"PhaseEncodingDirection": "j", **encoded, "IntendedFor": f"bids::{func}sdc_bold.nii.gz"}
    fmap = f"sub-{LABEL}/fmap/sub-{LABEL}_acq-sdc_dir-PA_epi"
    tree.image(fmap, distorted(AGAINST, 4), SHIFTED.affine, 2.0, **meant)
    timed = {"RepetitionTime": TR, "TaskName": "rest", "SliceTiming": SLICES}
    tree.image(f"{func}signal_bold", planted(LONG), COARSE.affine, TR, **timed)
    tree.image(f"{func}spikes_bold", jerked(), COARSE.affine, TR, RepetitionTime=TR, TaskName="rest")
    made = Results(tree, "results")
    assert made.ingest() == 0
    return made


def settings(**sections: Any) -> dict[str, Any]:
    """Settings of the small tree with sections merged into theirs; ``clean`` is replaced."""
    raw = copy.deepcopy(RAW)
    for key, values in sections.items():
        merged = isinstance(values, Mapping) and key != "clean"
        raw[key] = {**raw.get(key, {}), **values} if merged else values
    return raw


def entry(results: Results, run: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocess one run with these settings and return its entry in the manifest."""
    results.configure(raw)
    assert results.preprocess(LABEL, f"task-rest_acq-{run}") == 0
    found = results.manifest(LABEL)["scans"][f"bad_sub-{LABEL}_task-rest_acq-{run}"]
    assert found["status"] == "ok", found
    return dict(found)


def image(results: Results, found: Mapping[str, Any], key: str) -> Volume:
    return read_volume(results.folder / found["files"][key])


def derived(results: Results, run: str) -> dict[str, str]:
    """Digest of every file of a run below the derivatives, by name."""
    paths = (results.folder / "derivatives").rglob(f"*_acq-{run}_*")
    return {path.name: sha256_file(path) for path in sorted(paths)}


def alike(volume: Volume, truth: Callable[[np.ndarray], np.ndarray], centre: Any = (0.0, 0.0, 0.0)) -> float:
    """Correlation of a mean image with the truth in a brain at rest."""
    points = volume.grid.points()
    inside = (phantom.parts(points - np.asarray(centre))["brain"] > 0.9) & (volume.data.ravel() > 0)
    return float(np.corrcoef(volume.data.ravel()[inside], truth(points)[inside])[0, 1])


def test_an_opposite_epi_undoes_a_known_distortion_and_apply_gives_the_bytes_that_were_kept(
    results: Results, tmp_path: Path
) -> None:
    found = entry(results, "sdc", settings(preprocess={"keep": ["clean"]}))
    assert found["qc"]["sdc_method"] == "epi" and not [f for f in found["flags"] if "field map" in f]
    field = image(results, found, "distortion")
    truth = sdc_phantom.shift(field.grid, RUN)
    brain = (phantom.parts(field.grid.points() - CENTRE)["brain"] > 0.9).reshape(field.grid.shape)
    assert np.abs(truth[brain]).max() > 1.2  # voxels of 7 mm
    wrong = np.abs(field.data - truth)[brain].mean()
    assert wrong < 0.35 * np.abs(truth[brain]).mean(), wrong
    assert found["qc"]["sdc_max_shift_mm"] == pytest.approx(7 * np.abs(truth[brain]).max(), rel=0.5)
    side = read_json(str(results.folder / found["files"]["distortion"]).replace(".nii.gz", ".json"))
    assert side["PhaseEncodingDirection"] == "j-"
    assert f"bids:raw:sub-{LABEL}/fmap/sub-{LABEL}_acq-sdc_dir-PA_epi.nii.gz" in side["Sources"]

    kept = results.folder / found["files"]["clean"]
    words = ["apply", "--results", str(results.folder), "--scan", f"bad_sub-{LABEL}_task-rest_acq-sdc"]
    assert main([*words, "--what", "clean", "--out", str(tmp_path)]) == 0
    again = list(tmp_path.rglob("*_desc-clean_bold.nii.gz"))
    assert [path.name for path in again] == [kept.name] and again[0].read_bytes() == kept.read_bytes()

    near = {key: image(results, found, key) for key in ("boldref_native", "boldref")}
    off = entry(results, "sdc", settings(preprocess={"distortion": "off"}))
    far = {key: image(results, off, key) for key in near}
    assert off["qc"]["sdc_method"] == "off" and "distortion" not in off["files"]
    assert not [name for name in derived(results, "sdc") if "desc-sdc" in name or "desc-clean" in name]
    native = [alike(part["boldref_native"], lambda p: contrast(p - CENTRE), CENTRE) for part in (near, far)]
    template = [alike(part["boldref"], contrast) for part in (near, far)]
    assert 1 - native[0] < 0.6 * (1 - native[1]), native
    assert 1 - template[0] < 0.8 * (1 - template[1]), template


def test_a_run_that_no_field_map_names_says_so(results: Results) -> None:
    found = entry(results, "good", RAW)
    assert found["qc"]["sdc_method"] == "none" and found["qc"]["sdc_max_shift_mm"] is None
    assert "distortion" not in found["files"]
    assert any(flag.startswith("no field map") for flag in found["flags"])


def test_spaces_and_maps_come_and_go_with_the_settings_and_leave_nothing_stale(results: Results) -> None:
    entry(results, "good", RAW)
    before = derived(results, "good")
    more = {"output_spaces": ["T1w", "boldref", "PHANTOM:res-6"], "maps": ["alff", "reho"]}
    found = entry(results, "good", settings(preprocess=more))
    labels = {"T1w": "space-T1w", "boldref": "space-boldref", "PHANTOM_res-6": "space-PHANTOM_res-6"}
    names = {found["files"][f"preproc_{key}"].split("/")[-1] for key in labels}
    stem = f"sub-{LABEL}_task-rest_acq-good"
    assert names == {f"{stem}_{label}_desc-preproc_bold.nii.gz" for label in labels.values()}
    for key in labels:
        series = read_volume(results.folder / found["files"][f"preproc_{key}"], ndim=4)
        mask = image(results, found, f"mask_{key}").data > 0.5
        assert series.data.shape[3] == found["n_volumes"] and mask.sum() > 1000 and series.data[mask].mean() > 1000
    coarse = image(results, found, "mask_PHANTOM_res-6").grid
    np.testing.assert_allclose(coarse.zooms, 6)
    template = read_volume(results.folder / found["files"]["preproc_PHANTOM_res-6"], ndim=4)
    assert alike(Volume(template.data.mean(axis=3), template.affine), contrast) > 0.9
    mask = image(results, found, "mask").data > 0.5
    for name in ("alff", "reho"):
        assert found["files"][name].endswith(f"/func/{stem}_space-PHANTOM_{name}.nii.gz")
        values = image(results, found, name).data
        assert (values[mask] > 0).mean() > 0.9 and not values[~mask].any()
    added = set(derived(results, "good")) - set(before)
    assert len(added) == 2 * (3 + 3 + 2 + 2)  # series, masks, means (boldref has its own), maps, each with a sidecar

    entry(results, "good", RAW)
    assert derived(results, "good") == before


def head(seed: int, matrix: np.ndarray | None = None, noise: float = 6.0) -> np.ndarray:
    """The chain's head with noise of its own, in the scanner position ``matrix`` after that of the first scan."""
    place = phantom.rigid((4, 2, -3), (5, -8, 6), 1.03)
    back = np.linalg.inv(place if matrix is None else matrix @ place)
    points = phantom.GRID.points() @ back[:3, :3].T + back[:3, 3]
    values = phantom.t1w(points) + np.random.default_rng(seed).normal(0, noise, len(points))
    return np.abs(values).reshape(phantom.GRID.shape)


def test_two_t1w_of_one_session_are_merged_and_a_stranger_is_left_out(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    points = phantom.GRID.points() @ np.diag([0.78, 0.82, 1.25])
    stranger = phantom.t1w(points[:, [1, 0, 2]]).reshape(phantom.GRID.shape)
    second = {"pair": head(2, phantom.rigid((3, -2, 4), (4, -3, 5))), "stranger": stranger}
    for label, other in second.items():
        tree.labels.append(label)
        for number, data in ((1, head(1)), (2, other)):
            tree.image(f"sub-{label}/anat/sub-{label}_run-{number}_T1w", data, HEAD.affine)
    tree.participants()
    made = Results(tree, "results")
    assert made.ingest() == 0
    noise = {}
    for label in second:
        assert made.preprocess(label) == 0
        anat = made.manifest(label)["anat"]
        assert anat["status"] == "ok", anat
        image = read_volume(made.folder / anat["files"]["t1w"])
        back = np.linalg.inv(phantom.rigid((4, 2, -3), (5, -8, 6), 1.03))
        there = image.grid.points() @ back[:3, :3].T + back[:3, 3]
        white, truth = phantom.parts(there)["wm"] > 0.95, phantom.t1w(there)
        noise[label] = float((image.data.ravel()[white] / image.data.ravel()[white].mean() - truth[white] / 100).std())
        out = [flag for flag in anat["flags"] if flag.startswith("t1w_left_out")]
        both = [f"bids:raw:sub-{label}/anat/sub-{label}_run-{number}_T1w.nii.gz" for number in (1, 2)]
        if label == "pair":
            assert anat["qc"]["t1w_merged"] == 2 and not out and anat["sources"] == both
            assert anat["qc"]["t1w_least_correlation"] > 0.8
        else:
            assert anat["qc"]["t1w_merged"] == 1 and anat["sources"] == both[:1]
            assert len(out) == 1 and "run-2_T1w" in out[0] and "same person" in out[0]
    assert noise["pair"] < 0.85 * noise["stranger"], noise  # two images of equal noise: 0.71, and interpolation


MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
FORMS = ("", "_derivative1", "_power2", "_derivative1_power2")
MOTION_24 = {f"{name}{end}" for name in MOTION for end in FORMS}
SIGNALS_12 = {f"{name}{end}" for name in ("global_signal", "white_matter", "csf") for end in FORMS}
COMPONENTS = {f"a_comp_cor_{k:02d}" for k in range(5)}
PRESETS: dict[str, tuple[set[str], dict[str, Any], bool]] = {
    "boldmill": (MOTION_24 | COMPONENTS, {"band_high": 0.1, "filter": "butterworth", "filter_order": 5,
                 "order": "both", "smoothing": 0, "drift": "cosine"}, False),
    "abide_pcp": (COMPONENTS, {"band_high": 0.1, "filter": "fft", "order": "after", "smoothing": 0,
                  "drift": "quadratic", "motion": "24lag"}, False),
    "cpac_default": (COMPONENTS | {"csf"}, {"band_high": 0.1, "filter": "fft", "order": "after", "smoothing": 0,
                     "drift": "quadratic", "motion": "24lag"}, False),
    "fmriprep_36p": (MOTION_24 | SIGNALS_12, {"band_high": 0.08, "filter": "butterworth", "filter_order": 5,
                     "order": "both", "smoothing": 0, "drift": "cosine"}, False),
    "xcpd_linc": (MOTION_24 | SIGNALS_12, {"band_high": 0.08, "filter": "butterworth", "filter_order": 2,
                  "order": "both", "smoothing": 6, "drift": "linear"}, True),
}  # fmt: skip
"""What each preset stands for, written down from its source: regressors, cleaning, despiking."""


def cleaned_run(results: Results, found: Mapping[str, Any]) -> tuple[np.ndarray, Volume]:
    """The cleaned series (T, N) of a run, made again from its recipe, and its mask."""
    series, mask = cleaned(Recipe.read(results.folder / found["files"]["recipe"], results.folder))
    return np.stack(list(series)), mask


def parcel_mean(series: np.ndarray, mask: Volume, centre: tuple[float, ...]) -> np.ndarray:
    """Mean (T,) over one ball of the grey matter."""
    points = mask.grid.points()[mask.data.ravel() > 0.5]
    inside = parcel(points, centre) & (phantom.parts(points)["gm"] > 0.5)
    assert inside.sum() > 20
    return np.asarray(series[:, inside].mean(axis=1))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_cleans_as_its_source_does_and_keeps_the_planted_signal(results: Results, preset: str) -> None:
    regressors, cleaning, despiked = PRESETS[preset]
    cleaning = {**cleaning, "band_low": 0.01, "censor": "none"}
    found = entry(results, "signal", settings(preset=preset, clean={"min_dof_flag": 1}))
    recipe = read_json(results.folder / found["files"]["recipe"])
    used = set(recipe["regressors"])
    assert {key: recipe["clean"][key] for key in cleaning} == cleaning
    if cleaning.get("motion") == "24lag":
        motion = used - regressors
        assert len(motion) == 24 and set(MOTION) <= motion and not motion & (MOTION_24 - set(MOTION) - {
            f"{name}_power2" for name in MOTION})  # fmt: skip
    else:
        assert used == regressors
    assert regressors <= used and recipe["despike"] is despiked and found["qc"]["n_regressors"] == len(used)
    assert recipe["slice_timing"]["times"] == pytest.approx(SLICES)
    seconds = np.arange(LONG) * TR + recipe["slice_timing"]["reference"]
    series, mask = cleaned_run(results, found)
    for centre, sign in NETWORK.items():
        mean = sign * parcel_mean(series, mask, centre)
        kept = np.corrcoef(mean, wave(FREQUENCIES, seconds))[0, 1]
        left = np.corrcoef(mean, wave(PHYSIOLOGY, seconds))[0, 1]
        assert kept > 0.6 and abs(left) < 0.2, (centre, kept, left)


def test_scrubbing_finds_the_jerks_and_leaves_less_of_them(results: Results) -> None:
    artefact, everywhere = {}, {}
    for strategy in ("24P", "24P+scrub"):
        found = entry(results, "spikes", settings(clean={"strategy": strategy, "min_dof_flag": 1}))
        series, mask = cleaned_run(results, found)
        assert len(series) == SHORT == found["n_volumes"]
        still = series[STILL]  # nothing but noise in truth
        artefact[strategy] = np.mean([parcel_mean(still, mask, centre).std() for centre in NETWORK])
        everywhere[strategy] = still.mean(axis=1).std()
        censored = read_json(results.folder / found["files"]["recipe"])["censored"]
        assert bool(censored) is (strategy == "24P+scrub")
    assert set(JERKS) <= set(censored) <= {t + step for t in JERKS for step in (0, 1)}  # and back again: FD is a step
    assert found["qc"]["censored_share"] == pytest.approx(len(censored) / SHORT)
    assert found["qc"]["minutes_kept"] == pytest.approx((SHORT - len(censored)) * TR / 60)
    assert artefact["24P+scrub"] < 0.8 * artefact["24P"], artefact
    assert everywhere["24P+scrub"] < 0.5 * everywhere["24P"], everywhere
