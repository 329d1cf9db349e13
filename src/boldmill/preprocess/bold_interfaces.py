"""The spatial BOLD steps as nipype interfaces, raw run to resampled series: files in, files out.

Axes: X Y Z voxels, T time, N voxels of a point set. Scratch series are ``.npy`` files with time outermost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from boldmill.atomic import read_json, write_json
from boldmill.preprocess import coreg, prepare, reference, resampling, slicetiming
from boldmill.preprocess.frames import Frames
from boldmill.preprocess.images import Grid, read_volume, write_volume
from boldmill.preprocess.nodes import Step
from boldmill.preprocess.series_io import grid_of, load_series, save_series
from boldmill.preprocess.transforms import read_affine, read_field, write_affine


class _LoadInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    bold = File(exists=True, mandatory=True, desc="raw BOLD run")
    tr = traits.Float(mandatory=True, desc="repetition time, s (0: the sidecar has none)")
    min_volumes = traits.Int(10, usedefault=True, desc="shorter runs are refused")


class _LoadOutput(TraitedSpec):  # type: ignore[misc]
    series = File(exists=True, desc="float32 series (X, Y, Z, T)")
    grid = File(exists=True, desc="shape and affine of the native grid")


class LoadBold(Step):
    """Read a run once, and refuse what no later step could use."""

    input_spec, output_spec = _LoadInput, _LoadOutput
    label: ClassVar[str] = "load BOLD"

    def step(self, folder: Path) -> dict[str, Any]:
        """Read, check, and leave a scratch series."""
        frames, grid = prepare.load(self.inputs.bold, folder / "series.npy")
        reference.check_series(
            frames, self.inputs.tr or None, where=self.inputs.bold, min_volumes=self.inputs.min_volumes
        )
        path = write_json(folder / "grid.json", {"shape": list(grid.shape), "affine": grid.affine.tolist()})
        return {"series": str(frames.path), "grid": str(path)}


class _DespikeInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    series = File(exists=True, mandatory=True, desc="raw series (X, Y, Z, T)")


class _DespikeOutput(TraitedSpec):  # type: ignore[misc]
    series = File(exists=True, desc="series without spikes")


class Despike(Step):
    """Squash the spikes of every voxel's series, before everything else."""

    input_spec, output_spec = _DespikeInput, _DespikeOutput
    label: ClassVar[str] = "despiking"

    def step(self, folder: Path) -> dict[str, Any]:
        """Despike slab by slab."""
        made = prepare.despiked(Frames(self.inputs.series), folder / "series.npy")
        return {"series": str(made.path)}


class _TimingInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    series = File(exists=True, mandatory=True, desc="series (X, Y, Z, T)")
    tr = traits.Float(mandatory=True, desc="repetition time, s")
    times = traits.List(traits.Float(), mandatory=True, desc="slice times, s, in stored order; empty: none")
    axis = traits.Int(2, usedefault=True, desc="slice axis")
    reference = traits.Float(mandatory=True, desc="reference time, s")


class _TimingOutput(TraitedSpec):  # type: ignore[misc]
    series = File(exists=True, desc="series at the reference time")


class CorrectSliceTiming(Step):
    """Shift every slice to one reference time; without slice times the series passes through."""

    input_spec, output_spec = _TimingInput, _TimingOutput
    label: ClassVar[str] = "slice timing"

    def step(self, folder: Path) -> dict[str, Any]:
        """Shift, or pass on."""
        if not self.inputs.times:
            return {"series": self.inputs.series}
        timing = slicetiming.SliceTimes(np.array(self.inputs.times), self.inputs.axis, self.inputs.reference)
        made = prepare.slice_timed(Frames(self.inputs.series), timing, self.inputs.tr, folder / "series.npy")
        return {"series": str(made.path)}


class _MotionInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    series = File(exists=True, mandatory=True, desc="series (X, Y, Z, T)")
    grid = File(exists=True, mandatory=True, desc="native grid")
    target = traits.Enum("median", "mean", usedefault=True, desc="what the series is aligned to")


