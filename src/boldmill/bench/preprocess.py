"""Preprocessing of the phantom, raw files to cleaned series, against its truth and beside the peers.

One run makes every figure: the phantom is drawn, ``boldmill preprocess`` runs on it in a child process, its derivatives
are compared with the truth, and the peers get the same images. CPU-seconds count all threads; memory is the peak of the
child. One phantom and one seed, and the subject is a warped template: figures compare engines, they do not carry over.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.bench import phantom, phantom_bold
from boldmill.bench import preprocess_peers as peers
from boldmill.bench import preprocess_run as child
from boldmill.bench import preprocess_truth as against
from boldmill.bench.table import Row

OPTIONS = ("quick", "long")
GIB = 2.0**30
SHORT_CLEAN = {"clean": {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None}}
"""Cleaning that 24 volumes have degrees of freedom for."""
TIMING_BANDS = ((0.01, 0.1), (0.1, 0.2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A drawn and preprocessed phantom with everything the rows read."""

    spec: phantom.Spec
    shape: phantom.Shape
    truth: phantom_bold.RunTruth
    outcome: child.Outcome
    root: Path


def measure(repeats: int, *, quick: bool = False, long: bool = False) -> list[Row]:
    """Return the rows of the table.

    Parameters
    ----------
    repeats : int
        Not used: every figure is a count of CPU-seconds or an error against the truth.
    quick : bool
        A smaller phantom (2 mm T1w, 24 volumes of 4 mm), fewer peer volumes, no second run.
    long : bool
        Also the memory of a run of 1,200 volumes of 2 mm.
    """
    from boldmill.preprocess.n4 import one_thread

    one_thread(1)
    spec = phantom.QUICK if quick else phantom.FULL
    with tempfile.TemporaryDirectory(prefix="boldmill-bench-") as folder:
        root = Path(folder)
        _say(f"drawing the phantom ({spec.t1w_mm:g} mm T1w, {spec.volumes} volumes of {spec.bold_mm:g} mm)")
        shape = phantom.write_dataset(root, spec)
        truth = phantom_bold.write_run(root, spec, shape)
        config = child.prepare(root, SHORT_CLEAN if quick else None)
        _say("boldmill preprocess")
        outcome = child.preprocess(root, config)
        case = Case(spec=spec, shape=shape, truth=truth, outcome=outcome, root=root)
        rows = [*motion_rows(case, 2 if quick else 8), *coregistration_rows(case), *anatomy_rows(case)]
        rows += [*timing_rows(spec), *whole_rows(case)]
        if quick:  # the goals are those of the full phantom
            rows = [replace(row, goal="", met=None) for row in rows]
        else:
            _say("boldmill preprocess, a second time")
            rows.append(rerun_row(case, child.preprocess(root, config, "again")))
        if long:
            rows.append(long_row(shape))
    return rows


