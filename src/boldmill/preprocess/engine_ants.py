"""Anatomical steps by ANTs: nipype's interfaces of the programs where they are on PATH, else the wheel antspyx.

ITK transforms map points of the fixed image to the moving image (LPS mm): with the template fixed that is the direction
kept here, so only the axes change sign. Axes: X Y Z voxels, C = 3 components.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.preprocess.affine import to_matrix, to_transform
from boldmill.preprocess.anat_interfaces import BiasField
from boldmill.preprocess.anat_warp import BrainWarp
from boldmill.preprocess.denoise import Denoise
from boldmill.preprocess.engines import find, programs
from boldmill.preprocess.images import Float, Volume, from_sitk, nib, read_volume, sitk, to_sitk, write_volume
from boldmill.preprocess.syn import Warp, scaled

SEED = 1
"""ANTs samples at random without one: two runs would differ."""
LINEAR = ([100, 50], [2, 1], [2.0, 1.0])
"""Iterations, shrink factors and smoothing (voxels) of the linear stages, coarse to fine."""


def wheel() -> Any:
    """Return antspyx, imported when first needed (it carries no types, and is optional)."""
    return importlib.import_module("ants")


def image_of(volume: Volume) -> Any:
    """Return the antspyx image of a volume."""
    itk = to_sitk(volume.data, volume.affine)
    return wheel().from_numpy(
        np.asarray(volume.data, dtype=np.float32),
        origin=itk.GetOrigin(),
        spacing=itk.GetSpacing(),
        direction=np.reshape(itk.GetDirection(), (3, 3)),
    )


def _on_path(step: str) -> bool:
    return programs(find(step, "ants"))


class AntsDenoise(Denoise):
    """Adaptive non-local means (Manjon 2010)."""

    label = "denoise (ANTs)"

    def interface(self, folder: Path) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import ants

        out = str(folder / "denoised.nii")
        given = self.inputs.t1w
        return ants.DenoiseImage(dimension=3, input_image=given, noise_model="Rician", output_image=out, num_threads=1)

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        volume = read_volume(self.inputs.t1w)
        if _on_path("denoise"):
            self.interface(folder).run(cwd=str(folder))
            data = read_volume(folder / "denoised.nii").data
        else:
            data = wheel().denoise_image(image_of(volume), noise_model="Rician").numpy()
        data = np.where(volume.data == 0, 0, np.clip(data, 0, None))  # an extracted brain stays one
        return {"t1w": str(write_volume(folder / "t1w.nii", data, volume.affine)), "sigma": 0.0}


class AntsBiasField(BiasField):
    """N4 of ANTs inside Otsu's foreground."""

    label = "N4 (ANTs)"

    def interface(self, folder: Path, mask: Path, shrink: int) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import ants

        return ants.N4BiasFieldCorrection(
            dimension=3, input_image=self.inputs.t1w, mask_image=str(mask), shrink_factor=shrink,
            n_iterations=list(self.inputs.iterations), convergence_threshold=1e-7,
            output_image=str(folder / "n4.nii"), num_threads=1,
        )  # fmt: skip

    def correct(self, volume: Volume, folder: Path) -> Volume:
        """Return the corrected image."""
        itk = sitk()
        inside = from_sitk(itk.OtsuThreshold(to_sitk(volume.data, volume.affine), 0, 1, 200)).data
        shrink = max(1, round(self.inputs.grid / float(volume.grid.zooms.min())))
        if _on_path("n4"):
            mask = write_volume(folder / "otsu.nii", inside, volume.affine, dtype="uint8")
            self.interface(folder, mask, shrink).run(cwd=str(folder))
            data = read_volume(folder / "n4.nii").data
        else:
            data = wheel().n4_bias_field_correction(
                image_of(volume), mask=image_of(volume.like(inside)), shrink_factor=shrink,
                convergence={"iters": list(self.inputs.iterations), "tol": 1e-7}, rescale_intensities=False,
            ).numpy()  # fmt: skip
        return volume.like(np.asarray(data, dtype=np.float32))


