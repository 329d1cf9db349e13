"""The steps of the anatomical workflow as nipype interfaces: files in, files out, pure functions inside.

Scratch files are uncompressed NIfTI in the node's folder. Axes: X Y Z voxels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from boldmill.preprocess.affine import register_affine
from boldmill.preprocess.brainmask import mask_from_nonzero, mask_from_template
from boldmill.preprocess.foreground import block_mean, crop_to_head, is_brain_extracted, zero_share
from boldmill.preprocess.images import Array, Grid, Volume, bounding_box, crop_volume, read_volume, write_volume
from boldmill.preprocess.n4 import n4
from boldmill.preprocess.nodes import Step
from boldmill.preprocess.syn import register_syn
from boldmill.preprocess.tissue import CLASSES, segment
from boldmill.preprocess.transforms import (
    apply_affine,
    map_points,
    read_affine,
    read_field,
    resample,
    sample,
    write_affine,
)

REGISTRATION_ZOOM = 2.0
HEAD_MARGIN_MM = 16.0
BRAIN_MARGIN_MM = 10.0
EXTRACTED_PITCHES = (-15.0, 0.0, 15.0)


def _margin(grid: Grid, mm: float) -> int:
    return round(mm / float(grid.zooms.min()))


def brain_of(image: Volume, mask: Volume, margin_mm: float) -> Volume:
    """The image inside the mask, cropped to the mask's box and a margin."""
    inside = image.like(np.where(mask.data > 0.5, image.data, 0).astype(np.float32))
    return crop_volume(inside, *bounding_box(mask.data > 0.5, _margin(mask.grid, margin_mm)))


class _T1wIn(BaseInterfaceInputSpec):  # type: ignore[misc]
    in_file = File(exists=True, mandatory=True, desc="raw T1w")


class _T1wOut(TraitedSpec):  # type: ignore[misc]
    t1w = File(desc="RAS, float32, cropped to the head")
    extracted = traits.Bool(desc="the input is an extracted brain")
    zeros = traits.Float(desc="share of voxels that are exactly 0")


class LoadT1w(Step):
    """Reorient to RAS, crop the field of view, find out whether the brain is already extracted."""

    input_spec, output_spec, label = _T1wIn, _T1wOut, "load and crop T1w"

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        raw = read_volume(self.inputs.in_file, canonical=True, what="T1w image")
        zeros = zero_share(raw)
        crop, size = crop_to_head(raw)
        path = write_volume(folder / "t1w.nii", crop.data, crop.affine)
        return {"t1w": str(path), "extracted": is_brain_extracted(zeros, size), "zeros": zeros}


class _BiasIn(BaseInterfaceInputSpec):  # type: ignore[misc]
    t1w = File(exists=True, mandatory=True)
    iterations = traits.List(traits.Int, mandatory=True, desc="per level")
    grid = traits.Float(mandatory=True, desc="estimation grid, mm")


class _BiasOut(TraitedSpec):  # type: ignore[misc]
    t1w = File(desc="bias-corrected")


class BiasField(Step):
    """N4, once."""

    input_spec, output_spec, label = _BiasIn, _BiasOut, "N4"

    def correct(self, volume: Volume, folder: Path) -> Volume:
        """Return the corrected image; other engines differ in this only."""
        return n4(volume, iterations=self.inputs.iterations, grid=self.inputs.grid)[0]

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        corrected = self.correct(read_volume(self.inputs.t1w), folder)
        return {"t1w": str(write_volume(folder / "t1w.nii", corrected.data, corrected.affine))}


class _AffineIn(BaseInterfaceInputSpec):  # type: ignore[misc]
    t1w = File(exists=True, mandatory=True)
    extracted = traits.Bool(mandatory=True)
    head = File(exists=True, mandatory=True, desc="template T1w")
    template_mask = File(exists=True, mandatory=True)


class _AffineOut(TraitedSpec):  # type: ignore[misc]
    affine = File(desc="template world to T1w world")


class StartAffine(Step):
    """Multi-start affine: head to head, or brain to brain where the input is an extracted brain."""

    input_spec, output_spec, label = _AffineIn, _AffineOut, "affine"

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        from scipy.ndimage import binary_dilation

        t1w, head = read_volume(self.inputs.t1w), read_volume(self.inputs.head)
        mask = read_volume(self.inputs.template_mask)
        if self.inputs.extracted:
            found = register_affine(brain_of(head, mask, BRAIN_MARGIN_MM), t1w, pitches=EXTRACTED_PITCHES)
        else:
            near = binary_dilation(mask.data > 0.5, iterations=_margin(mask.grid, HEAD_MARGIN_MM))
            found = register_affine(head, t1w, mask=near)
        return {"affine": str(write_affine(folder / "affine.txt", found.matrix))}


class MaskIn(_AffineIn):
    """Inputs of the steps that register with the head template."""

    affine = File(exists=True, mandatory=True)
    iterations = traits.List(traits.Int, mandatory=True)
    sigma_diff = traits.Float(mandatory=True)


class _MaskOut(TraitedSpec):  # type: ignore[misc]
    mask = File(desc="brain mask on the T1w grid")