class _MotionOutput(TraitedSpec):  # type: ignore[misc]
    boldref = File(exists=True, desc="realigned median")
    mask = File(exists=True, desc="rough head mask")
    matrices = File(exists=True, desc="motion, (T, 4, 4)")
    facts = File(exists=True, desc="non-steady volumes, centre, flags")


class EstimateMotion(Step):
    """Reference image, non-steady volumes and head motion."""

    input_spec, output_spec = _MotionInput, _MotionOutput
    label: ClassVar[str] = "motion"

    def estimate(self, series: Frames, grid: Grid, folder: Path) -> reference.Reference:
        """Return reference and motion; other engines differ in this only."""
        how = reference.estimate_to_mean if self.inputs.target == "mean" else reference.estimate
        return how(series, grid.affine)

    def step(self, folder: Path) -> dict[str, Any]:
        """Estimate against the steady volume nearest the median, or against the mean in two passes."""
        series, grid = Frames(self.inputs.series), grid_of(**read_json(self.inputs.grid))
        found = self.estimate(series, grid, folder)
        centre = reference.centre_of(found.mask, grid.affine)
        flags = []
        stuck = np.flatnonzero(~(found.motion.last_step < reference.NOT_CONVERGED))
        if len(stuck):
            flags.append(f"motion did not converge in {len(stuck)} volumes (first: {stuck[0]})")
        if found.non_steady:
            flags.append(f"{found.non_steady} non-steady first volumes (marked, not cut)")
        facts = {
            "non_steady": found.non_steady,
            "centre": centre.tolist(),
            "flags": flags,
            "reference_volume": found.index,
            "repeated": found.repeated,
        }
        return {
            "boldref": str(write_volume(folder / "boldref.nii.gz", found.image, grid.affine)),
            "mask": str(write_volume(folder / "mask.nii.gz", found.mask, grid.affine, dtype="uint8")),
            "matrices": save_series(folder / "matrices.npy", found.motion.matrices),
            "facts": str(write_json(folder / "facts.json", facts)),
        }


class _CoregInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    boldref = File(exists=True, mandatory=True, desc="BOLD reference")
    mask = File(exists=True, mandatory=True, desc="rough head mask")
    t1w = File(exists=True, mandatory=True, desc="bias-corrected T1w")
    t1w_mask = File(exists=True, mandatory=True, desc="T1w brain mask")
    wm = File(exists=True, mandatory=True, desc="white-matter probability, T1w space")
    gm = File(exists=True, mandatory=True, desc="grey-matter probability, T1w space")
    key = traits.List(traits.Str(), mandatory=True, desc="key of the random choices")
    threads = traits.Int(1, usedefault=True, desc="SimpleITK threads")


class _CoregOutput(TraitedSpec):  # type: ignore[misc]
    matrix = File(exists=True, desc="T1w world to BOLD world")
    facts = File(exists=True, desc="method, costs, flags")


class Coregister(Step):
    """BOLD to T1w: mutual information, then the boundary."""

    input_spec, output_spec = _CoregInput, _CoregOutput
    label: ClassVar[str] = "coregistration"

    def register(self, images: coreg.Images, folder: Path) -> coreg.Coregistration:
        """Return the registration; other engines differ in this only."""
        return coreg.coregister(*images, key=tuple(self.inputs.key), threads=self.inputs.threads)

    def step(self, folder: Path) -> dict[str, Any]:
        """Register and keep the matrix with its costs."""
        t1w, inside = read_volume(self.inputs.t1w), read_volume(self.inputs.t1w_mask)
        brain = t1w.like(np.where(inside.data > 0.5, t1w.data, np.float32(0)))
        reference, mask = read_volume(self.inputs.boldref), read_volume(self.inputs.mask)
        white, grey = read_volume(self.inputs.wm), read_volume(self.inputs.gm)
        found = self.register(coreg.Images(reference, mask, brain, white, grey), folder)
        facts = {name: getattr(found, name) for name in coreg.FACTS}
        return {
            "matrix": str(write_affine(folder / "matrix.txt", found.matrix)),
            "facts": str(write_json(folder / "facts.json", facts)),
        }


