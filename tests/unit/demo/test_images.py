"""What lies on disk: valid BIDS, headers and sidecars, bad scans, and voxels that agree with the written truth."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from boldmill.atomic import read_json
from boldmill.demo import bold, build, geometry, motion, physiology, signals
from boldmill.demo import cohort as who
from boldmill.demo.parameters import parameters


def find_validator():
    beside = Path(sys.executable).with_name("bids-validator-deno")
    return str(beside) if beside.is_file() else shutil.which("bids-validator-deno")


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_bytes_twice(tmp_path, tiny, head, centroids, cohort):
    """One subject drawn again, in this process, has the same bytes as in the cohort built by worker processes."""
    people = who.subjects(tiny)
    head.save(tmp_path / build.HEAD)
    build.write_subject(tmp_path, tiny, people[0], signals.planted_edges(tiny, centroids))
    for folder in ("bids", "truth"):
        again = digest(tmp_path / folder / "sub-01")
        assert again and again == digest(cohort / folder / "sub-01")


def test_another_seed_is_another_cohort(head, tiny, centroids):
    other = parameters(tiny=True, volumes=24, seed=2)
    assert who.subjects(other) != who.subjects(tiny)
    assert signals.planted_edges(other, centroids) != signals.planted_edges(tiny, centroids)


def test_manifest_and_second_call(cohort, tiny):
    stored = read_json(cohort / build.MANIFEST)
    assert stored["good_scans"] == sorted(run.scan_id for run in who.good_runs(tiny))
    assert build.is_current(cohort, tiny)
    assert not build.is_current(cohort, parameters(tiny=True, real=False, volumes=25))
    victim = cohort / "truth" / "effects.json"
    kept = victim.read_bytes()
    victim.write_bytes(kept[:-1])
    assert not build.is_current(cohort, tiny)
    victim.write_bytes(kept)


def test_a_folder_of_someone_else_is_left_alone(tmp_path, tiny):
    from boldmill.errors import ConfigError

    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        build.build(tmp_path, tiny)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def good_images(root, p):
    for run in who.good_runs(p):
        yield run, root / "bids" / run.folder / f"{run.stem}_bold.nii.gz"


def test_headers_and_sidecars(cohort, tiny):
    people = {s.label: s for s in who.subjects(tiny)}
    for run, path in good_images(cohort, tiny):
        image = nib.load(path)
        sidecar = read_json(path.with_name(f"{run.stem}_bold.json"))
        assert image.get_data_dtype() == np.int16 and image.dataobj.slope not in (0, 1)
        assert image.shape[3] == tiny.volumes
        assert_allclose(image.header.get_zooms(), (*[tiny.bold_mm] * 3, tiny.tr), rtol=1e-5)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        assert sidecar["RepetitionTime"] == tiny.tr
        assert len(sidecar["SliceTiming"]) == image.shape[2] and max(sidecar["SliceTiming"]) < tiny.tr
        assert {"EchoTime", "PhaseEncodingDirection"} <= set(sidecar)
        oblique = np.abs(image.affine[:3, :3] / tiny.bold_mm).max(axis=0).min() < 0.999
        assert oblique == (people[run.subject].site == "B")
        assert path.read_bytes()[4:8] == b"\0\0\0\0", "gzip header without a time"
    assert read_json(cohort / "bids" / "task-rest_bold.json")["TaskName"] == "rest"


def test_t1w_images(cohort, tiny):
    files = sorted((cohort / "bids").rglob("*_T1w.nii.gz"))
    assert len(files) == tiny.subjects
    codes = {"".join(nib.aff2axcodes(nib.load(path).affine)) for path in files}
    assert codes == {"RAS", "PSR"}
    for path in files:
        values = np.asarray(nib.load(path).dataobj)
        assert values.min() >= 0 and 500 < np.percentile(values, 99) < 3000


def test_voxels_carry_the_signal_of_their_parcel_at_their_slice_time(head, centroids):
    """A run without motion or noise: every cortical voxel is, up to scale, the analytic signal at its slice's time."""
    from boldmill.demo.anat import build_anatomy

    p = parameters(tiny=True, volumes=30)
    person = who.subjects(p)[1]
    anatomy = build_anatomy(p, head, person)
    mixing = signals.subject_mixing(p, person, signals.planted_edges(p, centroids), centroids)
    run = who.good_runs(p)[1]
    spectrum = signals.run_spectrum(p, mixing, run.stem)
    drawn = bold.draw_run(p, person, anatomy, run, spectrum)
    quiet = physiology.Physiology(breath=np.zeros(9), beat=np.zeros(9), slow=np.zeros((3, 1)))
    still = bold.Truth(
        motion=np.zeros_like(drawn.truth.motion),
        centre=drawn.truth.centre,
        pose=drawn.truth.pose,
        labels=drawn.truth.labels,
        slice_times=drawn.truth.slice_times,
        spectrum=spectrum,
    )

    values = bold._volumes(p, anatomy, still, quiet, drawn.affine, np.random.default_rng(0), 0.0)
    time = np.linspace(-1, 1, p.volumes)
    trend = np.stack([np.ones_like(time), time, time**2], axis=1)
    keep = np.linalg.qr(trend)[0]
    checked = 0
    for index in np.argwhere(drawn.truth.labels > 0)[::7]:
        parcel, k = drawn.truth.labels[tuple(index)], index[2]
        course = values[tuple(index)].astype(float)
        expected = spectrum.at(np.arange(p.volumes) * p.tr + still.slice_times[k])[:, parcel - 1]
        course, expected = (v - keep @ (keep.T @ v) for v in (course, expected))
        if course.std() > 2e-3 * values[tuple(index)].mean():
            assert np.corrcoef(course, expected)[0, 1] > 0.995
            checked += 1
    assert checked > 150


