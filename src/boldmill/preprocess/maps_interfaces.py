"""Voxel maps of a run (ALFF, fALFF, ReHo) as a nipype interface: made on the native grid, read once in template space.

Axes: T time, X Y Z voxels, N voxels of the native mask, M voxels of the mask on the output grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from boldmill.atomic import read_json, write_json
from boldmill.preprocess import confounds
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.images import read_volume, write_volume
from boldmill.preprocess.maps import band_of, native_maps, to_template, zscored
from boldmill.preprocess.nodes import Step, pe
from boldmill.preprocess.series_io import image_of, load_series
from boldmill.preprocess.smooth import smooth_masked
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import apply_affine, map_points, read_affine, read_field

WORDS = {
    "alff": "amplitude of low-frequency fluctuations: standard deviation of the regressed series in the pass band",
    "falff": "ALFF over the standard deviation of the regressed, unfiltered series",
    "reho": "regional homogeneity: Kendall's W of the cleaned series of 27 voxels",
}


class _MapsInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    native = File(exists=True, mandatory=True, desc="realigned native series (T, N)")
    native_mask = File(exists=True, mandatory=True, desc="BOLD mask on the native grid")
    mask = File(exists=True, mandatory=True, desc="BOLD mask on the output grid")
    confounds = File(exists=True, mandatory=True, desc="confounds table")
    coreg = File(exists=True, mandatory=True, desc="T1w world to BOLD world")
    field = File(exists=True, mandatory=True, desc="template-to-T1w displacement")
    tr = traits.Float(mandatory=True, desc="repetition time, s")
    settings = traits.Str(mandatory=True, desc="CleanConfig as JSON")
    where = traits.Str(mandatory=True, desc="scan, for messages")
    maps = traits.List(traits.Str(), mandatory=True, desc="alff, falff, reho")
    smoothing = traits.Float(0.0, usedefault=True, desc="FWHM, mm; 0: none")
    zscore = traits.Bool(False, usedefault=True, desc="also write z-scored maps")


class _MapsOutput(TraitedSpec):  # type: ignore[misc]
    maps = File(exists=True, desc="JSON: image of each map by name, z-scored ones as <name>_zscored")


class VoxelMaps(Step):
    """ALFF, fALFF and ReHo of one run."""

    input_spec, output_spec = _MapsInput, _MapsOutput
    label: ClassVar[str] = "maps"

    def step(self, folder: Path) -> dict[str, Any]:
        """Compute on the native grid, as the neighbourhoods of ReHo ask for, then go to the template."""
        config = CleanConfig.model_validate_json(self.inputs.settings)
        table, native = confounds.read(self.inputs.confounds), read_volume(self.inputs.native_mask)
        series = load_series(self.inputs.native)
        where, tr = self.inputs.where, self.inputs.tr
        made = native_maps(series, native.data > 0.5, config, table, tr, list(self.inputs.maps), where=where)
        image = read_volume(self.inputs.mask)
        inside = image.data > 0.5
        home = map_points(read_field(self.inputs.field), image.grid.points()[inside.ravel()])
        points = apply_affine(read_affine(self.inputs.coreg), home)
        values, covered = to_template(np.stack(list(made.values())), native, points)
        seen = image_of(covered, inside) > 0
        smoothed = smooth_masked(values[:, covered], seen, image.grid.zooms, self.inputs.smoothing)
        paths: dict[str, str] = {}
        for name, one in zip(made, smoothed, strict=True):
            forms = {name: one} | ({f"{name}_zscored": zscored(one)} if self.inputs.zscore else {})
            for key, data in forms.items():
                target = folder / f"{key}.nii.gz"
                paths[key] = str(write_volume(target, image_of(data, seen), image.affine, template=True))
        return {"maps": str(write_json(folder / "maps.json", paths))}


def connect_maps(wf: Any, preprocess: PreprocessConfig, clean: CleanConfig, tr: float, where: str) -> None:
    """Add the maps to the workflow of a run (:func:`boldmill.preprocess.bold_flow.init_bold_wf`).

    Parameters
    ----------
    wf : nipype Workflow
        With the nodes ``inputnode``, ``resample``, ``confounds``, ``coregister`` and ``outputnode``.
    preprocess, clean : sections
        Settings.
    tr : float
        Repetition time, s.
    where : str
        Scan, for messages.
    """
    maps = pe.Node(
        VoxelMaps(
            tr=tr,
            settings=clean.model_dump_json(),
            where=where,
            maps=list(preprocess.maps),
            smoothing=preprocess.maps_smoothing,
            zscore=preprocess.maps_zscore,
        ),
        name="maps",
    )
    node = wf.get_node
    wf.connect(
        [
            (node("resample"), maps, [(k, k) for k in ("native", "native_mask", "mask")]),
            (node("confounds"), maps, [("tsv", "confounds")]),
            (node("coregister"), maps, [("matrix", "coreg")]),
            (node("inputnode"), maps, [("field", "field")]),
            (maps, node("outputnode"), [("maps", "maps")]),
        ]
    )


def publish_maps(
    job: Job, ticket: Mapping[str, Any], made: str | Path, tr: float
) -> tuple[dict[str, Path], list[Path]]:
    """Move the maps to their names, ``space-S[_desc-zscored]_alff.nii.gz`` and so on (BEP012), with sidecars.

    Parameters
    ----------
    job : Job
        What all steps of the subject share.
    ticket : mapping
        The scan's ticket.
    made : path
        What :class:`VoxelMaps` left.
    tr : float
        Repetition time, s.

    Returns
    -------
    files : dict
        By name, for the manifest.
    extra : list of Path
        Sidecars.
    """
    from boldmill.preprocess.bold_outputs import move

    low, high = band_of(job.clean, tr)
    band = [0.0 if low is None else low, 0.5 / tr if high is None else high]
    files: dict[str, Path] = {}
    extra: list[Path] = []
    for key, source in read_json(made).items():
        name, _, form = key.partition("_")
        d, entities = job.derivatives, ticket["entities"]
        path = d.path(entities, "func", name, space=job.space, desc=form)
        move(Path(source), path)
        files[key] = path
        fields: dict[str, Any] = {
            "Description": WORDS[name] + (", z-scored over the mask" if form else ""),
            "Strategy": job.clean.model_dump(mode="json"),
            "SmoothingFWHM": job.settings.maps_smoothing,
            "Units": "arbitrary",
        }
        if name != "reho":
            fields["PassBand"] = band
        sources = [d.uri_raw(entry["path"]) for entry in ticket["bold"]]
        extra.append(d.sidecar(path, sources=sources, **fields))
    return files, extra
