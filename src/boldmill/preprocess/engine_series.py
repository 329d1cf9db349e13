"""Despiking and slice timing by AFNI: nipype's own interfaces on scratch series.

AFNI is part of no wheel: the tests check the command lines and what is read back, not the programs. Neither step looks
at positions, so the series is written on a plumb grid of 1 mm voxels. Axes: X Y Z voxels, T time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boldmill.preprocess.bold_interfaces import CorrectSliceTiming, Despike
from boldmill.preprocess.engine_bold import NIFTI, read_series, write_series
from boldmill.preprocess.frames import Frames
from boldmill.preprocess.slicetiming import SliceTimes


def despike_interface(series: Path, folder: Path) -> Any:
    """Return nipype's interface of 3dDespike, ready to run."""
    from nipype.interfaces import afni

    return afni.Despike(in_file=str(series), out_file=str(folder / "despiked.nii"), outputtype=NIFTI)


def tshift_interface(series: Path, timing: SliceTimes, tr: float, folder: Path) -> Any:
    """Return nipype's interface of 3dTshift, ready to run: Fourier interpolation to the reference time."""
    from nipype.interfaces import afni

    return afni.TShift(
        in_file=str(series), out_file=str(folder / "shifted.nii"), tr=f"{tr:.6g}s", tzero=timing.reference,
        slice_timing=[float(t) for t in timing.times], slice_encoding_direction="k", interp="Fourier",
        outputtype=NIFTI,
    )  # fmt: skip


def afni_despiked(frames: Frames, target: str | Path) -> Frames:
    """Return the series after 3dDespike."""
    folder = Path(target).parent
    path = write_series(folder / "afni_in.nii", frames, np.eye(4))
    despike_interface(path, folder).run(cwd=str(folder))
    return read_series(folder / "despiked.nii", frames, target)


def afni_slice_timed(frames: Frames, timing: SliceTimes, tr: float, target: str | Path) -> Frames:
    """Return the series after 3dTshift, which takes slices along the third axis: the slice axis is put there."""
    folder = Path(target).parent
    turned = Frames.create(folder / "turned.npy", _swapped(frames.shape, timing.axis))
    with turned.open() as handle:
        for t in range(frames.n_volumes):
            turned.write(handle, t, np.swapaxes(frames.volume(t), timing.axis, 2))
    path = write_series(folder / "afni_in.nii", turned, np.eye(4), tr)
    tshift_interface(path, timing, tr, folder).run(cwd=str(folder))
    shifted = read_series(folder / "shifted.nii", turned, folder / "shifted.npy")
    made = Frames.create(target, frames.shape)
    with made.open() as handle:
        for t in range(frames.n_volumes):
            made.write(handle, t, np.swapaxes(shifted.volume(t), timing.axis, 2))
    return made


def _swapped(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    out = list(shape)
    out[axis], out[2] = out[2], out[axis]
    return tuple(out)


class DespikeSeries(Despike):
    """AFNI's 3dDespike."""

    label = "despiking (3dDespike)"

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says."""
        return {"series": str(afni_despiked(Frames(self.inputs.series), folder / "series.npy").path)}


class TshiftTiming(CorrectSliceTiming):
    """AFNI's 3dTshift."""

    label = "slice timing (3dTshift)"

    def step(self, folder: Path) -> dict[str, Any]:
        """Run it, as :meth:`Step.step` says; without slice times the series passes through."""
        if not self.inputs.times:
            return {"series": self.inputs.series}
        timing = SliceTimes(np.array(self.inputs.times), self.inputs.axis, self.inputs.reference)
        made = afni_slice_timed(Frames(self.inputs.series), timing, self.inputs.tr, folder / "series.npy")
        return {"series": str(made.path)}