def test_parcel_means_follow_the_written_truth(cohort, tiny):
    """From the files alone: parcel means of the raw run, detrended, against the written signals."""
    run, path = next(good_images(cohort, tiny))
    folder = cohort / "truth" / f"sub-{run.subject}"
    values = nib.load(path).get_fdata()
    labels = np.asarray(nib.load(folder / f"{run.stem}_desc-parcels_dseg.nii.gz").dataobj)
    with np.load(folder / f"{run.stem}_desc-signals_truth.npz", allow_pickle=False) as stored:
        truth, fc = stored["signals"], stored["fc"]
        spectrum = signals.Spectrum(**{name: stored[name] for name in ("frequencies", "cosine", "sine")})
        assert_allclose(spectrum.at(stored["times"]), truth, atol=1e-9)
    assert_allclose(np.corrcoef(truth.T), fc, atol=1e-12)
    table = np.loadtxt(folder / f"{run.stem}_desc-motion_truth.tsv", skiprows=1)
    assert_allclose(motion.displacement(table[:, :6]), table[:, 6], rtol=1e-5)
    time = np.linspace(-1, 1, len(truth))
    nuisance = np.linalg.qr(np.column_stack([np.ones_like(time), time, time**2, table[:, :6]]))[0]
    correlations = []
    for parcel in range(1, 101):
        if (labels == parcel).sum() >= 8:
            pair = [values[labels == parcel].mean(0), truth[:, parcel - 1]]
            pair = [v - nuisance @ (nuisance.T @ v) for v in pair]
            correlations.append(np.corrcoef(*pair)[0, 1])
    assert len(correlations) > 80 and np.median(correlations) > 0.8


def test_written_motion_moves_the_image(cohort, tiny):
    """Aligning the most displaced volume by the written motion makes it more like the least displaced one."""
    from scipy import ndimage

    run, path = next(good_images(cohort, tiny))
    folder = cohort / "truth" / f"sub-{run.subject}"
    table = np.loadtxt(folder / f"{run.stem}_desc-motion_truth.tsv", skiprows=1)
    centre = np.array(read_json(folder / f"{run.stem}_desc-pose_truth.json")["centre"])
    image = nib.load(path)
    values, affine = image.get_fdata(), image.affine
    moved = motion.matrices(table[:, :6], centre)
    rest, far = int(table[:, 6].argmin()), int(table[:, 6].argmax())
    relative = moved[far] @ np.linalg.inv(moved[rest])

    def residual(matrix):
        pull = np.linalg.inv(affine) @ matrix @ affine
        aligned = ndimage.affine_transform(values[..., far], pull[:3, :3], pull[:3, 3], order=3)
        inner = (slice(4, -4),) * 3
        return np.sqrt(((aligned - values[..., rest])[inner] ** 2).mean())

    assert residual(relative) < 0.8 * residual(np.eye(4))
    assert residual(relative) < 0.8 * residual(np.linalg.inv(relative))


