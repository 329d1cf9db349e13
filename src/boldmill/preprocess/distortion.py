"""EPI distortion of one run from its field map: shift along the phase encoding on the grid of the BOLD reference.

Axes: X Y Z voxels; 4x4 world matrices (RAS mm). With a field in Hz, ``shift = polarity * readout time * Hz``, voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.errors import DataFault
from boldmill.index.fmap import echo_times, phase_encoding, readout_time
from boldmill.preprocess import fieldmap, pepolar
from boldmill.preprocess.images import Array, Float, Grid, Volume, read_volume
from boldmill.preprocess.motion import matrix_of, parameters_of
from boldmill.preprocess.onestep import Distortion, resample_series
from boldmill.preprocess.realign import realign
from boldmill.preprocess.rigid import mean_displacement, rigid
from boldmill.preprocess.transforms import apply_affine, resample, sample

IMPLAUSIBLE = 25.0
"""95th percentile of the shift (mm) above which a field map is refused."""
FAR = 12.0
"""A field map that registers further from its header than this (mm) is taken where its header says."""
FOLDS = 0.01
"""Share of folded voxels that is flagged."""
PARALLEL = 0.95
"""Cosine between the phase-encoding axes of two EPIs above which they count as one."""
EPI_VOLUMES = 10
PASSES = 3
"""Estimates of the field from two EPIs; between them the images are aligned."""
NO_FIELD_MAP = "no field map: distortion not corrected"
NOT_USED = "no usable field map: distortion not corrected"


@dataclass(frozen=True, slots=True)
class Encoding:
    """Phase encoding of an EPI: voxel ``axis``, ``polarity`` (1, -1), total ``readout`` time (s)."""

    axis: int
    polarity: int
    readout: float

    @classmethod
    def of(cls, metadata: Mapping[str, Any], shape: Sequence[int]) -> Encoding:
        """Return the encoding a sidecar states (ingest made sure that it does)."""
        axis, polarity = phase_encoding(metadata)
        return cls(axis, polarity, readout_time(metadata, shape))

    def direction(self, affine: Float) -> Float:
        """Unit vector (3,) of the axis with its polarity, world."""
        column = affine[:3, self.axis] * self.polarity
        return np.asarray(column / np.linalg.norm(column))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corrected:
    """``distortion`` (None: not corrected), the undistorted ``boldref`` and ``mask``, and what is said of it."""

    distortion: Distortion | None
    boldref: Volume
    mask: Volume
    method: str
    files: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """The run's BOLD reference with its head mask and phase encoding."""

    boldref: Volume
    mask: Volume
    encoding: Encoding
    threads: int = 1


def correct(
    boldref: Volume,
    mask: Volume,
    metadata: Mapping[str, Any],
    maps: Sequence[Mapping[str, Any]],
    root: Path,
    *,
    threads: int = 1,
) -> Corrected:
    """Estimate the distortion of a run from the first of its field maps that can be used.

    Parameters
    ----------
    boldref, mask : Volume (X, Y, Z)
        BOLD reference and its rough head mask, distorted.
    metadata : mapping
        Sidecar of the run.
    maps : sequence of mapping
        The ticket's ``fmap``, best first.
    root : Path
        Root of the data set.
    threads : int
        SimpleITK threads; 1 makes reruns identical.
    """
    flags: list[str] = []
    for entry in maps:
        scene = Scene(boldref=boldref, mask=mask, encoding=Encoding.of(metadata, boldref.data.shape), threads=threads)
        paths = [str(file["path"]) for file in entry["files"]]
        try:
            found, numbers, said = (_from_opposite if entry["kind"] == "epi" else _from_field)(scene, entry, root)
            numbers |= _checked(found, scene, paths[0])
        except DataFault as fault:  # a field map never costs a run
            flags.append(f"field map {paths[0]} not used: {fault.why}")
            continue
        if numbers["folded"] > FOLDS:
            said.append(f"field map folds {100 * numbers['folded']:.1f} % of the head: signal is lost there")
        return Corrected(
            distortion=found,
            boldref=undistort(boldref, found),
            mask=undistort_mask(mask, found),
            method=str(entry["kind"]),
            files=paths,
            flags=flags + said,
            numbers=numbers,
        )
    return Corrected(
        distortion=None, boldref=boldref, mask=mask, method="none", flags=[*flags, NOT_USED if flags else NO_FIELD_MAP]
    )


def undistort(image: Volume, distortion: Distortion) -> Volume:
    """Return an image (X, Y, Z) read at its shifted voxels, times the Jacobian; 0 outside its field of view."""
    still, points = np.eye(4)[np.newaxis], image.grid.points()
    read = resample_series(lambda _: image.data, image.affine, still, [points], distortion=distortion)[0]
    values = np.where(read.seen, np.maximum(read.series[0], 0), np.float32(0))
    return image.like(values.reshape(image.grid.shape))