def registration(
    fixed: Path, moving: Path, start: Path, folder: Path, *, stages: Sequence[str], syn: Sequence[int] = (),
    flow: float = 3.0, mask: Path | None = None,
) -> Any:  # fmt: skip
    """Return nipype's interface of antsRegistration from a start, with Mattes mutual information.

    Parameters
    ----------
    fixed, moving, start : Path
        Images and an ITK affine from fixed to moving.
    folder : Path
        The transforms are left here: ``ants_0GenericAffine.mat``, ``ants_1Warp.nii.gz``, ``ants_1InverseWarp.nii.gz``.
    stages : sequence of str
        Of ``Rigid``, ``Affine``, ``SyN``.
    syn : sequence of int
        Iterations of SyN, coarse to fine; the finest level is the fixed grid.
    flow : float
        Variance by which the update field is smoothed, voxels squared.
    mask : Path, optional
        Where the fixed image counts.
    """
    from nipype.interfaces import ants

    linear = {"Rigid": (0.1,), "Affine": (0.1,), "SyN": (0.2, flow, 0.0)}
    levels = len(syn)
    of_syn = (list(syn), [2 ** (levels - 1 - i) for i in range(levels)], [float(levels - 1 - i) for i in range(levels)])
    plan = [of_syn if stage == "SyN" else LINEAR for stage in stages]
    more = {"fixed_image_masks": [str(mask)] * len(stages)} if mask else {}
    return ants.Registration(
        fixed_image=str(fixed), moving_image=str(moving), initial_moving_transform=[str(start)],
        transforms=list(stages), transform_parameters=[linear[stage] for stage in stages],
        metric=["Mattes"] * len(stages), metric_weight=[1.0] * len(stages),
        radius_or_number_of_bins=[32] * len(stages), sampling_strategy=["None"] * len(stages),
        number_of_iterations=[p[0] for p in plan], shrink_factors=[p[1] for p in plan],
        smoothing_sigmas=[p[2] for p in plan], sigma_units=["vox"] * len(stages),
        convergence_threshold=[1e-6] * len(stages), convergence_window_size=[10] * len(stages),
        collapse_output_transforms=True, write_composite_transform=False, use_histogram_matching=False,
        output_transform_prefix=str(folder / "ants_"), random_seed=SEED, num_threads=1, float=True, **more,
    )  # fmt: skip


def read_matrix(path: str | Path) -> Float:
    """Return the RAS matrix of an ITK affine or rigid transform file: fixed world to moving world."""
    return to_matrix(sitk().ReadTransform(str(path)).Downcast())


def write_matrix(path: Path, matrix: Float) -> Path:
    """Write a RAS matrix as an ITK affine transform file (``.mat``)."""
    sitk().WriteTransform(to_transform(matrix, np.zeros(3)), str(path))
    return path


def read_itk_field(path: str | Path) -> Volume:
    """Return the displacement field (X, Y, Z, C) of an ITK warp file, RAS mm; the file holds LPS in a fifth axis."""
    image: Any = nib().load(str(path))
    shift = np.asarray(image.dataobj, dtype=np.float32).reshape(*image.shape[:3], 3)
    return Volume(shift * np.array([-1, -1, 1], dtype=np.float32), np.asarray(image.affine, dtype=np.float64))


class AntsBrainWarp(BrainWarp):
    """Affine and SyN of ANTs (mutual information), from the same start and on the same grid as the default engine."""

    label = "brain affine and SyN (ANTs)"

    def prepare(self, fixed: Volume, moving: Volume, start: Float) -> Float:
        """Return the start: the affine is a stage of the registration."""
        return start

    def register(self, fixed: Volume, moving: Volume, affine: Float, sigma: float, folder: Path) -> Warp:
        """Return the warp; ``sigma`` 2 stands for ANTs' own smoothing of 3 voxels squared."""
        start = write_matrix(folder / "start.mat", affine)
        flow = 0.75 * sigma**2
        images = [v.like(scaled(v.data)) for v in (fixed, moving)]
        if _on_path("normalise"):
            first, second = (
                write_volume(folder / name, v.data, v.affine)
                for name, v in zip(("fixed.nii", "moving.nii"), images, strict=True)
            )
            run = registration(
                first, second, start, folder, stages=["Affine", "SyN"], syn=self.inputs.iterations, flow=flow
            )
            run.run(cwd=str(folder))
            names = [str(folder / f"ants_{n}") for n in ("1Warp.nii.gz", "0GenericAffine.mat", "1InverseWarp.nii.gz")]
        else:
            names = self._wheel(images[0], images[1], start, flow, folder)
        forward, matrix, backward = read_itk_field(names[0]), read_matrix(names[1]), read_itk_field(names[2])
        return Warp(matrix, forward, backward)

    def _wheel(self, fixed: Volume, moving: Volume, start: Path, flow: float, folder: Path) -> list[str]:
        iterations, shrink, smooth = LINEAR
        found = wheel().registration(
            image_of(fixed), image_of(moving), type_of_transform="SyN", initial_transform=str(start),
            outprefix=str(folder / "ants_"), flow_sigma=flow, syn_metric="mattes",
            reg_iterations=tuple(self.inputs.iterations), aff_iterations=tuple(iterations),
            aff_shrink_factors=tuple(shrink), aff_smoothing_sigmas=tuple(smooth), random_seed=SEED,
        )  # fmt: skip
        warp, matrix = found["fwdtransforms"]
        inverse = next(name for name in found["invtransforms"] if name.endswith(".nii.gz"))
        return [str(warp), str(matrix), str(inverse)]
