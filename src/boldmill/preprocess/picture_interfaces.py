"""The arrays of the subject page as nipype interfaces: files of the workflow in, one small ``.npz`` out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from boldmill.preprocess import confounds, design, pictures
from boldmill.preprocess import dvars as intensity
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.images import read_volume
from boldmill.preprocess.nodes import Step
from boldmill.preprocess.series_io import load_series
from boldmill.preprocess.transforms import apply_affine, map_points, read_affine, read_field, sample
from boldmill.represent.operators import save_arrays


class _Figures(TraitedSpec):  # type: ignore[misc]
    figures = File(exists=True, desc="arrays of the subject page")


class _AnatInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    t1w = File(exists=True, mandatory=True, desc="bias-corrected T1w")
    mask = File(exists=True, mandatory=True, desc="its brain mask")
    gm = File(exists=True, mandatory=True, desc="grey-matter probability, T1w space")
    wm = File(exists=True, mandatory=True, desc="white-matter probability, T1w space")
    head = File(exists=True, mandatory=True, desc="template T1w")
    template_mask = File(exists=True, mandatory=True, desc="template brain mask")
    to_subject = File(exists=True, mandatory=True, desc="template-to-T1w displacement")


class SaveAnatPictures(Step):
    """Slices of T1w, mask, tissues, and of T1w and template in template space."""

    input_spec, output_spec = _AnatInput, _Figures
    label: ClassVar[str] = "T1w pictures"

    def step(self, folder: Path) -> dict[str, Any]:
        """Cut the slices."""
        given = self.inputs
        arrays = pictures.anat_arrays(
            read_volume(given.t1w),
            read_volume(given.mask),
            read_volume(given.gm),
            read_volume(given.wm),
            read_volume(given.head),
            read_volume(given.template_mask),
            read_field(given.to_subject),
        )
        return {"figures": str(save_arrays(folder / "figures.npz", **arrays))}


class _RunInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    template = File(exists=True, mandatory=True, desc="template series (T, N) before cleaning")
    mask = File(exists=True, mandatory=True, desc="BOLD mask on the output grid")
    confounds = File(exists=True, mandatory=True, desc="confounds table")
    boldref = File(exists=True, mandatory=True, desc="BOLD reference on its native grid")
    distorted = File(exists=True, mandatory=True, desc="the same before distortion correction")
    distortion = File(exists=True, desc="shift of the correction; undefined where not corrected")
    coreg = File(exists=True, mandatory=True, desc="T1w world to BOLD world")
    field = File(exists=True, mandatory=True, desc="template-to-T1w displacement")
    t1w_mask = File(exists=True, mandatory=True, desc="T1w brain mask")
    gm = File(exists=True, mandatory=True, desc="grey-matter probability, T1w space")
    wm = File(exists=True, mandatory=True, desc="white-matter probability, T1w space")
    csf = File(exists=True, mandatory=True, desc="CSF probability, T1w space")
    space = traits.Str(mandatory=True, desc="name of the template space")
    tr = traits.Float(mandatory=True, desc="repetition time, s")
    settings = traits.Str(mandatory=True, desc="CleanConfig as JSON")
    where = traits.Str(mandatory=True, desc="scan, for messages")


class SavePictures(Step):
    """Carpet rows, spectra, tSNR slices, and the BOLD reference at the slices of the T1w."""

    input_spec, output_spec = _RunInput, _Figures
    label: ClassVar[str] = "BOLD pictures"

    def step(self, folder: Path) -> dict[str, Any]:
        """Label the voxels and cut the slices; the cleaning of the few voxels shown is done anew."""
        mask, series = read_volume(self.inputs.mask), load_series(self.inputs.template)
        points = apply_affine(mask.affine, np.argwhere(mask.data > 0.5))
        inside = map_points(read_field(self.inputs.field), points)
        shares = {name: sample(read_volume(getattr(self.inputs, name)), inside) for name in ("gm", "wm", "csf")}
        labels = pictures.tissue_labels(shares, points, str(self.inputs.space))
        config = CleanConfig.model_validate_json(self.inputs.settings)
        table = confounds.read(self.inputs.confounds)
        plan = design.plan(config, table, self.inputs.tr, where=self.inputs.where)
        arrays = pictures.run_arrays(series, labels, intensity.tsnr(series), mask, plan.operator, self.inputs.tr)
        brain, across = read_volume(self.inputs.t1w_mask), read_affine(self.inputs.coreg)
        arrays |= pictures.edge_arrays(read_volume(self.inputs.boldref), brain, across)
        if isdefined(self.inputs.distortion):
            before = read_volume(self.inputs.distorted)
            arrays |= pictures.edge_arrays(before, brain, across, name="distorted")
        return {"figures": str(save_arrays(folder / "figures.npz", **arrays))}
