"""Engines: the table, what is asked of the machine, antspyx for real, command lines and formats of FSL and AFNI.

FSL and AFNI are in no package index: their programs never ran here. Their command lines are compared word for word, and
stand-ins that write the programs' file formats check what is read back.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from boldmill.errors import MachineFault
from boldmill.preprocess import engine_ants, engine_bold, engine_series, engine_tools, engines, toolmatrices
from boldmill.preprocess.anat_interfaces import BiasField
from boldmill.preprocess.anat_warp import BrainWarp
from boldmill.preprocess.config import EnginesConfig, PreprocessConfig
from boldmill.preprocess.coreg import Images
from boldmill.preprocess.denoise import noise_sigma
from boldmill.preprocess.frames import Frames
from boldmill.preprocess.images import RAS_TO_LPS, Grid, Volume, read_volume, write_volume
from boldmill.preprocess.motion import displacement, matrix_of
from boldmill.preprocess.series_io import save_series
from boldmill.preprocess.slicetiming import SliceTimes
from boldmill.preprocess.transforms import apply_affine, map_points, read_field, write_affine

from . import bold_phantom, phantom
from .test_anatomy import bulge

DOCS = Path(__file__).parents[3] / "docs"
BEGIN, END = "<!-- engines -->\n", "<!-- /engines -->"


def words(interface: Any) -> list[str]:
    """The command line, without the folders of its files."""
    return [Path(word).name if "/" in word else word for word in shlex.split(interface.cmdline)]


def test_the_table_has_every_value_of_the_settings_and_no_other() -> None:
    known = {(step, name) for step, field in EnginesConfig.model_fields.items() for name in get_args(field.annotation)}
    assert {(engine.step, engine.name) for engine in engines.ENGINES} == known
    assert len(engines.ENGINES) == len(known)


@pytest.mark.parametrize("engine", engines.ENGINES, ids=lambda e: f"{e.step}-{e.name}")
def test_engines_of_a_step_take_and_give_the_same(engine: engines.Engine) -> None:
    kind, default = engines.interface(engine.step, engine.name), engines.interface(engine.step, "boldmill")
    assert issubclass(kind, default)
    assert (kind.input_spec, kind.output_spec) == (default.input_spec, default.output_spec)


def test_the_docs_show_the_table() -> None:
    pages = [path.read_text() for path in sorted(DOCS.rglob("*.md")) if BEGIN in path.read_text()]
    assert pages
    for text in pages:
        assert text.partition(BEGIN)[2].partition(END)[0] == engines.table()


def test_an_absent_engine_stops_by_name_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    engines.check(PreprocessConfig())
    chosen = PreprocessConfig(engines=EnginesConfig(motion="fsl"))
    with pytest.raises(
        MachineFault, match=r"preprocess\.engines\.motion: fsl: mcflirt not on PATH.*install FSL.*: boldmill"
    ):
        engines.check(chosen)

    def gone(name: str) -> str:
        raise engines.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(engines.importlib.metadata, "version", gone)
    with pytest.raises(MachineFault, match=r"n4: ants: N4BiasFieldCorrection not on PATH, antspyx not installed"):
        engines.check(PreprocessConfig(engines=EnginesConfig(n4="ants")))


def test_the_version_of_a_wheel_is_part_of_what_a_step_depends_on(wheel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # programs go before the wheel
    assert engines.wheels(EnginesConfig()) == {}
    assert engines.wheels(EnginesConfig(motion="ants", brain_mask="fsl")) == {"motion": f"antspyx {wheel.__version__}"}


def test_manifests_say_who_did_what() -> None:
    said = engines.described(EnginesConfig(n4="ants"), ("n4", "tissue"))
    assert said["tissue"].startswith("boldmill: ")
    assert said["n4"].startswith("ants: N4BiasFieldCorrection")


# ---- ANTs, by the wheel -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel() -> Any:
    if os.environ.get("CI"):
        import ants

        return ants
    return pytest.importorskip("ants")


def test_ants_n4_agrees_with_the_default(wheel: Any, tmp_path: Path) -> None:
    clean = phantom.volume("t1w")
    x = phantom.GRID.points().reshape(*phantom.GRID.shape, 3)
    bias = np.exp(0.35 * np.sin(x[..., 0] / 90 + 0.5) + 0.25 * np.sin(x[..., 2] / 110)).astype(np.float32)
    path = write_volume(tmp_path / "t1w.nii", clean.data * bias, clean.affine)
    white = phantom.volume("wm").data > 0.95

    def spread(kind: type) -> float:
        folder = tmp_path / kind.__name__
        folder.mkdir()
        out = kind(t1w=str(path), iterations=[50, 50, 50], grid=8.0).step(folder)
        values = read_volume(out["t1w"]).data[white]
        return float(values.std() / values.mean())

    before = (clean.data * bias)[white]
    ours, theirs = spread(BiasField), spread(engine_ants.AntsBiasField)
    assert theirs < 0.7 * before.std() / before.mean()
    assert abs(theirs - ours) < 0.03


def test_ants_denoises_and_leaves_an_extracted_brain_extracted(wheel: Any, tmp_path: Path) -> None:
    truth, brain = phantom.volume("t1w"), phantom.volume("brain").data > 0.5
    noisy = np.abs(truth.data + np.random.default_rng(1).normal(0, 6, truth.data.shape)).astype(np.float32)
    path = write_volume(tmp_path / "t1w.nii", np.where(brain, noisy, 0), truth.affine)
    out = read_volume(engine_ants.AntsDenoise(t1w=str(path)).step(tmp_path / "")["t1w"]).data
    inner = phantom.volume("wm").data > 0.95
    assert np.abs(out - truth.data)[inner].mean() < 0.8 * np.abs(noisy - truth.data)[inner].mean()
    assert not out[~brain].any()
    assert noise_sigma(out, inner) < noise_sigma(noisy, inner)


def test_ants_warp_is_read_in_the_direction_of_the_contract(wheel: Any, tmp_path: Path) -> None:
    points = phantom.GRID.points()
    back = points.copy()
    for _ in range(30):
        back -= bulge(back) - points

    def at(values: np.ndarray) -> Volume:
        return Volume(values.reshape(phantom.GRID.shape).astype(np.float32), phantom.GRID.affine)

    move = phantom.rigid((4, 0, 3), (5, -6, 4))  # an affine part that must be found, too

    def subject(values: Any) -> Volume:
        there = apply_affine(np.linalg.inv(move), points)
        inverse = there.copy()
        for _ in range(30):
            inverse -= bulge(inverse) - there
        return at(values(inverse))

    inside = phantom.volume("brain").data > 0.5
    images = {
        "head": phantom.volume("t1w"), "template_mask": at(inside.ravel()), "t1w": subject(phantom.t1w),
        "mask": subject(lambda p: phantom.parts(p)["brain"] > 0.5),
    }  # fmt: skip
    given = {k: str(write_volume(tmp_path / f"{k}.nii", v.data, v.affine)) for k, v in images.items()}
    affine = str(write_affine(tmp_path / "affine.txt", np.eye(4)))
    brain = points[inside.ravel()]
    truth = apply_affine(move, bulge(brain))
    error = {}
    for kind in (BrainWarp, engine_ants.AntsBrainWarp):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        out = kind(**given, affine=affine, extracted=False, iterations=[40, 10], sigma_diff=2.0).step(folder)
        there = map_points(read_field(out["to_subject"]), brain)
        error[kind] = np.linalg.norm(there - truth, axis=1).mean()
        assert np.linalg.norm(map_points(read_field(out["to_template"]), there) - brain, axis=1).mean() < 0.4
        assert out["figures"]["folded_voxels"] == 0 and out["figures"]["template_mask_dice"] > 0.97
    assert error[engine_ants.AntsBrainWarp] < 2.0 < np.linalg.norm(truth - brain, axis=1).mean()
    assert error[engine_ants.AntsBrainWarp] < error[BrainWarp] + 0.8


@pytest.fixture(scope="module")
def moved() -> tuple[Grid, np.ndarray, np.ndarray]:
    """An oblique LAS run of five volumes at known positions."""
    grid = bold_phantom.oblique_las((28, 32, 26), 6.0)
    positions = bold_phantom.movements(5, size=1.0)
    return grid, positions, bold_phantom.run(grid, positions, noise=4.0)


def motion_error(found: np.ndarray, positions: np.ndarray, grid: Grid) -> float:
    inside = bold_phantom.draw(grid, lambda p: bold_phantom.tissues(p)["brain"]).data.ravel() > 0.5
    still = int(np.argmin([np.abs(m - np.eye(4)).max() for m in found]))
    truth = positions @ np.linalg.inv(positions[still])
    off = np.linalg.inv(truth) @ found
    return float(displacement(off, grid.points()[inside]).mean())


def test_ants_motion_is_that_of_the_truth(wheel: Any, moved: Any, tmp_path: Path) -> None:
    grid, positions, series = moved
    frames = Frames(save_series(tmp_path / "series.npy", series))
    align = engine_bold.AntsMotion().aligner(frames, grid, tmp_path)
    assert motion_error(align(frames.volume(0)), positions, grid) < 0.25


def test_ants_coregistration_is_that_of_the_truth(wheel: Any, tmp_path: Path) -> None:
    pose = matrix_of(np.array([6.0, -5, 4, 0.06, -0.05, 0.08]), bold_phantom.CENTRE)  # T1w world to BOLD world
    anat, func = bold_phantom.ras(3.0), bold_phantom.oblique_las()
    draw = bold_phantom.draw
    white, grey = (draw(anat, lambda p, k=k: bold_phantom.tissues(p)[k]) for k in ("wm", "gm"))
    ref = draw(func, bold_phantom.bold, pose)
    images = Images(ref, ref.like(ref.data > 300), draw(anat, bold_phantom.t1w), white, grey)
    found = engine_bold.AntsCoregister(key=["x"]).register(images, tmp_path)
    points = anat.points()[(white.data > 0.5).ravel()]
    assert displacement((np.linalg.inv(pose) @ found.matrix)[None], points)[0] < 1.0
    assert (found.method, found.flags) == ("ants", []) and found.cost < 0.9


# ---- command lines ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / f"{name}.nii" for name in ("t1w", "series", "target", "brain", "white", "start")}
    for path in made.values():
        path.write_bytes(b"x")
    return made


def test_command_lines_of_ants(files: dict[str, Path], tmp_path: Path) -> None:
    given = {"t1w": str(files["t1w"])}
    assert words(engine_ants.AntsDenoise(**given).interface(tmp_path)) == shlex.split(
        "DenoiseImage -d 3 -i t1w.nii -n Rician -o denoised.nii -s 1"
    )
    n4 = engine_ants.AntsBiasField(**given, iterations=[50, 40], grid=4.0)
    assert words(n4.interface(tmp_path, files["white"], 4)) == shlex.split(
        "N4BiasFieldCorrection -d 3 --input-image t1w.nii --mask-image white.nii --convergence [ 50x40, 1e-07 ] "
        "--output n4.nii --shrink-factor 4"
    )
    run = engine_ants.registration(
        files["brain"], files["t1w"], files["start"], tmp_path, stages=["Affine", "SyN"], syn=[50, 50, 10]
    )
    line = run.cmdline.replace(f"{tmp_path}/", "")
    for part in (
        "antsRegistration --collapse-output-transforms 1 --dimensionality 3 --float 1",
        "--initial-moving-transform [ start.nii, 0 ]",
        "--output ants_ --random-seed 1",
        "--transform Affine[ 0.1 ] --metric Mattes[ brain.nii, t1w.nii, 1, 32, None ]",
        "--convergence [ 100x50, 1e-06, 10 ]",
        "--transform SyN[ 0.2, 3.0, 0.0 ]",
        "--convergence [ 50x50x10, 1e-06, 10 ] --smoothing-sigmas 2.0x1.0x0.0vox --shrink-factors 4x2x1",
        "--write-composite-transform 0",
    ):
        assert part in line


def test_command_lines_of_fsl(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t1w = str(files["t1w"])
    assert words(engine_tools.BetMask(t1w=t1w).interface(tmp_path)) == ["bet", "t1w.nii", "bet.nii", "-m", "-R"]
    fast = engine_tools.FastTissue(t1w=t1w).interface(tmp_path, files["brain"])
    assert words(fast) == shlex.split("fast -t 1 -N -n 3 -o fast -S 1 brain.nii")
    mcflirt = engine_bold.McflirtMotion().interface(files["series"], files["target"], tmp_path)
    assert words(mcflirt) == shlex.split("mcflirt -in series.nii -out mcflirt.nii -reffile target.nii -mats")
    assert mcflirt.inputs.environ["FSLOUTPUTTYPE"] == "NIFTI"
    flirt = engine_bold.FlirtCoregister()
    monkeypatch.delenv("FSLDIR", raising=False)
    with pytest.raises(MachineFault, match="FSLDIR is not set"):
        flirt.interfaces(files["series"], files["brain"], files["white"], tmp_path)
    schedule = tmp_path / "fsl" / "etc" / "flirtsch" / "bbr.sch"
    schedule.parent.mkdir(parents=True)
    schedule.write_text("x")
    (tmp_path / "first.mat").write_text("x")
    monkeypatch.setenv("FSLDIR", str(tmp_path / "fsl"))
    first, second = flirt.interfaces(files["series"], files["brain"], files["white"], tmp_path)
    assert words(first) == shlex.split("flirt -in series.nii -ref brain.nii -out first.nii -omat first.mat -dof 6")
    assert words(second) == shlex.split(
        "flirt -in series.nii -ref brain.nii -out bbr.nii -omat bbr.mat -cost bbr -dof 6 -init first.mat "
        "-schedule bbr.sch -wmseg white.nii"
    )


def test_command_lines_of_afni(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # 3dTshift's slice times are a file of the working folder
    strip = engine_tools.SkullStripMask(t1w=str(files["t1w"])).interface(tmp_path)
    assert words(strip) == shlex.split("3dSkullStrip -input t1w.nii -orig_vol -prefix stripped.nii")
    volreg = engine_bold.VolregMotion().interface(files["series"], files["target"], tmp_path)
    assert words(volreg) == shlex.split(
        "3dvolreg -1Dfile volreg.1D -1Dmatrix_save volreg.aff12.1D -prefix volreg.nii -base target.nii -zpad 4 "
        "-maxdisp1D volreg_md.1D series.nii"
    )
    assert words(engine_series.despike_interface(files["series"], tmp_path)) == shlex.split(
        "3dDespike -prefix despiked.nii series.nii"
    )
    timing = SliceTimes(np.array([0.0, 1.0, 0.5]), 2, 0.5)
    assert words(engine_series.tshift_interface(files["series"], timing, 2.0, tmp_path)) == shlex.split(
        "3dTshift -Fourier -prefix shifted.nii -tpattern @slice_timing.1D -TR 2s -tzero 0.5 series.nii"
    )
    assert [float(t) for t in (tmp_path / "slice_timing.1D").read_text().split()] == [0.0, 1.0, 0.5]


# ---- formats ------------------------------------------------------------------------------------------------------


def stand_in(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program on PATH that writes what the real one would."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / name
    program.write_text(f"#!/bin/sh\nset -e\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def fsl_coordinates(grid: Grid, index: np.ndarray) -> np.ndarray:
    """FSL's scaled mm by its documentation: voxel sizes, the first axis counted from the other end if right-handed."""
    index = np.asarray(index, dtype=float).copy()
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        index[:, 0] = grid.shape[0] - 1 - index[:, 0]
    return index * grid.zooms


