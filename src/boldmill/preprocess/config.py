"""Settings of preprocessing and cleaning (defaults: the measured defaults of the design notes)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from boldmill.config.base import Section


class PreprocessConfig(Section):
    """From raw images to the template grid."""

    n4_iterations: list[int] = Field(default=[50, 50, 50, 50], description="N4 iterations per level")
    n4_grid: float = Field(default=4.0, gt=0, description="grid on which the bias field is estimated, mm")
    head_syn_iterations: list[int] = Field(default=[50, 20, 5], description="head SyN (brain mask), coarse to fine")
    brain_syn_iterations: list[int] = Field(default=[50, 50, 10], description="brain SyN (final warp), coarse to fine")
    syn_sigma_diff: float = Field(default=2.0, gt=0, description="smoothing of the SyN update field, voxels")
    motion_before_slice_timing: bool = Field(default=True, description="estimate motion on raw data (Power 2017)")
    slice_time_ref: float = Field(default=0.5, ge=0, le=1, description="reference time, fraction of the slice times")
    bold_mask_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="voxels whose mean is above this share of the median are kept"
    )
    fd_radius: float = Field(default=50.0, gt=0, description="head radius of FD (Power), mm")
    keep_preproc: bool = Field(default=False, description="also keep the 4D series before cleaning (large)")
    deterministic: bool = Field(default=True, description="one SimpleITK thread, so that reruns give the same bytes")


class CleanConfig(Section):
    """Confound regression and filtering of the preprocessed series: data and confounds are filtered alike first."""

    motion: Literal["none", "6", "12", "24"] = Field(
        default="24", description="motion regressors: none, 6, 12 (with derivatives), 24 (with squares)"
    )
    compcor: int = Field(default=5, ge=0, description="aCompCor components of eroded WM and CSF combined")
    tissue: bool = Field(default=False, description="regress the mean WM and CSF signals")
    global_signal: bool = Field(default=False, description="regress the global signal")
    drift: Literal["none", "linear", "cosine"] = Field(default="cosine", description="slow drifts")
    cosine_cutoff: float = Field(default=128.0, gt=0, description="period of the fastest drift cosine, s")
    band_low: float | None = Field(default=0.01, ge=0, description="lower edge of the pass band, Hz; null: none")
    band_high: float | None = Field(default=0.1, gt=0, description="upper edge of the pass band, Hz; null: none")
    min_dof_flag: int = Field(default=20, ge=1, description="fewer residual degrees of freedom are flagged")
    min_dof: int = Field(default=5, ge=1, description="fewer residual degrees of freedom are quarantined")
    intensity: float = Field(default=10000.0, gt=0, description="median of the brain after scaling")

    @model_validator(mode="after")
    def _rising_band(self) -> Self:
        low, high = self.band_low, self.band_high
        if low is not None and high is not None and low >= high:
            raise ValueError(f"band_low = {low:g} Hz must be below band_high = {high:g} Hz")
        return self
