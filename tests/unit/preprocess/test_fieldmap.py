"""Measured fields against a known one: units of phase, unwrapping, extension, the node, the run; real field maps."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.preprocess import fieldmap, reference
from boldmill.preprocess.distortion import NO_FIELD_MAP, NOT_USED, Encoding, correct, undistort_mask
from boldmill.preprocess.images import Volume, read_volume, write_volume
from boldmill.preprocess.resampling import read_distortion
from boldmill.preprocess.sdc_interfaces import EstimateDistortion

from . import sdc_phantom as phantom
from .bold_phantom import bold, draw, oblique_las, ras, tissues

FUNC, FMAP = oblique_las((40, 52, 38), 4.0), ras(4.0)
RUN = Encoding(1, -1, 0.04)
SIDECAR = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.04}
DELTA = 0.0085
"""One turn is 118 Hz: the field wraps."""


@given(st.integers(0, 2**31 - 1), st.sampled_from(["rad", "turn", "siemens", "signed", "milli"]))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_phase_is_read_from_its_range(seed: int, unit: str) -> None:
    truth = np.random.default_rng(seed).uniform(-np.pi, np.pi, (12, 12, 12))
    stored = {
        "rad": truth,
        "turn": truth + np.pi,
        "siemens": np.round((truth + np.pi) * 4096 / (2 * np.pi)).clip(0, 4095),
        "signed": np.round(truth * 4096 / np.pi).clip(-4096, 4094),
        "milli": np.round(truth * 1000),
    }[unit]
    found = fieldmap.radians(stored)
    offset = np.angle(np.exp(1j * (found - truth)))
    assert np.ptp(offset) < 0.02 and (unit == "turn" or np.abs(offset).max() < 0.02)


@pytest.mark.parametrize("low_high", [(0.0, 1.0), (0.0, 255.0), (-10.0, 900.0), (0.0, 3000.0)])
def test_an_unknown_unit_is_refused(low_high: tuple[float, float]) -> None:
    with pytest.raises(DataFault, match="no unit of phase"):
        fieldmap.radians(np.linspace(*low_high, 1000).reshape(10, 10, 10))


def test_phases_are_subtracted_on_the_circle() -> None:
    assert fieldmap.difference(np.array([3.0]), np.array([-3.0])) == pytest.approx(2 * np.pi - 6)


def test_unwrapping_finds_the_field_and_removes_whole_turns_only() -> None:
    grid = ras(4.0)
    truth = 2 * np.pi * DELTA * phantom.hertz(grid.points()).reshape(grid.shape)
    inside = phantom.brain_of(grid)
    assert np.ptp(truth[inside]) > 1.2 * 2 * np.pi
    found = fieldmap.unwrap(np.angle(np.exp(1j * (truth + 4 * np.pi))), inside)
    assert np.abs(found - truth)[inside].max() < 1e-6 and not found[~inside].any()


def test_the_field_goes_on_outside_the_head() -> None:
    rng = np.random.default_rng(0)
    weight = np.zeros((30, 30, 30))
    weight[8:22, 8:22, 8:22] = 1.0
    x = np.indices(weight.shape)[0]
    field = 2.0 * (x - 15) + rng.normal(0, 3, weight.shape)
    field[15, 15, 15] = 900.0  # one voxel went wrong
    found = fieldmap.extend(np.where(weight > 0, field, 1e6), weight, np.full(3, 3.0))
    inner = np.s_[10:20, 10:20, 10:20]
    assert np.abs(found - 2.0 * (x - 15))[inner].mean() < 1.5 and np.abs(found).max() < 20
    assert found[2, 15, 15] < -5 and found[27, 15, 15] > 3  # carried on, not set to zero
    with pytest.raises(DataFault, match="no voxel"):
        fieldmap.extend(field, np.zeros_like(weight), np.full(3, 3.0))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    root = tmp_path_factory.mktemp("sdc")
    reference_ = phantom.epi(FUNC, RUN)
    write_volume(root / "boldref.nii.gz", reference_.data, FUNC.affine)
    mask = reference.epi_mask(reference_.data, FUNC.affine)
    write_volume(root / "mask.nii.gz", mask, FUNC.affine, dtype="uint8")
    magnitude, phase = phantom.gradient_echo(FMAP, DELTA)
    write_volume(root / "magnitude.nii.gz", magnitude.data, FMAP.affine)
    write_volume(root / "phasediff.nii.gz", np.clip(phase.data * 4096 / np.pi, -4096, 4095), FMAP.affine, dtype="int16")
    first = np.angle(np.exp(1j * (phase.data * 0 + 0.7)))
    second = np.angle(np.exp(1j * (phase.data + 0.7)))
    noise = np.random.default_rng(1).uniform(-np.pi, np.pi, FMAP.shape)  # in air
    air = magnitude.data < 100
    for name, image in (("phase1", first), ("phase2", second)):
        write_volume(root / f"{name}.nii.gz", np.where(air, noise, image), FMAP.affine)
    write_volume(root / "rads.nii.gz", 2 * np.pi * phantom.hertz(FMAP.points()).reshape(FMAP.shape), FMAP.affine)
    return root, phantom.shift(FUNC, RUN)


def maps(kind: str) -> list[dict[str, Any]]:
    magnitude = {"path": "magnitude.nii.gz", "role": "magnitude", "metadata": {}}
    one = {
        "phasediff": [("phasediff", "phasediff", {"EchoTime1": 0.005, "EchoTime2": 0.005 + DELTA})],
        "phases": [("phase1", "phase1", {"EchoTime": 0.005}), ("phase2", "phase2", {"EchoTime": 0.005 + DELTA})],
        "fieldmap": [("rads", "fieldmap", {"Units": "rad/s"})],
    }[kind]
    files = [{"path": f"{name}.nii.gz", "role": role, "metadata": said} for name, role, said in one]
    return [{"kind": kind, "by": "IntendedFor", "files": [*files, magnitude]}]


@pytest.mark.parametrize("kind", ["phasediff", "phases", "fieldmap"])
def test_a_measured_field_gives_the_true_shift(scene: tuple[Path, np.ndarray], kind: str) -> None:
    root, truth = scene
    ref, mask = read_volume(root / "boldref.nii.gz"), read_volume(root / "mask.nii.gz")
    found = correct(ref, mask, SIDECAR, maps(kind), root)
    assert found.method == kind and found.flags == [] and found.distortion
    wrong = np.asarray(found.distortion.shift.data) - truth
    inside = phantom.brain_of(FUNC)
    wrong = np.abs(wrong - np.median(wrong[inside]))[inside]  # the median of a field is not kept
    assert wrong.mean() < 0.1 and np.percentile(wrong, 99) < 0.6
    assert found.numbers["max_shift_mm"] == pytest.approx(4 * np.abs(truth[inside]).max(), rel=0.25)
    flat = draw(FUNC, bold).data
    assert np.abs(found.boldref.data - flat)[inside].mean() < 0.7 * np.abs(ref.data - flat)[inside].mean()
    brain = draw(FUNC, lambda p: tissues(p)["brain"]).data > 0.5
    bent = phantom.epi(FUNC, RUN, noise=0, image=lambda p: tissues(p)["brain"])
    masks = [bent.like(bent.data > 0.5)]
    masks.append(undistort_mask(masks[0], found.distortion))
    dice = [2 * (brain & (m.data > 0)).sum() / (brain.sum() + (m.data > 0).sum()) for m in masks]
    assert dice[1] > 0.98 > dice[0]


def test_the_node_leaves_a_distortion_that_the_one_step_reads(scene: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, _ = scene
    given = {"boldref": root / "boldref.nii.gz", "mask": root / "mask.nii.gz"}
    made = {}
    for name, more in (
        ("on", {"maps": json.dumps(maps("fieldmap")), "metadata": json.dumps(SIDECAR), "root": root}),
        ("none", {}),
        ("off", {"maps": json.dumps(maps("fieldmap")), "off": True}),
    ):
        step = EstimateDistortion(**{k: str(v) if isinstance(v, Path) else v for k, v in {**given, **more}.items()})
        (tmp_path / name).mkdir()
        made[name] = step.step(tmp_path / name)
    facts = {name: read_json(one["facts"]) for name, one in made.items()}
    assert [facts[name]["method"] for name in ("on", "none", "off")] == ["fieldmap", "none", "off"]
    assert facts["none"]["flags"] == [NO_FIELD_MAP] and "preprocess.distortion is off" in facts["off"]["flags"][0]
    for name in ("none", "off"):
        assert "distortion" not in made[name] and made[name]["boldref"] == str(given["boldref"])
    read = read_distortion(Path(made["on"]["distortion"]))
    assert read.axis == 1 and read.shift.grid.same_as(FUNC)
    assert read_volume(made["on"]["boldref"]).data.tobytes() != read_volume(given["boldref"]).data.tobytes()


def test_a_field_map_that_makes_no_sense_is_flagged_and_nothing_is_corrected(
    scene: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    root, _ = scene
    ref, mask = read_volume(root / "boldref.nii.gz"), read_volume(root / "mask.nii.gz")
    huge = maps("fieldmap")
    huge[0]["files"][0]["metadata"] = {"Units": "T"}
    broken = maps("phasediff")
    broken[0]["files"][0]["path"] = "magnitude.nii.gz"
    found = correct(ref, mask, SIDECAR, [*huge, *broken], root)
    assert found.distortion is None and found.boldref is ref and found.method == "none"
    assert "rads.nii.gz not used: it shifts a twentieth of the head" in found.flags[0]
    assert "no unit of phase" in found.flags[1] and found.flags[2] == NOT_USED
    again = correct(ref, mask, SIDECAR, [*broken, *maps("fieldmap")], root)
    assert again.method == "fieldmap" and len(again.flags) == 1


def bids_copy(target: Path) -> Path:
    """A BIDS-named copy of pumi with the field map of its BOLD session, echo times from the original sidecars."""
    root = Path(os.environ.get("BOLDMILL_TEST_DATA", "../shared/data"))
    if not root.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real test data are missing at {root}")
        pytest.skip(f"no real test data at {root} (BOLDMILL_TEST_DATA)")
    source, stem = root / "bids" / "pumi", "M2212424_gre_field_mapping_20180604191914"
    original, fmap = source / "sourcedata/sub-001/fmap", target / "sub-001/fmap"
    for file in sorted(source.rglob("*")):
        name = file.relative_to(source)
        if file.is_file() and name.parts[0] != "sourcedata":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / name)
    fmap.mkdir()
    for name, suffix in (("_6", "magnitude1"), ("_6_e2", "magnitude2"), ("_7_e2", "phasediff")):
        shutil.copyfile(original / f"{stem}{name}.nii.gz", fmap / f"sub-001_{suffix}.nii.gz")
    echoes = [json.loads((original / f"_{stem}_6{e}.json").read_text())["EchoTime"] for e in ("", "_e2")]
    said = {"EchoTime1": echoes[0], "EchoTime2": echoes[1], "IntendedFor": "func/sub-001_task-rest_bold.nii.gz"}
    (fmap / "sub-001_phasediff.json").write_text(json.dumps(said))
    return target


@pytest.mark.data
def test_a_real_field_map_from_its_ticket_to_the_shift(tmp_path: Path) -> None:
    from boldmill.config.model import Config
    from boldmill.index.command import ingest
    from boldmill.stages import Settings, stage_json

    root = bids_copy(tmp_path / "pumi")
    config = Config.model_validate({"datasets": [{"name": "pumi", "root": str(root)}]})
    (row,) = ingest(Settings(stage_json(config, "ingest")), tmp_path / "results")
    ticket = json.loads((tmp_path / "results" / row.ticket).read_text())
    assert [(m["kind"], m["by"], len(m["files"])) for m in ticket["fmap"]] == [("phasediff", "IntendedFor", 3)]
    series = read_volume(root / ticket["bold"][0]["path"], ndim=4)
    image = np.median(series.data, axis=3)
    ref = Volume(image, series.affine)
    mask = ref.like(reference.epi_mask(image, series.affine).astype(np.uint8))
    encoding = Encoding.of(ticket["metadata"], image.shape)
    assert (encoding.axis, encoding.polarity) == (1, -1)
    assert encoding.readout == pytest.approx(0.000325002 * 45)  # resampled from 94 lines to 46: the same millimetres
    found = correct(ref, mask, ticket["metadata"], ticket["fmap"], root)
    assert found.method == "phasediff" and found.flags == [] and found.distortion
    numbers = found.numbers
    assert 4 < numbers["max_shift_mm"] < 12 and 0.2 < numbers["mean_shift_mm"] < 1.5
    assert numbers["least_jacobian"] > 0.4 and numbers["folded"] == 0
    assert 8 < numbers["field_sd_hz"] < 30 and numbers["moved_mm"] < 6
    # The air of the frontal sinus raises the field above it, and j- moves what lies there backwards (lower j).
    shift = np.asarray(found.distortion.shift.data)
    i, j, _ = np.unravel_index(int(np.argmin(np.where(mask.data > 0, shift, 0))), shift.shape)
    assert abs(i - 22) < 5 and j > 23 and shift.min() < -0.8