@pytest.mark.parametrize("mirrored", [False, True])
def test_flirt_matrices_become_world_matrices(mirrored: bool) -> None:
    """The matrix is fitted to point pairs in FSL's coordinates, as FLIRT would report it."""
    bold = bold_phantom.oblique_las((20, 24, 18), 5.0)  # left-handed
    anat = bold_phantom.ras(2.0)  # right-handed
    if mirrored:
        anat = Grid(anat.shape, anat.affine @ np.diag([-1.0, 1, 1, 1]))
    world = matrix_of(np.array([5.0, -3, 8, 0.1, -0.2, 0.15]), bold_phantom.CENTRE)  # BOLD world to T1w world
    index = np.random.default_rng(0).uniform(0, 17, (30, 3))
    there = apply_affine(np.linalg.inv(anat.affine) @ world @ bold.affine, index)
    source, target = fsl_coordinates(bold, index), fsl_coordinates(anat, there)
    flirt = np.eye(4)
    flirt[:3] = np.linalg.lstsq(np.c_[source, np.ones(30)], target, rcond=None)[0].T
    np.testing.assert_allclose(toolmatrices.from_fsl(flirt, bold, anat), world, atol=1e-8)
    np.testing.assert_allclose(toolmatrices.to_fsl(world, bold, anat), flirt, atol=1e-8)
    assert abs(np.linalg.det(flirt[:3, :3]) - 1) < 1e-6 or not mirrored


