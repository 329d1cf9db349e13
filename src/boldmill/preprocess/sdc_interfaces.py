"""Susceptibility distortion correction as a nipype interface: BOLD reference and field maps in, shift out.

Axes: X Y Z voxels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, TraitedSpec, traits

from boldmill.atomic import write_json
from boldmill.preprocess import distortion
from boldmill.preprocess.images import read_volume, write_volume
from boldmill.preprocess.nodes import Step


class _DistortionInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    boldref = File(exists=True, mandatory=True, desc="BOLD reference, distorted")
    mask = File(exists=True, mandatory=True, desc="rough head mask of the reference")
    maps = traits.Str("[]", usedefault=True, desc="the ticket's fmap, JSON")
    metadata = traits.Str("{}", usedefault=True, desc="sidecar of the run, JSON")
    root = Directory(desc="root of the data set")
    threads = traits.Int(1, usedefault=True, desc="SimpleITK threads")
    off = traits.Bool(False, usedefault=True, desc="do nothing, by the settings")


class _DistortionOutput(TraitedSpec):  # type: ignore[misc]
    distortion = File(exists=True, desc="shift in voxels along the phase encoding; undefined where not corrected")
    boldref = File(exists=True, desc="BOLD reference, undistorted where there is a field map")
    mask = File(exists=True, desc="rough head mask of that reference")
    facts = File(exists=True, desc="method, field-map files, figures, flags")


class EstimateDistortion(Step):
    """EPI distortion from field maps; without a usable one the reference passes through, with a flag."""

    input_spec, output_spec = _DistortionInput, _DistortionOutput
    label: ClassVar[str] = "distortion"

    def step(self, folder: Path) -> dict[str, Any]:
        """Estimate, undistort the reference and its mask, and say what was done."""
        passed = {"boldref": self.inputs.boldref, "mask": self.inputs.mask}
        if self.inputs.off:
            said = ["distortion not corrected: preprocess.distortion is off"]
            facts: dict[str, Any] = {"method": "off", "files": [], "flags": said}
            return {**passed, "facts": str(write_json(folder / "facts.json", facts))}
        metadata = json.loads(self.inputs.metadata)
        found = distortion.correct(
            read_volume(self.inputs.boldref),
            read_volume(self.inputs.mask),
            metadata,
            json.loads(self.inputs.maps),
            Path(str(self.inputs.root)),
            threads=self.inputs.threads,
        )
        facts = {"method": found.method, "files": found.files, "flags": found.flags, **found.numbers}
        outputs = {"facts": str(write_json(folder / "facts.json", facts))}
        if found.distortion is None:
            return {**passed, **outputs}
        shift, direction = found.distortion.shift, metadata["PhaseEncodingDirection"]
        path = write_volume(folder / "distortion.nii.gz", np.asarray(shift.data), shift.affine)
        write_json(folder / "distortion.json", {"PhaseEncodingDirection": direction})
        return {
            **outputs,
            "distortion": str(path),
            "boldref": str(write_volume(folder / "boldref.nii.gz", found.boldref.data, shift.affine)),
            "mask": str(write_volume(folder / "mask.nii.gz", found.mask.data, shift.affine, dtype="uint8")),
        }