class _ResampleInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    series = File(exists=True, mandatory=True, desc="series (X, Y, Z, T), raw or slice-timed")
    grid = File(exists=True, mandatory=True, desc="native grid")
    matrices = File(exists=True, mandatory=True, desc="motion")
    coreg = File(exists=True, mandatory=True, desc="T1w world to BOLD world")
    field = File(exists=True, mandatory=True, desc="template-to-T1w displacement")
    t1w_mask = File(exists=True, mandatory=True, desc="T1w brain mask")
    distortion = File(exists=True, desc="EPI distortion, shift in voxels, with its sidecar")
    out_shape = traits.List(traits.Int(), mandatory=True, desc="shape of the output grid")
    out_affine = traits.List(traits.List(traits.Float()), mandatory=True, desc="affine of the output grid")
    spaces = traits.List(traits.Dict(), usedefault=True, desc="further grids: label, shape, affine, field")
    fraction = traits.Float(0.2, usedefault=True, desc="signal rule of the BOLD mask")
    intensity = traits.Float(10000.0, usedefault=True, desc="median of the brain after scaling")


class _ResampleOutput(TraitedSpec):  # type: ignore[misc]
    native = File(exists=True, desc="realigned native series (T, N) of the BOLD mask, scaled")
    native_mask = File(exists=True, desc="BOLD mask on the native grid")
    crown = File(exists=True, desc="realigned native series (T, C) of the voxels around the brain")
    template = File(exists=True, desc="template series (T, N) of the BOLD mask, scaled")
    mask = File(exists=True, desc="BOLD mask on the output grid")
    boldref = File(exists=True, desc="mean BOLD on the output grid")
    spaces = File(exists=True, desc="JSON: series, mask and boldref of each further grid, by label")
    facts = File(exists=True, desc="share of the brain that was imaged, volume of the mask")


class ResampleOnce(Step):
    """One cubic interpolation to the realigned native grid, the template and every further grid, with BOLD masks."""

    input_spec, output_spec = _ResampleInput, _ResampleOutput
    label: ClassVar[str] = "resampling"

    def step(self, folder: Path) -> dict[str, Any]:
        """Compose all transforms and read every volume once."""
        native = grid_of(**read_json(self.inputs.grid))
        across, brain = read_affine(self.inputs.coreg), read_volume(self.inputs.t1w_mask)
        grid, field = grid_of(self.inputs.out_shape, self.inputs.out_affine), read_field(self.inputs.field)
        targets = {
            "native": resampling.native_target(native, brain, across),
            "template": resampling.anatomical_target(grid, brain, across, field),
        }
        targets["crown"] = resampling.crown_target(targets["native"])
        for one in self.inputs.spaces:
            other = read_field(one["field"]) if one["field"] else None
            further = grid_of(one["shape"], one["affine"])
            targets[one["label"]] = resampling.anatomical_target(further, brain, across, other)
        bent = self.inputs.distortion
        found = resampling.resample(
            Frames(self.inputs.series),
            native.affine,
            load_series(self.inputs.matrices),
            targets,
            folder,
            distortion=resampling.read_distortion(Path(bent)) if isdefined(bent) else None,
        )
        del targets["crown"]
        crown = resampling.in_view(found.pop("crown"), folder / "crown.npy")
        kept = resampling.finish(targets, found, folder, self.inputs.fraction, self.inputs.intensity)
        template, own = kept.pop("template"), kept.pop("native")
        facts = {
            "coverage": template.share,
            "mask_ml": template.n_voxels * grid.voxel_ml,
            "scale": float(template.scale),
        }
        return {
            "native": str(own.series),
            "native_mask": str(own.mask),
            "crown": str(crown),
            "template": str(template.series),
            "mask": str(template.mask),
            "boldref": str(template.boldref),
            "spaces": str(write_json(folder / "spaces.json", {label: one.paths for label, one in kept.items()})),
            "facts": str(write_json(folder / "facts.json", facts)),
        }