def motion_rows(case: Case, count: int) -> list[Row]:
    """Motion: error over all volumes and CPU-s per volume; each peer on ``count`` evenly spread volumes."""
    from boldmill.preprocess.images import Volume, read_volume
    from boldmill.preprocess.reference import epi_mask, estimate

    _say("motion: ours and the peers")
    raw = read_volume(case.root / "bids" / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz", ndim=4)
    series = Volume(np.asfortranarray(raw.data), raw.affine)  # time outermost: one volume is one read
    points = against.rest_points(case.shape, case.truth)
    matrices = np.loadtxt(case.outcome.run["hmc"]).reshape(-1, 4, 4)
    start = against.reference_volume(matrices, points)
    wrong = against.motion_errors(matrices, case.truth, points, start)
    mask = epi_mask(np.median(series.data[..., ::8], axis=3), series.affine)  # also imports what estimate needs
    used = peers.timed(lambda: estimate(series.data, series.affine))[1] / case.spec.volumes
    rows = [
        _goal("motion, mean error over the brain, all volumes", float(wrong.mean()), "mm", 0.10),
        _goal("motion, largest error of a volume", float(wrong.max()), "mm", 0.20),
        _goal("motion, CPU per volume (reference image included)", used, "CPU-s", 0.03),
    ]
    picks = [int(t) for t in np.linspace(0, case.spec.volumes - 1, count + 2)[1:-1]]
    fixed = Volume(np.asarray(series.data[..., start]), series.affine)

    def volume(t: int) -> Any:
        return np.asarray(series.data[..., t])

    def single(call: Callable[..., tuple[Any, float]], chosen: Sequence[int], *more: Any) -> tuple[Any, float]:
        found = [call(fixed, Volume(volume(t), series.affine), *more) for t in chosen]
        return np.stack([matrix for matrix, _ in found]), sum(cost for _, cost in found)

    few = picks[:2]
    offers: dict[str, tuple[str, list[int], Callable[[], tuple[Any, float]]]] = {
        "SimpleITK Versor, mean squares": ("SimpleITK", picks, lambda: single(peers.itk_rigid, picks, mask)),
        "antspyx motion_correction": ("ants", picks, lambda: peers.ants_motion(volume, picks, fixed)),
        "dipy rigid, mutual information": ("dipy", few, lambda: single(peers.dipy_rigid, few)),
    }
    for name, (module, chosen, call) in offers.items():
        title = f"motion, mean error, {len(chosen)} volumes (peer: {name})"
        if not peers.installed(module):
            rows.append(_absent(title, module, float(wrong[chosen].mean()), "mm"))
            continue
        found, cost = call()
        moved = replace(case.truth, motion=case.truth.motion[[start, *chosen]])
        errors = against.motion_errors(np.concatenate([np.eye(4)[None], found]), moved, points, 0)[1:]
        rows.append(_beside(title, float(wrong[chosen].mean()), float(errors.mean()), "mm"))
        rows.append(_beside(f"motion, CPU per volume (peer: {name})", used, cost / len(chosen), "CPU-s"))
    return rows


def coregistration_rows(case: Case) -> list[Row]:
    """BOLD to T1w: ours from the whole run; peers by mutual information of the reference and the brain at 2 mm."""
    from boldmill.preprocess.foreground import block_mean
    from boldmill.preprocess.images import Volume, read_volume
    from boldmill.preprocess.reference import epi_mask
    from boldmill.preprocess.transforms import apply_affine, sample

    _say("coregistration: the peers")
    points = against.rest_points(case.shape, case.truth)
    matrices = np.loadtxt(case.outcome.run["hmc"]).reshape(-1, 4, 4)
    start = against.reference_volume(matrices, points)

    def error(matrix: Any) -> float:
        return against.coregistration_error(matrix, case.truth, case.shape, start)

    ours = error(np.loadtxt(case.outcome.run["coreg"]))
    rows = [_goal("coregistration, mean error over the brain", ours, "mm", 0.15)]
    reference = read_volume(case.outcome.run["boldref_native"])
    t1w, inside = (read_volume(case.outcome.anat[key]) for key in ("t1w", "t1w_mask"))
    brain = block_mean(t1w.like(np.where(inside.data > 0.5, t1w.data, np.float32(0))), 2.0)
    mask = epi_mask(reference.data, reference.affine)
    # antspyx has no mask of the moving image: it gets the true brain (with the head's own mask it ends .8 mm off).
    true = read_volume(case.root / "truth" / "brain_mask.nii.gz")
    pose = np.linalg.inv(case.truth.motion[start] @ case.truth.pose)
    own = sample(true, apply_affine(pose, reference.grid.points())).reshape(reference.data.shape) > 0.5
    masked = Volume(np.where(own, reference.data, np.float32(0)), reference.affine)

    def ants_rigid(fixed: Volume, moving: Volume) -> tuple[Any, float]:
        matrix, used = peers.ants_rigid(fixed, moving)
        return np.linalg.inv(matrix), used

    offers: dict[str, tuple[str, Callable[[], tuple[Any, float]]]] = {
        "SimpleITK Versor, mutual information": (
            "SimpleITK",
            lambda: peers.itk_rigid(reference, brain, mask, metric="information", sampled=0.5),
        ),
        "antspyx Rigid, mutual information": ("ants", lambda: ants_rigid(brain, masked)),
    }
    cost = case.outcome.costs.get("coregistration")
    for name, (module, call) in offers.items():
        title = f"coregistration, mean error (peer: {name})"
        if not peers.installed(module):
            rows.append(_absent(title, module, ours, "mm"))
            continue
        found, used = call()
        rows.append(_beside(title, ours, error(np.linalg.inv(found)), "mm"))
        if cost is not None:
            rows.append(_beside(f"coregistration, CPU (peer: {name})", cost, used, "CPU-s"))
    return rows


def anatomy_rows(case: Case) -> list[Row]:
    """Warp and brain mask; the peer registers the same bias-corrected, masked brain to the same template."""
    from boldmill.preprocess.foreground import block_mean
    from boldmill.preprocess.images import read_volume
    from boldmill.preprocess.transforms import map_points, read_field

    field = read_field(case.outcome.anat["to_subject"])
    ours = against.normalisation_errors(lambda points: map_points(field, points), case.shape)
    mask = read_volume(case.outcome.anat["t1w_mask"])
    overlap = against.dice(mask, read_volume(case.root / "truth" / "brain_mask.nii.gz"))
    rows = [
        _goal("T1w to template, mean error over the brain", float(ours.mean()), "mm", 0.70),
        _plain("T1w to template, 95th percentile", float(np.percentile(ours, 95)), "mm"),
        replace(_plain("brain mask, Dice", overlap, ""), goal=">= 0.98", met=overlap >= 0.98),
    ]
    title = "T1w to template, mean error (peer: antspyx SyN, default)"
    if not peers.installed("ants"):
        return [*rows, _absent(title, "ants", float(ours.mean()), "mm")]
    _say("normalisation: antspyx SyN")
    t1w = read_volume(case.outcome.anat["t1w"])
    brain = block_mean(t1w.like(np.where(mask.data > 0.5, t1w.data, np.float32(0))), 2.0)
    head, inside = (read_volume(case.root / "template" / name) for name in ("head_T1w.nii.gz", "brain_mask.nii.gz"))
    fixed = head.like(np.where(inside.data > 0.5, head.data, np.float32(0)))
    mapping, used = peers.ants_syn(fixed, brain)
    other = against.normalisation_errors(mapping, case.shape)
    rows.append(_beside(title, float(ours.mean()), float(other.mean()), "mm"))
    cost = case.outcome.costs.get("brain affine and SyN")
    if cost is not None:
        rows.append(_beside("T1w to template, CPU (peer: antspyx SyN, default)", cost, used, "CPU-s"))
    return rows


def timing_rows(spec: phantom.Spec) -> list[Row]:
    """Slice timing of band-limited signals of known value at every time; peers: scipy's splines along time."""
    from scipy import interpolate

    from boldmill.demo.bold import slice_times
    from boldmill.preprocess.slicetiming import SliceTimes, correct

    _say("slice timing")
    spline: Any = interpolate.make_interp_spline
    times: Any = slice_times(40, spec.tr, 1)
    middle = float(times.max() / 2)
    rows = []
    for band in TIMING_BANDS:
        series, at = against.band_limited(spec.tr, 100, times, band=band)
        data = series[:, None].astype(np.float32)  # (R, 1, S, T)
        ours = correct(data, SliceTimes(times, 2, middle), spec.tr)[:, 0]
        every, inner = against.timing_error(ours, at(middle))
        where = f"{band[0]:g}-{band[1]:g} Hz"
        limit = 1.0 if band == TIMING_BANDS[0] else None
        start = np.arange(100) * spec.tr
        for degree, name in ((3, "scipy cubic spline"), (1, "linear")):
            moved = np.empty_like(series)
            for index, time in enumerate(times):
                moved[:, index] = spline(start + time, series[:, index], k=degree, axis=-1)(start + middle)
            other = against.timing_error(moved, at(middle))
            title = f"slice timing, {where}, interior (peer: {name})"
            goal = f"<= {limit:g} % of SD" if limit and degree == 3 else ""
            met = inner <= limit if limit and degree == 3 else None
            rows.append(replace(_beside(title, inner, other[1], "% of SD"), goal=goal, met=met))
            if degree == 3:
                rows.append(_beside(f"slice timing, {where}, with the ends (peer: {name})", every, other[0], "% of SD"))
    return rows


def whole_rows(case: Case) -> list[Row]:
    """The whole command: CPU-seconds and peak memory of the child process."""
    spec, used = case.spec, case.outcome.used
    title = f"whole subject ({spec.t1w_mm:g} mm T1w, {spec.volumes} volumes of {spec.bold_mm:g} mm)"
    rows = [_goal(title, used.cpu_s, "CPU-s", 120.0), _goal(f"{title}, memory", used.peak_bytes / GIB, "GiB", 4.0)]
    steps = sorted(case.outcome.costs.items(), key=lambda pair: -pair[1])
    rows += [_plain(f"  step: {name}", cost, "CPU-s") for name, cost in steps]
    return rows


def rerun_row(case: Case, again: child.Outcome) -> Row:
    """Whether a second run wrote the same bytes."""
    shared, wrong = child.different_files(case.outcome.results, again.results)
    for name in wrong:
        _say(f"differs: {name}")
    row = _plain(f"second run: derivatives that differ, of {shared} files", len(wrong), "files")
    return replace(row, goal="0", met=not wrong)


def long_row(shape: phantom.Shape) -> Row:
    """Peak memory of a long multiband run; its T1w is coarse, since only the run's memory counts."""
    spec = phantom.LONG
    with tempfile.TemporaryDirectory(prefix="boldmill-bench-long-") as folder:
        root = Path(folder)
        _say(f"drawing {spec.volumes} volumes of {spec.bold_mm:g} mm")
        phantom.write_dataset(root, spec)
        phantom_bold.write_run(root, spec, shape)
        config = child.prepare(root)
        _say("boldmill preprocess on the long run")
        used = child.preprocess(root, config).used
    title = f"{spec.volumes} volumes of {spec.bold_mm:g} mm, multiband {spec.bands}, memory ({used.cpu_s:.0f} CPU-s)"
    return _goal(title, used.peak_bytes / GIB, "GiB", 6.0)


def _goal(name: str, ours: float, unit: str, limit: float) -> Row:
    return replace(_plain(name, ours, unit), goal=f"<= {limit:g} {unit}", met=ours <= limit)


def _plain(name: str, ours: float, unit: str) -> Row:
    return Row(name=name, ours=ours, peer=None, unit=unit, ratio=None)


def _beside(name: str, ours: float, peer: float, unit: str) -> Row:
    return Row(name=name, ours=ours, peer=peer, unit=unit, ratio=peer / ours)


def _absent(name: str, module: str, ours: float, unit: str) -> Row:
    return _plain(f"{name}: {module} is not installed", ours, unit)


def _say(text: str) -> None:
    print(f"bench preprocess: {text}", file=sys.stderr, flush=True)