def undistort_mask(mask: Volume, distortion: Distortion) -> Volume:
    """Return which voxels (X, Y, Z) of the undistorted grid a distorted mask covers, uint8."""
    points = mask.grid.points()
    shifted = points + distortion.at(points)[0][:, np.newaxis] * mask.affine[:3, distortion.axis]
    inside = sample(mask.like(np.asarray(mask.data, dtype=np.float32)), shifted) > 0.5
    return mask.like(inside.reshape(mask.grid.shape).astype(np.uint8))


def shift_of(hz: Volume, grid: Grid, matrix: Float, encoding: Encoding) -> Distortion:
    """Return the distortion on a grid of a field (Hz, defined everywhere on its own grid).

    Parameters
    ----------
    hz : Volume (X, Y, Z)
        Field; its edge value holds beyond its grid.
    grid : Grid
        Grid of the BOLD reference.
    matrix : array (4, 4)
        BOLD-reference world to the field map's world.
    encoding : Encoding
        Of the run.
    """
    from scipy.ndimage import map_coordinates

    chain = np.asarray(np.linalg.inv(hz.affine)) @ matrix
    index = apply_affine(chain, grid.points()).T
    values = map_coordinates(np.asarray(hz.data, dtype=np.float64), index, order=1, mode="nearest")
    shift = (encoding.polarity * encoding.readout * values).astype(np.float32).reshape(grid.shape)
    return Distortion(Volume(shift, grid.affine), encoding.axis)


def _checked(found: Distortion, scene: Scene, where: str) -> dict[str, float]:
    """Return the figures of a distortion inside the head; refuse what no scanner does."""
    inside = np.asarray(scene.mask.data) > 0
    size = float(scene.boldref.grid.zooms[found.axis])
    shift = size * np.abs(np.asarray(found.shift.data))[inside]
    if not np.isfinite(shift).all() or float(np.percentile(shift, 95)) > IMPLAUSIBLE:
        why = f"it shifts a twentieth of the head by more than {np.percentile(shift, 95):.0f} mm"
        raise DataFault("implausible field map", where, why, "check its units and echo times")
    jacobian = 1.0 + np.gradient(np.asarray(found.shift.data, dtype=np.float64), axis=found.axis)[inside]
    return {
        "max_shift_mm": float(shift.max()),
        "mean_shift_mm": float(shift.mean()),
        "least_jacobian": float(jacobian.min()),
        "folded": float((jacobian <= 0).mean()),
    }


def _read(root: Path, file: Mapping[str, Any]) -> Volume:
    return read_volume(root / file["path"], what="field map")


def _from_field(scene: Scene, entry: Mapping[str, Any], root: Path) -> tuple[Distortion, dict[str, float], list[str]]:
    """Distortion from a measured field: its magnitude is registered with the undistorted BOLD reference."""
    from scipy.ndimage import binary_dilation

    files = {role: [f for f in entry["files"] if f["role"] == role] for role in {f["role"] for f in entry["files"]}}
    magnitude = _read(root, files["magnitude"][0])
    if entry["kind"] == "fieldmap":
        measured = _read(root, files["fieldmap"][0])
    else:
        names = ("phasediff",) if entry["kind"] == "phasediff" else ("phase1", "phase2")
        images = [(_read(root, files[name][0]), files[name][0]) for name in names]
        phases = [fieldmap.radians(image.data, file["path"]) for image, file in images]
        measured = images[0][0].like(phases[0] if len(phases) == 1 else fieldmap.difference(*phases))
    if not magnitude.grid.same_as(measured.grid, 0.1):
        why = "its magnitude lies on another grid"
        raise DataFault("cannot use field map", entry["files"][0]["path"], why, "convert both images again")
    seen = fieldmap.find_head(magnitude)
    if entry["kind"] == "fieldmap":
        values = np.asarray(measured.data) * fieldmap.TO_HERTZ[files["fieldmap"][0]["metadata"]["Units"]]
    else:
        one, two = echo_times(entry["kind"], [files[name][0]["metadata"] for name in names])
        values = fieldmap.hertz(fieldmap.unwrap(measured.data, seen.head, key=(entry["files"][0]["path"],)), two - one)
    offset = float(np.median(values[seen.brain]))  # a constant only moves the whole image: coregistration finds that
    # Phase noise falls with the magnitude; the phase of the scalp is that of fat.
    weight = np.where(seen.brain, np.asarray(seen.magnitude.data, dtype=np.float64) ** 2, 0.0)
    hz = measured.like(fieldmap.extend(values - offset, weight, measured.grid.zooms))
    grid, said = scene.boldref.grid, []
    by_header = shift_of(hz, grid, np.eye(4), scene.encoding)
    _checked(by_header, scene, entry["files"][0]["path"])
    first = undistort(scene.boldref, by_header)
    brain = seen.magnitude.like(np.where(seen.brain, seen.magnitude.data, np.float32(0)))
    matrix = rigid(first, brain, binary_dilation(np.asarray(scene.mask.data) > 0), threads=scene.threads)
    moved = mean_displacement(matrix, scene.mask.data, scene.mask.affine)
    if moved > FAR:
        said.append(f"field map registered {moved:.0f} mm from its header: the header is used")
    if not float(measured.grid.zooms.max()) < moved <= FAR:  # within a voxel the header is the better guess
        matrix, moved = np.eye(4), 0.0
    found = shift_of(hz, grid, matrix, scene.encoding)
    numbers = {"field_sd_hz": float(values[seen.brain].std()), "offset_hz": offset, "moved_mm": moved}
    return found, numbers, said


