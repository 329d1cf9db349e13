"""The brain-to-brain registration as a nipype interface: affine, warp, its inverse, Jacobian and quality figures.

Scratch files are uncompressed NIfTI in the node's folder. Axes: X Y Z voxels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, traits

from boldmill.preprocess.affine import refine
from boldmill.preprocess.anat_interfaces import BRAIN_MARGIN_MM, REGISTRATION_ZOOM, MaskIn, brain_of
from boldmill.preprocess.anat_quality import overlap, warp_figures
from boldmill.preprocess.foreground import block_mean
from boldmill.preprocess.images import Float, Volume, read_volume, write_volume
from boldmill.preprocess.nodes import Step
from boldmill.preprocess.syn import Warp, register_syn
from boldmill.preprocess.transforms import dense_field, jacobian, read_affine, resample, write_affine, write_field

RETRY_JACOBIAN = 0.1
"""A voxel crushed below this share of its volume: register again, smoother."""
SMOOTH_SIGMA = 3.0


class WarpIn(MaskIn):
    """Inputs: those of the brain mask, and the mask."""

    mask = File(exists=True, mandatory=True)


class WarpOut(TraitedSpec):  # type: ignore[misc]
    """Outputs: the mapping in both directions, its volume change, and figures."""

    affine = File(desc="template world to T1w world, brain to brain")
    to_subject = File(desc="displacement field on the template grid")
    to_template = File(desc="displacement field on a coarse T1w grid")
    jacobian = File(desc="volume change of to_subject, affine included, on the template grid")
    figures = traits.Dict(desc="quality of the registration")


class BrainWarp(Step):
    """Brain to brain: affine, then SyN; once more with a smoother field where a voxel is crushed below a tenth.

    With ``extracted`` the given affine is one between brains already; else it is that of the heads, and is refined.
    """

    input_spec, output_spec, label = WarpIn, WarpOut, "brain affine and SyN"

    def prepare(self, fixed: Volume, moving: Volume, start: Float) -> Float:
        """Return the affine the warp starts from."""
        return start if self.inputs.extracted else refine(fixed, moving, start)[0]

    def register(self, fixed: Volume, moving: Volume, affine: Float, sigma: float, folder: Path) -> Warp:
        """Return the warp; other engines differ in this and :meth:`prepare` only."""
        return register_syn(fixed, moving, affine, iterations=self.inputs.iterations, sigma_diff=sigma)

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        t1w, mask = read_volume(self.inputs.t1w), read_volume(self.inputs.mask)
        head, template_mask = read_volume(self.inputs.head), read_volume(self.inputs.template_mask)
        fixed = brain_of(head, template_mask, BRAIN_MARGIN_MM)
        moving = block_mean(brain_of(t1w, mask, 2.0), REGISTRATION_ZOOM)
        affine = self.prepare(fixed, moving, read_affine(self.inputs.affine))
        sigma = float(self.inputs.sigma_diff)
        for attempt in dict.fromkeys((sigma, max(sigma, SMOOTH_SIGMA))):
            warp = self.register(fixed, moving, affine, attempt, folder)
            field = dense_field(warp.to_subject, head.grid)
            change = jacobian(field)
            figures = warp_figures(head, template_mask, moving, warp, change)
            if figures["jacobian_min"] >= RETRY_JACOBIAN:
                break
        figures["syn_sigma_diff"] = attempt
        moved = resample(mask, head.grid, warp.to_subject).data > 0.5
        figures["template_mask_dice"] = overlap(moved, template_mask.data > 0.5)
        inverse = dense_field(warp.to_template, block_mean(t1w, REGISTRATION_ZOOM).grid)
        return {
            "affine": str(write_affine(folder / "affine.txt", warp.affine)),
            "to_subject": str(write_field(folder / "to_subject.nii", field)),
            "to_template": str(write_field(folder / "to_template.nii", inverse, template=False)),
            "jacobian": str(write_volume(folder / "jacobian.nii", change, head.affine)),
            "figures": figures,
        }
