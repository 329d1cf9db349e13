"""Field maps find their runs, and what is missing is named without costing the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.index.fmap import Unusable, intended, phase_encoding, readout_time
from boldmill.index.names import read_path
from boldmill.preprocess import raw

from .trees import Tree, nifti

PE = {"RepetitionTime": 2.0, "PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.03}
RUN = "sub-01_task-rest"
ECHOES = {"EchoTime1": 0.00492, "EchoTime2": 0.00738}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    made.t1w("01")
    made.bold("01", sidecar=PE)
    return made


def image(tree: Tree, name: str, sidecar: dict[str, Any] | None = None, *, folder: str = "sub-01/fmap") -> str:
    path = f"{folder}/{name}.nii.gz"
    tree.write(path, nifti((6, 5, 4), seed=len(name)))
    if sidecar is not None:
        tree.write(path.replace(".nii.gz", ".json"), sidecar)
    return path


def phasediff(tree: Tree, **sidecar: Any) -> None:
    image(tree, "sub-01_phasediff", {**ECHOES, "IntendedFor": "func/sub-01_task-rest_bold.nii.gz", **sidecar})
    image(tree, "sub-01_magnitude1")
    image(tree, "sub-01_magnitude2")


def found(tree: Tree) -> tuple[list[dict[str, Any]], str]:
    row = tree.rows()[RUN]
    assert row.status == "ok", row.reason
    return tree.ticket(RUN).get("fmap", []), row.flags


def roles(entry: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f["role"], f["path"].split("/")[-1].removesuffix(".nii.gz")) for f in entry["files"]]


def test_a_phase_difference_is_in_the_ticket_with_its_bytes(tree: Tree) -> None:
    phasediff(tree, PatientName="x")
    maps, flags = found(tree)
    assert [(m["kind"], m["by"]) for m in maps] == [("phasediff", "IntendedFor")]
    assert [role for role, _ in roles(maps[0])] == ["phasediff", "magnitude", "magnitude"]
    assert maps[0]["files"][0]["metadata"] == ECHOES
    assert "field map" not in flags
    ticket = tree.ticket(RUN)
    listed = {entry["path"] for entry in raw.entries(ticket)}
    assert {f["path"] for f in maps[0]["files"]} <= listed
    raw.verify([ticket])
    changed = tree.root / maps[0]["files"][1]["path"]
    changed.write_bytes(b"x" * changed.stat().st_size)
    with pytest.raises(Exception, match="changed"):
        raw.verify([ticket])


def test_without_field_maps_the_ticket_has_no_such_key(tree: Tree) -> None:
    assert found(tree)[0] == [] and "fmap" not in tree.ticket(RUN)


@pytest.mark.parametrize("key", ["EchoTime1", "EchoTime2"])
def test_a_missing_echo_time_is_named(tree: Tree, key: str) -> None:
    phasediff(tree, **{key: None})
    maps, flags = found(tree)
    assert maps == [] and f"sub-01_phasediff.nii.gz not used: {key} is missing" in flags


@pytest.mark.parametrize("key", ["PhaseEncodingDirection", "TotalReadoutTime"])
def test_a_key_missing_from_the_run_is_named(tree: Tree, key: str) -> None:
    tree.bold("01", sidecar={k: v for k, v in PE.items() if k != key})
    phasediff(tree)
    maps, flags = found(tree)
    assert maps == [] and f"not used: {key}" in flags and "missing in the sidecar of the run" in flags


def test_two_phases_a_field_in_hertz_and_their_faults(tree: Tree) -> None:
    meant = {"IntendedFor": ["bids::sub-01/func/sub-01_task-rest_bold.nii.gz"]}
    image(tree, "sub-01_acq-a_phase1", {"EchoTime": 0.005, **meant})
    image(tree, "sub-01_acq-a_phase2", {"EchoTime": 0.007, **meant})
    image(tree, "sub-01_acq-a_magnitude1")
    image(tree, "sub-01_acq-b_fieldmap", {"Units": "Hz", **meant})
    image(tree, "sub-01_acq-b_magnitude")
    image(tree, "sub-01_acq-c_fieldmap", {"Units": "ppm", **meant})
    image(tree, "sub-01_acq-c_magnitude")
    image(tree, "sub-01_acq-d_phasediff", {**ECHOES, **meant})
    image(tree, "sub-01_acq-e_phase2", {"EchoTime": 0.007, **meant})
    image(tree, "sub-01_acq-e_magnitude1")
    maps, flags = found(tree)
    assert [m["kind"] for m in maps] == ["fieldmap", "phases"]
    assert [role for role, _ in roles(maps[1])] == ["phase1", "phase2", "magnitude"]
    assert "acq-c_fieldmap.nii.gz not used: Units is 'ppm'" in flags
    assert "acq-d_phasediff.nii.gz not used: its magnitude image is missing" in flags
    assert "acq-e_phase2.nii.gz not used: phase1 is missing" in flags


def test_identifiers_win_over_intended_for(tree: Tree) -> None:
    tree.bold("01", sidecar={**PE, "B0FieldSource": "two"})
    for acq, sidecar in (("a", {"IntendedFor": "func/sub-01_task-rest_bold.nii.gz"}), ("b", {})):
        identifier = {"B0FieldIdentifier": ["two", "other"] if acq == "b" else "one"}
        image(tree, f"sub-01_acq-{acq}_phasediff", {**ECHOES, **sidecar, **identifier})
        image(tree, f"sub-01_acq-{acq}_magnitude1")
    maps, _ = found(tree)
    assert [(m["by"], roles(m)[0][1]) for m in maps] == [("B0FieldIdentifier", "sub-01_acq-b_phasediff")]


def test_a_field_map_of_another_run_is_left_alone(tree: Tree) -> None:
    phasediff(tree, IntendedFor="func/sub-01_task-other_bold.nii.gz")
    maps, flags = found(tree)
    assert maps == [] and "none of 1 field maps names this run" in flags


def epi(tree: Tree, direction: str, code: str, **sidecar: Any) -> None:
    meant = {"IntendedFor": "func/sub-01_task-rest_bold.nii.gz"}
    image(
        tree,
        f"sub-01_dir-{direction}_epi",
        {"PhaseEncodingDirection": code, "TotalReadoutTime": 0.03, **meant, **sidecar},
    )


def test_opposite_polarity_takes_the_pair_then_the_reference(tree: Tree) -> None:
    epi(tree, "AP", "j-")
    epi(tree, "PA", "j")
    epi(tree, "LR", "i")
    maps, _ = found(tree)
    assert [m["kind"] for m in maps] == ["epi"]
    assert roles(maps[0]) == [("epi", "sub-01_dir-PA_epi"), ("epi", "sub-01_dir-AP_epi")]
    (tree.root / "sub-01/fmap/sub-01_dir-AP_epi.nii.gz").unlink()
    assert roles(found(tree)[0][0]) == [("epi", "sub-01_dir-PA_epi")]
    image(tree, "sub-01_task-rest_sbref", {}, folder="sub-01/func")
    assert roles(found(tree)[0][0]) == [("epi", "sub-01_dir-PA_epi"), ("sbref", "sub-01_task-rest_sbref")]
    epi(tree, "PA", "j", PhaseEncodingDirection=None)
    maps, flags = found(tree)
    assert maps == [] and "sub-01_dir-PA_epi.nii.gz: PhaseEncodingDirection is missing" in flags
    epi(tree, "PA", "j-")
    assert "no EPI of the polarity opposite to the run's (j-)" in found(tree)[1]


def test_a_broken_image_or_sidecar_is_flagged_and_the_run_goes_on(tree: Tree) -> None:
    phasediff(tree)
    (tree.root / "sub-01/fmap/sub-01_magnitude1.nii.gz").write_bytes(b"")
    maps, flags = found(tree)
    assert maps == [] and "sub-01_magnitude1.nii.gz: the file is empty" in flags
    (tree.root / "sub-01/fmap/sub-01_phasediff.json").write_text("{")
    assert "sub-01_phasediff.nii.gz not used: " in found(tree)[1]


def test_sessions_are_told_apart(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for session in ("1", "2"):
        tree.t1w("01", session=session)
        tree.bold("01", session=session, sidecar=PE)
        folder, stem = f"sub-01/ses-{session}/fmap", f"sub-01_ses-{session}"
        meant = {"IntendedFor": f"ses-{session}/func/{stem}_task-rest_bold.nii.gz"}
        image(tree, f"{stem}_phasediff", {**ECHOES, **meant}, folder=folder)
        image(tree, f"{stem}_magnitude1", folder=folder)
    tree.rows()
    for session in ("1", "2"):
        ticket = json.loads((tree.results / f"index/tickets/ds_sub-01_ses-{session}_task-rest.json").read_text())
        assert [f["path"].split("/")[1] for m in ticket["fmap"] for f in m["files"]] == [f"ses-{session}"] * 2


def test_intended_for_reads_every_form() -> None:
    run, _ = read_path("sub-01/ses-2/func/sub-01_ses-2_task-rest_bold.nii.gz")
    assert run
    name = "func/sub-01_ses-2_task-rest_bold"
    forms = [f"bids::sub-01/ses-2/{name}.nii.gz", f"ses-2/{name}.nii", f"{name}.nii.gz", f"sub-01/ses-2/{name}.nii.gz"]
    assert all(intended(form, run) and intended(["x", form], run) for form in forms)
    others = [f"bids:other:sub-01/ses-2/{name}.nii.gz", f"ses-1/{name}.nii.gz", "", None, 3, {}]
    assert not any(intended(other, run) for other in others)


@given(st.floats(1e-5, 2e-3), st.integers(16, 256))
def test_readout_time_follows_the_echo_spacing(spacing: float, lines: int) -> None:
    said = {"PhaseEncodingDirection": "j", "EffectiveEchoSpacing": spacing, "ReconMatrixPE": lines}
    assert readout_time(said, (8, 9, 7)) == pytest.approx(spacing * (lines - 1))
    del said["ReconMatrixPE"]
    assert readout_time(said, (8, lines, 7)) == pytest.approx(spacing * (lines - 1))
    assert readout_time({**said, "TotalReadoutTime": 0.05}, (8, 9, 7)) == 0.05


@pytest.mark.parametrize("value", ["y", "AP", 2, ""])
def test_a_direction_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(Unusable, match="not one of"):
        phase_encoding({"PhaseEncodingDirection": value})
    with pytest.raises(Unusable, match="not a duration in seconds"):
        readout_time({"TotalReadoutTime": 30}, (8, 8, 8))