def _epi(root: Path, file: Mapping[str, Any]) -> Volume:
    """Return the mean of the first volumes of an EPI."""
    series = read_volume(root / file["path"], ndim=4, what="field map")
    return Volume(series.data[..., :EPI_VOLUMES].mean(axis=3, dtype=np.float32), series.affine)


def _from_opposite(
    scene: Scene, entry: Mapping[str, Any], root: Path
) -> tuple[Distortion, dict[str, float], list[str]]:
    """Distortion from EPIs of opposite polarity: of a pair, or of one EPI and the BOLD reference."""
    other, *same = entry["files"]
    second = _epi(root, other)
    against = Encoding.of(other["metadata"], second.data.shape)
    first, encoding, mask = scene.boldref, scene.encoding, np.asarray(scene.mask.data) > 0
    to_first = np.eye(4)
    if same:
        first = _epi(root, same[0])
        if same[0]["role"] == "epi":  # a single-band reference is encoded as the run
            encoding = Encoding.of(same[0]["metadata"], first.data.shape)
        to_first = rigid(scene.boldref, first, mask, threads=scene.threads)  # both are distorted alike
        inside = resample(scene.mask, first.grid, lambda p: apply_affine(np.asarray(np.linalg.inv(to_first)), p))
        mask = inside.data > 0.5
    alike = float(encoding.direction(first.affine) @ against.direction(second.affine))
    if alike > -PARALLEL:
        why = f"its phase encoding is not opposite to the run's in space (cosine {alike:.2f})"
        raise DataFault("cannot use field map", other["path"], why, "check PhaseEncodingDirection")
    found, moved = opposite(first, encoding, second, against, mask)
    hz = found.shift.like(np.asarray(found.shift.data) / (encoding.polarity * encoding.readout))
    numbers = {"moved_mm": moved}
    return shift_of(hz, scene.boldref.grid, to_first, scene.encoding), numbers, []


def opposite(
    first: Volume, encoding: Encoding, second: Volume, against: Encoding, mask: Array
) -> tuple[Distortion, float]:
    """Return the distortion of ``first``, found against ``second``, and how far the head moved between them (mm).

    The field is estimated, both images are undistorted and aligned, and the field is estimated again. What a movement
    does along the phase encoding looks like a field, so only the other three degrees of freedom are aligned.

    Parameters
    ----------
    first, second : Volume (X, Y, Z)
        EPIs of opposite polarity.
    encoding, against : Encoding
        Theirs.
    mask : bool array (X, Y, Z)
        Head in the first.
    """
    grid = first.grid
    zooms = grid.zooms
    ratio = against.readout * float(second.grid.zooms[against.axis]) / (encoding.readout * float(zooms[encoding.axis]))
    matrix, moved = np.eye(4), 0.0
    for left in reversed(range(PASSES)):
        place = matrix
        if second.grid.same_as(grid) and np.allclose(place, np.eye(4)):
            there = second
        else:
            there = resample(second, grid, lambda p, m=place: apply_affine(m, p), order=3)  # type: ignore[misc]
        levels = pepolar.LEVELS[:-1] if left else pepolar.LEVELS
        shift = pepolar.estimate(first.data, there.data, encoding.axis, zooms, ratio=ratio, levels=levels)
        found = Distortion(Volume(shift, first.affine), encoding.axis)
        if left:
            back = undistort(there, Distortion(Volume(-ratio * shift, first.affine), encoding.axis))
            step = realign(lambda _, b=back: b.data, 1, undistort(first, found).data, first.affine, mask)  # type: ignore[misc]
            matrix = matrix @ across(step.matrices[0], first.affine, encoding.axis, mask)
            moved = mean_displacement(matrix, mask, first.affine)
            if moved > FAR:
                why = f"the head moved {moved:.0f} mm between them"
                raise DataFault("cannot align EPIs", "fmap", why, "look at the images of the field map")
    return found, moved


def across(matrix: Float, affine: Float, axis: int, mask: Array) -> Float:
    """Return the part of a rigid movement that leaves voxel ``axis`` alone: two translations, the rotation about it."""
    left, _, right = np.linalg.svd(affine[:3, :3])
    frame = np.eye(4)
    frame[:3, :3] = left @ right  # voxel axes to world
    centre = apply_affine(frame.T @ affine, np.argwhere(mask).mean(axis=0)[np.newaxis])[0]
    values = parameters_of((frame.T @ matrix @ frame)[np.newaxis], centre)[0]
    others = [a for a in range(3) if a != axis]
    values[[axis, *(3 + a for a in others)]] = 0.0
    return np.asarray(frame @ matrix_of(values, centre) @ frame.T)
