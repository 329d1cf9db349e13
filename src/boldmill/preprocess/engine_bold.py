"""Functional steps by ANTs, FSL and AFNI: nipype's own interfaces, results as the default engine's.

FSL and AFNI are part of no wheel: the tests check the command lines and what is read back, not the programs. Matrices
are world matrices (RAS mm) in the directions of the default engine. Axes: X Y Z voxels, T time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.errors import MachineFault
from boldmill.preprocess import coreg, reference
from boldmill.preprocess.affine import centre_of_mass
from boldmill.preprocess.bold_interfaces import Coregister, EstimateMotion
from boldmill.preprocess.engine_ants import SEED, image_of, read_matrix, registration, wheel, write_matrix
from boldmill.preprocess.engines import find, programs
from boldmill.preprocess.frames import Frames
from boldmill.preprocess.images import Array, Float, Grid, Volume, nib, write_volume
from boldmill.preprocess.syn import scaled
from boldmill.preprocess.toolmatrices import from_fsl, plumb, read_mcflirt, read_volreg

NIFTI = "NIFTI"


def write_series(path: Path, series: Frames, affine: Float, tr: float = 1.0) -> Path:
    """Write a scratch series as an uncompressed float32 NIfTI, one volume in memory at a time."""
    header: Any = nib().Nifti1Header(endianness="<")
    header.set_data_dtype("<f4")
    header.set_data_shape(series.shape)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((*header.get_zooms()[:3], tr))
    header["vox_offset"] = 352
    with open(path, "wb") as handle:
        header.write_to(handle)
        handle.write(b"\0" * (352 - handle.tell()))
        for t in range(series.n_volumes):
            handle.write(np.asarray(series.volume(t), dtype="<f4").tobytes(order="F"))
    return path


def read_series(path: Path, like: Frames, target: str | Path) -> Frames:
    """Read a 4D NIfTI a program wrote back into a scratch series of the same shape.

    Raises
    ------
    MachineFault
        There is none, or its shape is another.
    """
    fix = "run the program by hand on this image, and look at its messages"
    if not path.is_file():
        raise MachineFault("external engine failed", path, "it left no output", fix)
    image: Any = nib().load(str(path))
    if tuple(image.shape) != like.shape:
        raise MachineFault("external engine failed", path, f"its shape is {image.shape}, not {like.shape}", fix)
    made = Frames.create(target, like.shape)
    with made.open() as handle:
        for t in range(like.n_volumes):
            data = np.asarray(image.dataobj[..., t], dtype=np.float32)
            made.write(handle, t, np.where(np.isfinite(data), data, np.float32(0)))
    return made


class ExternalMotion(EstimateMotion):
    """Motion by another program; reference and mask are made as by the default engine."""

    def aligner(self, series: Frames, grid: Grid, folder: Path) -> Callable[[Array], Float]:
        """Return what finds the motion (T, 4, 4) against a target image."""
        raise TypeError(f"{type(self).__name__} has no aligner")

    def estimate(self, series: Frames, grid: Grid, folder: Path) -> reference.Reference:
        """Return reference and motion."""
        align = self.aligner(series, grid, folder)
        return reference.estimate_by(series, grid.affine, align, to_mean=self.inputs.target == "mean")


class McflirtMotion(ExternalMotion):
    """FSL's MCFLIRT."""

    label = "motion (MCFLIRT)"

    def interface(self, series: Path, target: Path, folder: Path) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import fsl

        out = str(folder / "mcflirt.nii")
        return fsl.MCFLIRT(in_file=str(series), ref_file=str(target), out_file=out, save_mats=True, output_type=NIFTI)

    def aligner(self, series: Frames, grid: Grid, folder: Path) -> Callable[[Array], Float]:
        """Return a call of MCFLIRT."""
        path = write_series(folder / "series.nii", series, grid.affine)

        def align(image: Array) -> Float:
            target = write_volume(folder / "target.nii", image, grid.affine)
            self.interface(path, target, folder).run(cwd=str(folder))
            return read_mcflirt(folder / "mcflirt.nii.mat", series.n_volumes, grid)

        return align


class VolregMotion(ExternalMotion):
    """AFNI's 3dvolreg, on a plumb copy."""

    label = "motion (3dvolreg)"

    def interface(self, series: Path, target: Path, folder: Path) -> Any:
        """Return nipype's interface, ready to run."""
        from nipype.interfaces import afni

        return afni.Volreg(
            in_file=str(series), basefile=str(target), zpad=4, oned_file=str(folder / "volreg.1D"),
            md1d_file=str(folder / "volreg_md.1D"), oned_matrix_save=str(folder / "volreg.aff12.1D"),
            out_file=str(folder / "volreg.nii"), outputtype=NIFTI,
        )  # fmt: skip

    def aligner(self, series: Frames, grid: Grid, folder: Path) -> Callable[[Array], Float]:
        """Return a call of 3dvolreg."""
        straight = plumb(grid)
        path = write_series(folder / "series.nii", series, straight.affine)

        def align(image: Array) -> Float:
            target = write_volume(folder / "target.nii", image, straight.affine)
            for left in folder.glob("volreg*"):  # AFNI overwrites nothing
                left.unlink()
            self.interface(path, target, folder).run(cwd=str(folder))
            return read_volreg(folder / "volreg.aff12.1D", series.n_volumes, grid)

        return align


