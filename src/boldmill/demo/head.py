"""The head every demo subject is made from: ICBM brain, synthetic skull, scalp, face and neck, on one template grid.

The brain is the symmetric ICBM 2009a average that nilearn carries; everything outside it is painted from distances:
cerebrospinal fluid, skull with marrow, muscle, fat and skin around a smooth hull of the brain, and below it a face with
eyes, nasal cavity and airway, and a neck with a spine.

Axis legend: X Y Z of the 2 mm template grid (RAS); fields are float32 of shape (X, Y, Z).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.demo.geometry import Floats, smooth_noise, world_grid
from boldmill.demo.parameters import SPACE
from boldmill.rng import generator

VOXEL_MM = 2.0
PAD = ((0, 0), (0, 8), (34, 0))
"""Voxels added around nilearn's grid for the nose and the neck."""
SCALP_MM = 14.0
CLOSING_MM = 12.0
LABEL_REACH_MM = 5.0

# Relative intensities (T1-weighted, T2*-weighted with fat saturation).
TISSUE = {
    "muscle": (0.40, 0.34),
    "fat": (0.86, 0.10),
    "skin": (0.52, 0.22),
    "bone": (0.07, 0.04),
    "marrow": (0.50, 0.14),
    "fluid": (0.17, 1.00),
    "vitreous": (0.16, 1.05),
    "air": (0.01, 0.01),
    "cord": (0.74, 0.66),
}
T2STAR_BRAIN = {"gm": 0.80, "wm": 0.64, "csf": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Fields of the template head.

    ``brain`` (T1w intensity, WM about .87), ``mask``, ``gm``/``wm``/``csf`` (probabilities); ``hull`` is the distance
    in mm from the smooth hull of the brain (negative inside), ``body`` that from face and neck; ``vessels`` weights
    large veins and arteries; ``labels`` are parcel ids grown to cover the cortex, ``parcels`` the atlas' own.
    """

    affine: Floats
    brain: Floats
    mask: Floats
    gm: Floats
    wm: Floats
    csf: Floats
    hull: Floats
    body: Floats
    vessels: Floats
    texture: Floats
    labels: NDArray[np.int16]
    parcels: NDArray[np.int16]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the template grid."""
        x, y, z = self.brain.shape
        return x, y, z

    def save(self, path: Path) -> None:
        """Write the fields for the worker processes."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})

    def centroids(self) -> Floats:
        """Return the parcels' centroids in mm, shape (100, 3)."""
        from scipy import ndimage

        index = ndimage.center_of_mass(self.parcels > 0, self.parcels, range(1, int(self.parcels.max()) + 1))
        return np.asarray(np.array(index) @ self.affine[:3, :3].T + self.affine[:3, 3])


def build_head() -> Head:
    """Return the template head, from nilearn's ICBM maps and the embedded atlas."""
    from nilearn import datasets
    from scipy import ndimage

    from boldmill.spaces.embedded import schaefer_volume

    image = datasets.load_mni152_template(resolution=round(VOXEL_MM))
    affine = np.array(image.affine, dtype=float)
    affine[:3, 3] -= [pad[0] * VOXEL_MM for pad in PAD]

    def padded(volume: Any) -> Floats:
        return np.pad(np.asarray(volume.dataobj, dtype=np.float32), PAD)

    mask = padded(datasets.load_mni152_brain_mask(resolution=round(VOXEL_MM)))
    gm = padded(datasets.load_mni152_gm_template(resolution=round(VOXEL_MM))) * mask
    wm = padded(datasets.load_mni152_wm_template(resolution=round(VOXEL_MM))) * mask
    excess = np.maximum(gm + wm, 1.0)
    gm, wm = gm / excess, wm / excess
    csf = np.clip(mask - gm - wm, 0.0, 1.0)
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    world = world_grid(affine, shape)
    hull = _hull_distance(mask > 0)
    parcels = schaefer_volume(SPACE, affine, shape)
    distance, nearest = ndimage.distance_transform_edt(
        parcels == 0, sampling=VOXEL_MM, return_distances=True, return_indices=True
    )
    return Head(
        affine=affine,
        brain=padded(image) * mask,
        mask=mask,
        gm=gm,
        wm=wm,
        csf=csf,
        hull=hull,
        body=_body(world),
        vessels=_vessels(world, hull),
        texture=smooth_noise(generator("demo", "texture"), shape, affine, world, 7.0).astype(np.float32),
        labels=np.where(distance <= LABEL_REACH_MM, parcels[tuple(nearest)], 0).astype(np.int16),
        parcels=np.array(parcels, dtype=np.int16),
    )


def _hull_distance(mask: NDArray[np.bool_]) -> Floats:
    """Signed distance (mm) from the brain mask closed by ``CLOSING_MM``, smoothed."""
    from scipy import ndimage

    outside = ndimage.distance_transform_edt(~mask, sampling=VOXEL_MM)
    closed = ndimage.distance_transform_edt(outside < CLOSING_MM, sampling=VOXEL_MM) > CLOSING_MM
    closed |= mask
    signed = ndimage.distance_transform_edt(~closed, sampling=VOXEL_MM) - ndimage.distance_transform_edt(
        closed, sampling=VOXEL_MM
    )
    return np.asarray(ndimage.gaussian_filter(signed, 1.2), dtype=np.float32)


def _ellipsoid(world: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """Approximate signed distance (mm) from an ellipsoid; negative inside."""
    scaled = np.linalg.norm((world - np.array(centre, np.float32)) / np.array(radii, np.float32), axis=-1)
    return np.asarray((scaled - 1) * min(radii), dtype=np.float32)


def _smooth_union(a: Floats, b: Floats, width: float) -> Floats:
    """Union of two signed distances with a fillet of ``width`` mm."""
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return np.asarray(b + (a - b) * h - width * h * (1 - h), dtype=np.float32)


def _body(world: Floats) -> Floats:
    """Signed distance (mm) from face, nose, jaw and neck."""
    face = _ellipsoid(world, (0, 40, -48), (64, 50, 62))
    nose = _ellipsoid(world, (0, 90, -58), (13, 17, 22))
    jaw = _ellipsoid(world, (0, 52, -98), (46, 40, 34))
    tilt = world[..., 1] + 18 - 0.25 * (world[..., 2] + 100)
    across = np.hypot(world[..., 0] / 56, tilt / 62)
    neck = np.maximum((across - 1) * 56, world[..., 2] + 45).astype(np.float32)
    ears = np.minimum(_ellipsoid(world, (88, -22, -32), (7, 17, 28)), _ellipsoid(world, (-88, -22, -32), (7, 17, 28)))
    whole = _smooth_union(_smooth_union(face, jaw, 14), nose, 8)
    return np.minimum(_smooth_union(whole, neck, 24), ears)


def _vessels(world: Floats, hull: Floats) -> Floats:
    """Weight of large vessels: superior sagittal and transverse sinuses, and the arteries of the skull base."""
    x, y, z = np.moveaxis(world, -1, 0)
    sagittal = np.exp(-((x / 4) ** 2) - ((hull - 1) / 4) ** 2) * (z > 0)
    transverse = np.exp(-(((z + 22) / 5) ** 2) - ((hull - 1) / 4) ** 2) * (y < -55)
    base = np.exp(-((x / 16) ** 2) - ((y - 2) / 12) ** 2 - ((z + 24) / 6) ** 2)
    return np.asarray(np.clip(sagittal + transverse + base, 0, 1), dtype=np.float32)


def _inside(distance: Floats, softness: float = VOXEL_MM) -> Floats:
    """Share of a voxel inside a signed distance (soft edge of about one voxel)."""
    return np.asarray(np.clip(0.5 - distance / softness, 0, 1))


def paint(head: Head, thickness: float = 1.0, brain_gamma: float = 1.0) -> tuple[Floats, Floats]:
    """Return the T1w and the T2*w image of the head on the template grid, float32, white matter near .87 in the T1w.

    Parameters
    ----------
    thickness : float
        Scale of the layers outside the brain (skull, muscle, scalp); 1 is the template's own.
    brain_gamma : float
        Exponent of the brain's T1w intensities: a site's own contrast.
    """
    world = world_grid(head.affine, head.shape)
    layer = head.hull / thickness
    outline = _smooth_union(layer - SCALP_MM, head.body, 10.0)
    t1w, t2s = np.zeros(head.shape, np.float32), np.zeros(head.shape, np.float32)

    def put(weight: Floats, tissue: str) -> None:
        for canvas, value in zip((t1w, t2s), TISSUE[tissue], strict=True):
            canvas += weight * (value - canvas)

    put(_inside(outline), "muscle")
    put(_inside(outline) * _inside(-outline - 6.5 * thickness - head.texture), "fat")
    put(_inside(outline) * _inside(-outline - 2.2), "skin")
    put(_inside(_ellipsoid(world, (0, 66, -52), (15, 20, 20))), "air")
    put(0.8 * _inside(np.abs(world[..., 0]) - 1.0) * _inside(_ellipsoid(world, (0, 66, -52), (6, 20, 20))), "skin")
    tube = np.hypot(world[..., 0] / 11, (world[..., 1] - 12 - 0.2 * (world[..., 2] + 100)) / 7) - 1
    put(_inside(np.maximum(tube * 7, np.maximum(world[..., 2] + 62, -160 - world[..., 2]))), "air")
    put(0.7 * _inside(_ellipsoid(world, (0, 52, -86), (24, 26, 15))), "muscle")
    spine_y = world[..., 1] + 34 - 0.3 * (world[..., 2] + 100)
    below = world[..., 2] + 74
    vertebra = np.maximum((np.hypot(world[..., 0] / 16, (spine_y - 14) / 13) - 1) * 13, below)
    put(_inside(vertebra), "bone")
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * world[..., 2] / 19)
    put(_inside(vertebra + 3) * (discs > 0.12), "marrow")
    canal = np.maximum((np.hypot(world[..., 0] / 11, (spine_y + 9) / 9) - 1) * 9, world[..., 2] + 68)
    put(_inside(canal - 4), "bone")
    put(_inside(canal), "fluid")
    put(_inside(canal + 4), "cord")
    put(_inside(layer - 8.5 - 0.8 * head.texture), "bone")
    put(_inside(np.abs(layer - 5.2) - 1.1 - 0.5 * head.texture), "marrow")
    put(_inside(layer - 2.0), "fluid")
    for side in (-1, 1):
        eye = _ellipsoid(world, (33.0 * side, 66, -34), (13, 13, 13))
        put(_inside(np.maximum(_ellipsoid(world, (31.0 * side, 52, -34), (17, 26, 17)), 3.0 - layer)), "fat")
        put(_inside(np.maximum(eye, 3.0 - layer)), "vitreous")
        put(_inside(_ellipsoid(world, (33.0 * side, 76, -34), (5, 3, 5))), "muscle")
    body_texture = 1 + 0.08 * head.texture * (1 - head.mask)
    t1w *= body_texture
    t2s *= body_texture
    brain_t2s = sum(getattr(head, name) * value for name, value in T2STAR_BRAIN.items())
    brain_t1w = 0.9 * (head.brain / 0.9) ** brain_gamma
    t1w += head.mask * (brain_t1w - t1w)
    t2s += head.mask * (brain_t2s - t2s)
    return t1w.astype(np.float32), t2s.astype(np.float32)
