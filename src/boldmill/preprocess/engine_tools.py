"""Anatomical steps by FSL and AFNI: nipype's own interfaces, with what goes in and comes out as the default engine's.

These programs are not part of any wheel; the tests check the command lines and what is read back, not the programs.
Axes: X Y Z voxels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boldmill.errors import MachineFault
from boldmill.preprocess.anat_interfaces import BrainMask, Tissue
from boldmill.preprocess.brainmask import checked
from boldmill.preprocess.foreground import largest_component
from boldmill.preprocess.images import Array, Volume, read_volume, write_volume
from boldmill.preprocess.transforms import resample

NIFTI = "NIFTI"
"""Output type: uncompressed, so that names are known."""


def on_grid(path: str | Path, like: Volume, order: int = 1) -> Array:
    """Return an image a program wrote on the grid it was given; a reoriented one is brought back.

    Raises
    ------
    MachineFault
        The program left no file.
    """
    if not Path(path).is_file():
        fix = "run the program by hand on this image, and look at its messages"
        raise MachineFault("external engine failed", path, "it left no output", fix)
    found = read_volume(path, what="output of an external engine")
    return found.data if found.grid.same_as(like.grid) else resample(found, like.grid, order=order).data


class BetMask(BrainMask):
    """FSL's BET, with its robust centre."""

    label = "brain mask (BET)"

    def interface(self, folder: Path) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import fsl

        return fsl.BET(
            in_file=self.inputs.t1w, out_file=str(folder / "bet.nii"), mask=True, robust=True, output_type=NIFTI
        )

    def find(self, t1w: Volume, folder: Path) -> Array:
        """Return the mask."""
        self.interface(folder).run(cwd=str(folder))
        return checked(largest_component(on_grid(folder / "bet_mask.nii", t1w) > 0.5), t1w.grid)


class SkullStripMask(BrainMask):
    """AFNI's 3dSkullStrip; the mask is where its output is not zero, with holes filled."""

    label = "brain mask (3dSkullStrip)"

    def interface(self, folder: Path) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import afni

        return afni.SkullStrip(
            in_file=self.inputs.t1w, out_file=str(folder / "stripped.nii"), args="-orig_vol", outputtype=NIFTI
        )

    def find(self, t1w: Volume, folder: Path) -> Array:
        """Return the mask."""
        from scipy.ndimage import binary_fill_holes

        self.interface(folder).run(cwd=str(folder))
        kept = on_grid(folder / "stripped.nii", t1w) > 0
        return checked(binary_fill_holes(largest_component(kept)), t1w.grid)


class FastTissue(Tissue):
    """FSL's FAST on the extracted brain; the bias field was removed before."""

    label = "tissue (FAST)"

    def interface(self, folder: Path, brain: Path) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import fsl

        return fsl.FAST(
            in_files=[str(brain)], img_type=1, number_classes=3, no_bias=True, out_basename=str(folder / "fast"),
            output_type=NIFTI,
        )  # fmt: skip

    def classify(self, t1w: Volume, inside: Array, folder: Path) -> Array:
        """Return the probabilities; FAST numbers the classes of a T1w by intensity: CSF, GM, WM."""
        data = np.where(inside, t1w.data, 0).astype(np.float32)
        brain = write_volume(folder / "brain.nii", data, t1w.affine)
        self.interface(folder, brain).run(cwd=str(folder))
        parts = np.stack([on_grid(folder / f"fast_pve_{k}.nii", t1w)[inside] for k in range(3)], axis=1)
        total = parts.sum(axis=1, keepdims=True)
        return np.asarray(np.where(total > 0, parts / np.maximum(total, 1e-6), [1.0, 0.0, 0.0]), dtype=np.float32)