def test_written_fields_are_inverse_to_each_other(cohort, head):
    folder = cohort / "truth" / "sub-01"

    def field(name):
        image = nib.load(folder / f"sub-01_{name}_displacement.nii.gz")
        assert image.shape[3:] == (1, 3)
        return image.get_fdata().squeeze(), image.affine

    forward, backward = field("from-template_to-T1w"), field("from-T1w_to-template")
    points = geometry.apply(head.affine, np.argwhere(head.mask[::6, ::6, ::6] > 0) * 6.0)

    def move(x, given):
        values, affine = given
        return x + np.stack([geometry.sample(values[..., axis], affine, x) for axis in range(3)], axis=-1)

    error = np.linalg.norm(move(move(points, forward), backward) - points, axis=1)
    assert error.mean() < 0.1 and error.max() < 0.5


def test_bad_scans_are_bad_and_listed(cohort, tiny):
    runs = who.bad_runs(tiny)
    paths = {k: cohort / "bids" / r.folder / f"{r.stem}_bold.nii.gz" for k, r in runs.items()}
    with pytest.raises((EOFError, zlib.error)):
        gzip.decompress(paths["truncated"].read_bytes())
    assert "RepetitionTime" in read_json(paths["truncated"].with_name(f"{runs['truncated'].stem}_bold.json"))
    assert "RepetitionTime" not in read_json(paths["no_tr"].with_name(f"{runs['no_tr'].stem}_bold.json"))
    assert nib.load(paths["no_tr"]).header["pixdim"][4] == 0
    assert nib.load(paths["short"]).shape[3] == 5
    rows = [line.split("\t") for line in (cohort / "truth" / "bad_scans.tsv").read_text().splitlines()]
    assert rows[0] == ["scan_id", "path", "fault", "reason_keyword"]
    assert {row[0]: row[3] for row in rows[1:]} == {
        runs["truncated"].scan_id: "truncated",
        runs["no_tr"].scan_id: "RepetitionTime",
        runs["short"].scan_id: "volumes",
    }
    assert all((cohort / "bids" / row[1]).is_file() for row in rows[1:])


def test_template_folder(cohort):
    manifest = read_json(cohort / "template" / "template.json")
    assert manifest["space"] == "MNI152NLin2009aSym"
    images = {name: nib.load(cohort / "template" / path) for name, path in manifest["files"].items()}
    assert set(images) == {"head", "brain_mask", "gm", "wm", "csf"}
    affine = images["head"].affine
    assert_allclose(np.diag(affine)[:3], 2.0)
    values = {name: image.get_fdata() for name, image in images.items()}
    assert all((image.affine == affine).all() for image in images.values())
    assert {value.shape for value in values.values()} == {values["head"].shape}
    means = {t: (values["head"] * values[t]).sum() / values[t].sum() for t in ("wm", "gm", "csf")}
    assert means["wm"] > means["gm"] > means["csf"]


def test_the_good_part_is_valid_bids(tmp_path, cohort, tiny):
    validator = find_validator()
    if validator is None:
        assert not os.environ.get("CI"), "bids-validator-deno must be installed in CI"
        pytest.skip("bids-validator-deno is not installed")
    shutil.copytree(cohort / "bids", tmp_path / "bids")
    for run in who.bad_runs(tiny).values():
        for path in (tmp_path / "bids" / run.folder).glob(f"{run.stem}_bold.*"):
            path.unlink()
    done = subprocess.run(
        [validator, str(tmp_path / "bids"), "--ignoreWarnings"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