def ants_rigid(fixed: Volume, moving: Volume, start: Float, folder: Path, step: str, metric: str = "mattes") -> Float:
    """Return the rigid matrix (4, 4) from fixed to moving world, by ANTs."""
    begin = write_matrix(folder / "start.mat", start)
    if programs(find(step, "ants")):
        paths = [
            write_volume(folder / name, v.data, v.affine) for name, v in (("fixed.nii", fixed), ("moving.nii", moving))
        ]
        registration(paths[0], paths[1], begin, folder, stages=["Rigid"]).run(cwd=str(folder))
        return read_matrix(folder / "ants_0GenericAffine.mat")
    found = wheel().registration(
        image_of(fixed), image_of(moving), type_of_transform="Rigid", initial_transform=str(begin),
        outprefix=str(folder / "ants_"), aff_metric=metric, aff_iterations=(100, 50), aff_shrink_factors=(2, 1),
        aff_smoothing_sigmas=(1, 0), aff_random_sampling_rate=1.0, random_seed=SEED,
    )  # fmt: skip
    return read_matrix(found["fwdtransforms"][0])


class AntsMotion(ExternalMotion):
    """A rigid registration of every volume, started from the volume before it."""

    label = "motion (ANTs)"

    def aligner(self, series: Frames, grid: Grid, folder: Path) -> Callable[[Array], Float]:
        """Return a loop over the volumes."""

        def align(image: Array) -> Float:
            found, last = [], np.eye(4)
            for t in range(series.n_volumes):
                moving = Volume(series.volume(t), grid.affine)
                last = ants_rigid(Volume(image, grid.affine), moving, last, folder, "motion", "meansquares")
                found.append(last)
            return np.stack(found)

        return align


class AntsCoregister(Coregister):
    """Rigid registration by mutual information, from aligned centres of mass."""

    label = "coregistration (ANTs)"

    def register(self, images: coreg.Images, folder: Path) -> coreg.Coregistration:
        """Return the registration; ANTs is given the BOLD brain as the fixed image."""
        from scipy.ndimage import binary_dilation

        wide = binary_dilation(np.asarray(images.mask.data) > 0, iterations=2)
        fixed = images.reference.like(np.where(wide, images.reference.data, 0).astype(np.float32))
        start = np.eye(4)
        start[:3, 3] = centre_of_mass(images.brain) - centre_of_mass(fixed)
        pair = [v.like(scaled(v.data)) for v in (fixed, images.brain)]
        found = ants_rigid(pair[0], pair[1], start, folder, "coregistration")
        matrix = np.asarray(np.linalg.inv(found))
        return coreg.described(images, matrix, "ants", key=tuple(self.inputs.key))


class FlirtCoregister(Coregister):
    """FSL's FLIRT: correlation ratio with the brain, then the boundary (BBR)."""

    label = "coregistration (FLIRT)"

    def interfaces(self, bold: Path, brain: Path, white: Path, folder: Path) -> list[Any]:
        """Return nipype's interfaces, in their order.

        Raises
        ------
        MachineFault
            FSLDIR is not set: the schedule of BBR lies below it.
        """
        from nipype.interfaces import fsl

        if not os.environ.get("FSLDIR"):
            fix = "source $FSLDIR/etc/fslconf/fsl.sh before starting"
            raise MachineFault(
                "engine not available", "preprocess.engines.coregistration: fsl", "FSLDIR is not set", fix
            )
        schedule = Path(os.environ["FSLDIR"]) / "etc" / "flirtsch" / "bbr.sch"
        common = {"in_file": str(bold), "reference": str(brain), "dof": 6, "output_type": NIFTI}
        first, second = folder / "first.mat", folder / "bbr.mat"
        return [
            fsl.FLIRT(out_matrix_file=str(first), out_file=str(folder / "first.nii"), **common),
            fsl.FLIRT(
                cost="bbr", wm_seg=str(white), in_matrix_file=str(first), out_matrix_file=str(second),
                schedule=str(schedule), out_file=str(folder / "bbr.nii"), **common,
            ),
        ]  # fmt: skip

    def register(self, images: coreg.Images, folder: Path) -> coreg.Coregistration:
        """Return the registration."""
        white = (images.white.data > 0.5).astype(np.float32)
        rows = (("bold", images.reference), ("brain", images.brain), ("white", images.brain.like(white)))
        bold, brain, edge = (write_volume(folder / f"{name}.nii", v.data, v.affine) for name, v in rows)
        for one in self.interfaces(bold, brain, edge, folder):
            one.run(cwd=str(folder))
        across = from_fsl(np.loadtxt(folder / "bbr.mat"), images.reference.grid, images.brain.grid)
        return coreg.described(images, np.asarray(np.linalg.inv(across)), "flirt", key=tuple(self.inputs.key))
