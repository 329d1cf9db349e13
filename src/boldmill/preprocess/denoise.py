"""T1w denoising: non-local means with a Rician noise model (dipy), off by default.

Coupe 2008 (doi 10.1109/TMI.2007.906087). Axes: X Y Z voxels (RAS).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from boldmill.preprocess.foreground import foreground
from boldmill.preprocess.images import Array, Volume, read_volume, write_volume
from boldmill.preprocess.nodes import Step
from boldmill.preprocess.transforms import resample

MAD = 0.6745
"""Median absolute deviation of a standard normal variable."""


def noise_sigma(data: Array, mask: Array) -> float:
    """Estimate the standard deviation of the noise in the tissue.

    Pseudo-residuals ``sqrt(6/7) (x - mean of the six neighbours)`` have the noise's variance where the signal is
    flat; the median absolute deviation over the mask keeps edges out. Where the signal is well above the noise, as in
    tissue, it is the parameter of the Rician distribution.

    Parameters
    ----------
    data : array (X, Y, Z)
    mask : bool array (X, Y, Z)
        Tissue.
    """
    from scipy.ndimage import convolve

    kernel = np.zeros((3, 3, 3), dtype=np.float32)
    for where in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        kernel[where] = 1 / 6
    residual = np.sqrt(6 / 7) * (data - convolve(np.asarray(data, dtype=np.float32), kernel))[mask]
    return float(np.median(np.abs(residual - np.median(residual))) / MAD)


def denoise(volume: Volume) -> tuple[Volume, float]:
    """Remove noise by non-local means inside the head; outside, the image is unchanged.

    Returns
    -------
    denoised : Volume
    sigma : float
        Estimated noise, in units of the image.
    """
    from dipy.denoise.nlmeans import nlmeans

    mask, grid = foreground(volume)
    inside = resample(Volume(mask.astype(np.float32), grid.affine), volume.grid).data > 0.5
    inside &= volume.data > 0
    sigma = noise_sigma(volume.data, inside)
    if sigma == 0:
        return volume, 0.0
    data = np.ascontiguousarray(volume.data, dtype=np.float64)
    clean = nlmeans(data, sigma=sigma, mask=inside, patch_radius=1, block_radius=2, rician=True, num_threads=1)
    return volume.like(np.where(inside, np.clip(clean, 0, None), volume.data).astype(np.float32)), sigma


class _DenoiseIn(BaseInterfaceInputSpec):  # type: ignore[misc]
    t1w = File(exists=True, mandatory=True)


class _DenoiseOut(TraitedSpec):  # type: ignore[misc]
    t1w = File(desc="denoised")
    sigma = traits.Float(desc="estimated noise; 0 where the engine does not say")


class Denoise(Step):
    """Non-local means."""

    input_spec, output_spec, label = _DenoiseIn, _DenoiseOut, "denoise"

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        clean, sigma = denoise(read_volume(self.inputs.t1w))
        return {"t1w": str(write_volume(folder / "t1w.nii", clean.data, clean.affine)), "sigma": sigma}
