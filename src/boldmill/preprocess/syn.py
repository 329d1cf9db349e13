"""Non-linear registration: symmetric diffeomorphic (SyN, Avants 2008) with local cross-correlation, of dipy.

The subject is first resampled to the template by its affine; the two SyN fields composed with the affine give
the template to subject mapping and its inverse. Axes: X Y Z voxels, N points, C = 3 components.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boldmill.preprocess.images import Array, Float, Volume
from boldmill.preprocess.transforms import apply_affine, map_points, resample


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """Affine (template world to subject world) and the two SyN fields on the template grid, mm."""

    affine: Float
    forward: Volume
    backward: Volume

    def to_subject(self, xyz: Array) -> Float:
        """Map template world points (N, 3) to subject world."""
        return apply_affine(self.affine, map_points(self.forward, xyz))

    def to_template(self, xyz: Array) -> Float:
        """Map subject world points (N, 3) to template world."""
        return map_points(self.backward, apply_affine(np.asarray(np.linalg.inv(self.affine)), xyz))


def scaled(data: Array, mask: Array | None = None) -> Array:
    """Divide by the 99th percentile of the positive voxels, so that intensities are comparable; float32."""
    values = data[data > 0] if mask is None else data[mask]
    return np.asarray(np.clip(data / np.percentile(values, 99), 0, 1.5), dtype=np.float32)


def register_syn(
    template: Volume,
    subject: Volume,
    affine: Float,
    *,
    iterations: Sequence[int] = (50, 50, 10),
    sigma_diff: float = 2.0,
    radius: int = 2,
) -> Warp:
    """Register by SyN with cross-correlation.

    Parameters
    ----------
    template, subject : Volume
        Images of the same kind (both heads or both brains); the subject's grid is free.
    affine : array (4, 4)
        Template world to subject world.
    iterations : sequence of int
        Per level, coarse to fine; the finest level is the template's grid.
    sigma_diff : float
        Gaussian smoothing of the update field, voxels; larger is smoother.
    radius : int
        Radius of the correlation window, voxels.
    """
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    logging.getLogger("dipy").setLevel(logging.ERROR)
    static = scaled(template.data)
    moving = scaled(resample(subject, template.grid, lambda x: apply_affine(affine, x)).data)
    engine = SymmetricDiffeomorphicRegistration(
        CCMetric(3, sigma_diff=sigma_diff, radius=radius), level_iters=[int(n) for n in iterations]
    )
    engine.verbosity = 0
    mapping = engine.optimize(static, moving, static_grid2world=template.affine, moving_grid2world=template.affine)
    forward = np.asarray(mapping.get_forward_field(), dtype=np.float32)
    backward = np.asarray(mapping.get_backward_field(), dtype=np.float32)
    return Warp(affine, template.like(forward), template.like(backward))