class BrainMask(Step):
    """Brain mask by SyN of the head template, or from the non-zero voxels of an extracted brain."""

    input_spec, output_spec, label = MaskIn, _MaskOut, "brain mask"

    def find(self, t1w: Volume, folder: Path) -> Array:
        """Return the mask (X, Y, Z) of a whole head; other engines differ in this only."""
        head, template_mask = read_volume(self.inputs.head), read_volume(self.inputs.template_mask)
        box = bounding_box(template_mask.data > 0.5, _margin(template_mask.grid, HEAD_MARGIN_MM))
        warp = register_syn(
            crop_volume(head, *box),
            block_mean(t1w, REGISTRATION_ZOOM),
            read_affine(self.inputs.affine),
            iterations=self.inputs.iterations,
            sigma_diff=self.inputs.sigma_diff,
        )
        return mask_from_template(warp, template_mask, t1w)

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        t1w = read_volume(self.inputs.t1w)
        mask = mask_from_nonzero(t1w) if self.inputs.extracted else self.find(t1w, folder)
        return {"mask": str(write_volume(folder / "mask.nii", mask, t1w.affine, dtype="uint8"))}


class _TissueIn(BaseInterfaceInputSpec):  # type: ignore[misc]
    t1w = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    to_template = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True, desc="template prior")
    wm = File(exists=True, mandatory=True)
    csf = File(exists=True, mandatory=True)
    key = traits.List(traits.Str(), mandatory=True, desc="key of the random choice of voxels: image and seed")


class _TissueOut(TraitedSpec):  # type: ignore[misc]
    gm = File(desc="probability on the T1w grid")
    wm = File()
    csf = File()
    dseg = File(desc="1 CSF, 2 GM, 3 WM")
    volumes = traits.Dict(desc="expected volume of each class, ml")


class Tissue(Step):
    """Gaussian mixture of CSF, GM and WM with warped template priors."""

    input_spec, output_spec, label = _TissueIn, _TissueOut, "tissue"

    def classify(self, t1w: Volume, inside: Array, folder: Path) -> Array:
        """Return the probabilities (N, 3) of the mask's voxels: CSF, GM, WM; other engines differ in this only."""
        world = map_points(read_field(self.inputs.to_template), apply_affine(t1w.affine, np.argwhere(inside)))
        priors = np.stack([sample(read_volume(getattr(self.inputs, name)), world) for name in CLASSES], axis=1)
        return segment(t1w.data[inside], priors, key=tuple(self.inputs.key))[0]

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        t1w, mask = read_volume(self.inputs.t1w), read_volume(self.inputs.mask)
        inside = mask.data > 0.5
        probability = self.classify(t1w, inside, folder)
        out: dict[str, Any] = {"volumes": {}}
        for k, name in enumerate(CLASSES):
            data = np.zeros(t1w.data.shape, dtype=np.float32)
            data[inside] = probability[:, k]
            out[name] = str(write_volume(folder / f"{name}.nii", data, t1w.affine))
            out["volumes"][f"{name}_ml"] = float(probability[:, k].sum(dtype=np.float64)) * t1w.grid.voxel_ml
        labels = np.zeros(t1w.data.shape, dtype=np.uint8)
        labels[inside] = 1 + probability.argmax(axis=1)
        out["dseg"] = str(write_volume(folder / "dseg.nii", labels, t1w.affine, dtype="uint8"))
        return out


class _OutIn(BaseInterfaceInputSpec):  # type: ignore[misc]
    t1w = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    csf = File(exists=True, mandatory=True)
    to_subject = File(exists=True, mandatory=True)
    jacobian = File(exists=True, mandatory=True)
    grid_shape = traits.List(traits.Int, mandatory=True)
    grid_affine = traits.List(traits.List(traits.Float), mandatory=True)


class _OutOut(TraitedSpec):  # type: ignore[misc]
    t1w_template = File()
    gm = File()
    wm = File()
    csf = File()
    jacobian = File()
    brain_mask = File()


class ToTemplate(Step):
    """Resample T1w (cubic), tissue maps and mask (linear) to the output grid; finer voxels are averaged first."""

    input_spec, output_spec, label = _OutIn, _OutOut, "resample anatomy to template"

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        x, y, z = (int(n) for n in self.inputs.grid_shape)
        grid = Grid((x, y, z), np.array(self.inputs.grid_affine, dtype=np.float64))
        zoom = float(grid.zooms.min())
        points = map_points(read_field(self.inputs.to_subject), grid.points())
        out: dict[str, Any] = {}
        for key, name, order in (
            ("t1w_template", "t1w", 3),
            ("gm", "gm", 1),
            ("wm", "wm", 1),
            ("csf", "csf", 1),
            ("brain_mask", "mask", 1),
        ):
            source = block_mean(read_volume(getattr(self.inputs, name)), zoom)
            values = sample(source, points, order=order).reshape(grid.shape)
            data = values > 0.5 if key == "brain_mask" else np.clip(values, 0, None)
            kind: Any = "uint8" if key == "brain_mask" else "float32"
            out[key] = str(write_volume(folder / f"{key}.nii", data, grid.affine, dtype=kind, template=True))
        change = read_volume(self.inputs.jacobian)
        data = change.data if change.grid.same_as(grid) else resample(change, grid, outside=1.0).data
        out["jacobian"] = str(write_volume(folder / "jacobian.nii", data, grid.affine, template=True))
        return out
