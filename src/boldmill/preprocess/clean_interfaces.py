"""Confounds and cleaning of a resampled BOLD run as nipype interfaces: files in, files out.

Axes: T time, N voxels of a mask. Scratch series are ``.npy`` files with time outermost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits
from numpy.typing import NDArray

from boldmill.atomic import read_json, write_json
from boldmill.preprocess import compcor, confounds, design
from boldmill.preprocess import dvars as intensity
from boldmill.preprocess import noise_regions as regions
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds_table import Limits, build
from boldmill.preprocess.finish import finish_series
from boldmill.preprocess.images import Volume, read_volume
from boldmill.preprocess.nodes import Step
from boldmill.preprocess.series_io import load_series, save_series
from boldmill.preprocess.transforms import read_affine

Array = NDArray[Any]


class _ConfoundsInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    native = File(exists=True, mandatory=True, desc="realigned native series (T, N)")
    native_mask = File(exists=True, mandatory=True, desc="BOLD mask on the native grid")
    crown = File(exists=True, desc="realigned native series (T, C) of the voxels around the brain")
    matrices = File(exists=True, mandatory=True, desc="motion")
    motion_facts = File(exists=True, mandatory=True, desc="non-steady volumes, centre")
    coreg = File(exists=True, mandatory=True, desc="T1w world to BOLD world")
    wm = File(exists=True, mandatory=True, desc="white-matter probability, T1w space")
    csf = File(exists=True, mandatory=True, desc="CSF probability, T1w space")
    tr = traits.Float(mandatory=True, desc="repetition time, s")
    components = traits.Int(5, usedefault=True, desc="CompCor components kept at least")
    cutoff = traits.Float(128.0, usedefault=True, desc="period of the fastest drift cosine, s")
    fd_radius = traits.Float(50.0, usedefault=True, desc="head radius of FD (Power), mm")
    outlier_fd = traits.Float(0.5, usedefault=True, desc="FD above which a volume gets an outlier column, mm")
    outlier_dvars = traits.Float(1.5, usedefault=True, desc="standardised DVARS above which it gets one")


class _ConfoundsOutput(TraitedSpec):  # type: ignore[misc]
    tsv = File(exists=True, desc="confounds table")
    json = File(exists=True, desc="its description")
    facts = File(exists=True, desc="flags")


class ComputeConfounds(Step):
    """The confounds table, from the realigned native series."""

    input_spec, output_spec = _ConfoundsInput, _ConfoundsOutput
    label: ClassVar[str] = "confounds"

    def step(self, folder: Path) -> dict[str, Any]:
        """Find the noise regions and build the table."""
        series, mask = load_series(self.inputs.native), read_volume(self.inputs.native_mask)
        crown = load_series(self.inputs.crown) if isdefined(self.inputs.crown) else None
        facts, flags = read_json(self.inputs.motion_facts), []
        noise: dict[str, compcor.TissueMask] = {}
        for kind, path in (("wm", self.inputs.wm), ("csf", self.inputs.csf)):
            noise[kind] = compcor.noise_voxels(read_volume(path), mask, read_affine(self.inputs.coreg), kind)
            if not noise[kind].inside.any():
                flags.append(f"no {kind} voxels for the confounds: {noise[kind].rule}")
        both = noise["wm"].inside | noise["csf"].inside
        table = build(
            matrices=load_series(self.inputs.matrices),
            centre=np.array(facts["centre"]),
            brain=series,
            signals={
                "white_matter": compcor.mean_signal(series, noise["wm"].inside),
                "csf": compcor.mean_signal(series, noise["csf"].inside),
                "csf_wm": compcor.mean_signal(series, both),
            },
            groups=self.groups(series, crown, noise["wm"].inside, noise["csf"].inside, facts["non_steady"]),
            rules={
                "WM": noise["wm"].rule,
                "CSF": noise["csf"].rule,
                "combined": f"white matter: {noise['wm'].rule}; CSF: {noise['csf'].rule}",
                "brain": f"the {100 * regions.SHARE:g} % most variable voxels of the BOLD mask",
                "Edge": f"dilation of the brain mask by {regions.WIDTH} voxels without the mask",
            },
            tr=self.inputs.tr,
            non_steady=facts["non_steady"],
            cutoff=self.inputs.cutoff,
            limits=Limits(fd=self.inputs.outlier_fd, std_dvars=self.inputs.outlier_dvars, radius=self.inputs.fd_radius),
        )
        tsv, json = folder / "confounds.tsv", folder / "confounds.json"
        confounds.write(table, tsv, json)
        sizes = {f"{kind}_voxels": int(one.inside.sum()) for kind, one in noise.items()}
        return {
            "tsv": str(tsv),
            "json": str(json),
            "facts": str(write_json(folder / "facts.json", {"flags": flags, **sizes})),
        }

    def groups(
        self, series: Array, crown: Array | None, wm: Array, csf: Array, skip: int
    ) -> dict[str, compcor.Components]:
        """Return the components of each noise region: series (T, N) and crown (T, C), tissue voxels (N,)."""
        tr, cutoff, count = self.inputs.tr, self.inputs.cutoff, max(self.inputs.components, 1)
        variable = regions.variable_voxels(series, tr, cutoff=cutoff, skip=skip)
        inside = {"a_comp_cor": wm | csf, "c_comp_cor": csf, "w_comp_cor": wm, "t_comp_cor": variable}
        out = {
            prefix: compcor.components(series[:, where], tr, count, cutoff=cutoff, skip=skip, share=compcor.HALF)
            for prefix, where in inside.items()
        }
        if crown is not None:
            out["edge_comp"] = compcor.components(crown, tr, regions.CROWN_COMPONENTS, cutoff=cutoff, skip=skip)
        return out


class _CleanInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    template = File(exists=True, mandatory=True, desc="template series (T, N)")
    mask = File(exists=True, mandatory=True, desc="BOLD mask on the output grid")
    confounds = File(exists=True, mandatory=True, desc="confounds table")
    tr = traits.Float(mandatory=True, desc="repetition time, s")
    settings = traits.Str(mandatory=True, desc="CleanConfig as JSON")
    where = traits.Str(mandatory=True, desc="scan, for messages")


class _CleanOutput(TraitedSpec):  # type: ignore[misc]
    clean = File(exists=True, desc="cleaned series (T, N), float32, mean zero")
    facts = File(exists=True, desc="degrees of freedom, tSNR, global correlation, regressors, flags")


class CleanSeries(Step):
    """Filter series and confounds alike, regress; the 4D image is written only where it is kept."""

    input_spec, output_spec = _CleanInput, _CleanOutput
    label: ClassVar[str] = "cleaning"

    def step(self, folder: Path) -> dict[str, Any]:
        """Check the degrees of freedom first: a run that is too short costs nothing more."""
        config = CleanConfig.model_validate_json(self.inputs.settings)
        table = confounds.read(self.inputs.confounds)
        plan = design.plan(config, table, self.inputs.tr, where=self.inputs.where)
        image: Volume = read_volume(self.inputs.mask)
        mask = image.data > 0.5
        series = load_series(self.inputs.template, writable=True)
        facts = {**plan.facts, "tsnr": float(np.median(intensity.tsnr(series)))}
        cleaned = finish_series(series, plan, mask, image.grid.zooms, config)
        facts["gcor"] = intensity.gcor(cleaned)
        facts_path = write_json(folder / "facts.json", facts)
        return {"clean": save_series(folder / "clean.npy", cleaned), "facts": str(facts_path)}