def test_mcflirt_runs_and_its_matrices_are_the_motion(
    moved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, positions, series = moved
    ready = tmp_path / "ready"
    ready.mkdir()
    for t, position in enumerate(positions):  # a volume at W has the matrix of inv(W): from the volume to the reference
        np.savetxt(ready / f"MAT_{t:04d}", toolmatrices.to_fsl(np.linalg.inv(position), grid, grid), fmt="%.8f")
    stand_in(tmp_path, "mcflirt", f'mkdir -p "$4.mat"; cp {ready}/MAT_* "$4.mat"; cp "$2" "$4"', monkeypatch)
    frames = Frames(save_series(tmp_path / "series.npy", series))
    found = engine_bold.McflirtMotion().aligner(frames, grid, tmp_path)(frames.volume(0))
    np.testing.assert_allclose(found, positions, atol=1e-5)
    written = read_volume(tmp_path / "series.nii", ndim=4)  # what the program was shown
    np.testing.assert_array_equal(written.data, series)
    np.testing.assert_allclose(written.affine, grid.affine, atol=1e-4)
    (ready / "MAT_0004").unlink()
    with pytest.raises(MachineFault, match="4 matrices for 5 volumes"):
        toolmatrices.read_mcflirt(ready, 5, grid)


def test_volreg_runs_on_a_plumb_copy_and_its_matrices_are_the_motion(
    moved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, positions, series = moved
    straight = toolmatrices.plumb(grid)
    across = straight.affine @ np.linalg.inv(grid.affine)
    rows = []
    for position in positions:  # base to input, in DICOM coordinates of the plumb copy
        dicom = RAS_TO_LPS @ across @ position @ np.linalg.inv(across) @ RAS_TO_LPS
        rows.append(dicom[:3].ravel())
    np.savetxt(tmp_path / "ready.1D", rows, header="3dvolreg matrices (DICOM-to-DICOM, row-by-row):")
    stand_in(tmp_path, "3dvolreg", f'cp {tmp_path}/ready.1D "$4"; : > "$2"; : > "$6"; : > "${{12}}"', monkeypatch)
    frames = Frames(save_series(tmp_path / "series.npy", series))
    found = engine_bold.VolregMotion().aligner(frames, grid, tmp_path)(frames.volume(0))
    np.testing.assert_allclose(found, positions, atol=1e-6)
    assert np.abs(np.linalg.det(found[:, :3, :3]) - 1).max() < 1e-6


def test_external_motion_makes_the_same_reference(moved: Any, tmp_path: Path) -> None:
    grid, positions, series = moved

    class Known(engine_bold.ExternalMotion):
        def aligner(self, series: Frames, grid: Grid, folder: Path) -> Any:
            return lambda target: positions

    frames = Frames(save_series(tmp_path / "series.npy", series))
    for target in ("median", "mean"):
        found = Known(target=target).estimate(frames, grid, tmp_path)
        assert found.image.shape == grid.shape and found.mask.any()
        assert (found.index is None) == (target == "mean")
        sharp = bold_phantom.draw(grid, bold_phantom.bold).data
        assert np.corrcoef(found.image[found.mask], sharp[found.mask])[0, 1] > 0.98


def test_afni_slices_are_turned_to_the_third_axis_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = np.random.default_rng(2).random((4, 5, 6, 7)).astype(np.float32)
    frames = Frames(save_series(tmp_path / "series.npy", np.asfortranarray(series)))
    stand_in(tmp_path, "3dTshift", 'cp "${10}" "$3"', monkeypatch)
    monkeypatch.chdir(tmp_path)
    timing = SliceTimes(np.linspace(0, 1, 4), 0, 0.5)
    made = engine_series.afni_slice_timed(frames, timing, 2.0, tmp_path / "out.npy")
    np.testing.assert_array_equal(made[..., range(7)], series)
    shown = read_volume(tmp_path / "afni_in.nii", ndim=4)
    np.testing.assert_array_equal(shown.data, np.swapaxes(series, 0, 2))
    assert shown.tr == 2.0


def test_outputs_on_another_grid_are_brought_back_and_missing_ones_named(tmp_path: Path) -> None:
    head = phantom.volume("t1w")
    flipped = Volume(
        head.data[::-1], head.affine @ np.array([[-1.0, 0, 0, 45], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    path = write_volume(tmp_path / "flipped.nii", flipped.data, flipped.affine)
    np.testing.assert_allclose(engine_tools.on_grid(path, head), head.data, atol=1e-3)
    with pytest.raises(MachineFault, match="left no output"):
        engine_tools.on_grid(tmp_path / "none.nii", head)


def test_bet_and_fast_outputs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, brain = phantom.volume("t1w"), phantom.volume("brain")
    ready = {name: write_volume(tmp_path / f"ready_{name}.nii", phantom.volume(name).data, head.affine)
             for name in ("csf", "gm", "wm")}  # fmt: skip
    mask = write_volume(tmp_path / "ready_mask.nii", brain.data > 0.5, head.affine, dtype="uint8")
    t1w = write_volume(tmp_path / "t1w.nii", head.data, head.affine)
    stand_in(tmp_path, "bet", f'cp {mask} "$(dirname $2)/bet_mask.nii"', monkeypatch)
    found = engine_tools.BetMask(t1w=str(t1w), extracted=False).find(head, tmp_path)
    np.testing.assert_array_equal(found, brain.data > 0.5)
    copies = "; ".join(f'cp {ready[name]} "$7_pve_{k}.nii"' for k, name in enumerate(("csf", "gm", "wm")))
    copies += '; for more in seg mixeltype pveseg; do : > "$7_$more.nii"; done'
    stand_in(tmp_path, "fast", copies, monkeypatch)
    inside = brain.data > 0.5
    parts = engine_tools.FastTissue().classify(head, inside, tmp_path)
    np.testing.assert_allclose(parts.sum(axis=1), 1, atol=1e-5)
    whole = np.stack([phantom.volume(name).data[inside] for name in ("csf", "gm", "wm")], axis=1)
    np.testing.assert_allclose(parts, whole / whole.sum(axis=1, keepdims=True), atol=1e-4)
