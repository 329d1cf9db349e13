"""Settings of preprocessing and cleaning (defaults: the measured defaults of the design notes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from boldmill.config.base import Section
from boldmill.preprocess.space_names import parse_space
from boldmill.preprocess.strategies import expand_strategy


class EnginesConfig(Section):
    """Who does a step: boldmill (wheels only), or an installed tool through nipype (see `boldmill doctor`)."""

    denoise: Literal["boldmill", "ants"] = Field(default="boldmill", description="T1w denoising")
    n4: Literal["boldmill", "ants"] = Field(default="boldmill", description="bias field")
    brain_mask: Literal["boldmill", "fsl", "afni"] = Field(default="boldmill", description="T1w brain mask")
    normalise: Literal["boldmill", "ants"] = Field(default="boldmill", description="brain affine and warp")
    tissue: Literal["boldmill", "fsl"] = Field(default="boldmill", description="tissue classes")
    motion: Literal["boldmill", "ants", "fsl", "afni"] = Field(default="boldmill", description="head motion")
    slice_timing: Literal["boldmill", "afni"] = Field(default="boldmill", description="slice timing")
    despike: Literal["boldmill", "afni"] = Field(default="boldmill", description="despiking")
    coregistration: Literal["boldmill", "ants", "fsl"] = Field(default="boldmill", description="BOLD to T1w")


class PreprocessConfig(Section):
    """From raw images to the template grid."""

    engines: EnginesConfig = EnginesConfig()
    denoise: bool = Field(default=False, description="denoise the T1w (non-local means) before N4")
    t1w: Literal["first", "merge"] = Field(
        default="merge", description="several T1w of one session: use the first, or align and average all"
    )
    n4_iterations: list[int] = Field(default=[50, 50, 50, 50], description="N4 iterations per level")
    n4_grid: float = Field(default=4.0, gt=0, description="grid on which the bias field is estimated, mm")
    head_syn_iterations: list[int] = Field(default=[50, 20, 5], description="head SyN (brain mask), coarse to fine")
    brain_syn_iterations: list[int] = Field(default=[50, 50, 10], description="brain SyN (final warp), coarse to fine")
    syn_sigma_diff: float = Field(default=2.0, gt=0, description="smoothing of the SyN update field, voxels")
    motion_before_slice_timing: bool = Field(default=True, description="estimate motion on raw data (Power 2017)")
    motion_reference: Literal["median", "mean"] = Field(
        default="median", description="target of realignment: median of a realigned subset, or mean in two passes"
    )
    slice_time_ref: float = Field(default=0.5, ge=0, le=1, description="reference time, fraction of the slice times")
    despike: bool = Field(default=False, description="squash spikes of voxel series before everything else")
    distortion: Literal["auto", "off"] = Field(
        default="auto", description="correct EPI distortion where field maps exist, or never"
    )
    bold_mask_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="voxels whose mean is above this share of the median are kept"
    )
    fd_radius: float = Field(default=50.0, gt=0, description="head radius of FD (Power), mm")
    outlier_fd: float = Field(default=0.5, gt=0, description="FD above which a volume gets an outlier column, mm")
    outlier_dvars: float = Field(default=1.5, gt=0, description="standardised DVARS above which it gets one")
    keep: list[Literal["clean", "preproc"]] = Field(
        default=[], description="4D images to keep; others are made again when needed (boldmill apply)"
    )
    output_spaces: list[str] = Field(
        default=[],
        description="further copies of the series before cleaning, e.g. [MNI152NLin2009cAsym:res-2, T1w, boldref, "
        "fsaverage5]",
    )
    maps: list[Literal["alff", "falff", "reho"]] = Field(default=[], description="voxel maps to compute")
    maps_smoothing: float = Field(default=0.0, ge=0, description="smoothing of those maps, FWHM in mm; 0: none")
    maps_zscore: bool = Field(default=False, description="also write z-scored maps")
    deterministic: bool = Field(default=True, description="one SimpleITK thread, so that reruns give the same bytes")

    @field_validator("output_spaces")
    @classmethod
    def _spaces(cls, texts: list[str]) -> list[str]:
        for text in texts:
            parse_space(text)
        return texts


class CleanConfig(Section):
    """Confound regression, censoring and filtering of the preprocessed series."""

    strategy: str = Field(
        default="",
        description="named set of values for the keys below, e.g. 24P, 36P, acompcor+gsr, 36P+scrub; keys you set win",
    )
    motion: Literal["none", "6", "12", "24", "24lag"] = Field(
        default="24",
        description="motion regressors: none, 6, 12 (with derivatives), 24 (with squares), 24lag (Friston 1996)",
    )
    compcor: int = Field(default=5, ge=0, description="aCompCor components")
    compcor_masks: Literal["combined", "separate"] = Field(
        default="combined", description="components of eroded WM and CSF together, or that many of each"
    )
    tissue: Literal["none", "csf", "wm_csf"] = Field(default="none", description="mean tissue signals regressed")
    global_signal: bool = Field(default=False, description="regress the global signal")
    expand: bool = Field(default=False, description="also derivatives and squares of tissue and global signals (36P)")
    drift: Literal["none", "linear", "quadratic", "cosine"] = Field(default="cosine", description="slow drifts")
    cosine_cutoff: float = Field(default=128.0, gt=0, description="period of the fastest drift cosine, s")
    band_low: float | None = Field(default=0.01, ge=0, description="lower edge of the pass band, Hz; null: none")
    band_high: float | None = Field(default=0.1, gt=0, description="upper edge of the pass band, Hz; null: none")
    filter: Literal["butterworth", "fft"] = Field(
        default="butterworth", description="Butterworth forward and backward, or an ideal Fourier box (C-PAC)"
    )
    filter_order: int = Field(default=5, ge=1, le=10, description="order of the Butterworth filter")
    order: Literal["both", "after"] = Field(
        default="both", description="filter data and regressors, then regress; or filter after the regression (C-PAC)"
    )
    censor: Literal["none", "interpolate", "spike"] = Field(
        default="none",
        description="volumes over the limits: left in, interpolated and left out of the fit, or modelled",
    )
    censor_fd: float = Field(default=0.5, gt=0, description="limit of FD (Power) for censoring, mm")
    censor_dvars: float | None = Field(default=None, gt=0, description="limit of standardised DVARS; null: none")
    censor_before: int = Field(default=0, ge=0, description="volumes censored before each one over a limit")
    censor_after: int = Field(default=0, ge=0, description="volumes censored after each one over a limit")
    smoothing: float = Field(default=0.0, ge=0, description="smoothing of the cleaned series, FWHM in mm; 0: none")
    min_dof_flag: int = Field(default=20, ge=1, description="fewer residual degrees of freedom are flagged")
    min_dof: int = Field(default=5, ge=1, description="fewer residual degrees of freedom are quarantined")
    intensity: float = Field(default=10000.0, gt=0, description="median of the brain after scaling")

    @classmethod
    def fill(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values with those their ``strategy`` stands for."""
        return expand_strategy(values)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        return cls.fill(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _rising_band(self) -> Self:
        low, high = self.band_low, self.band_high
        if low is not None and high is not None and low >= high:
            raise ValueError(f"band_low = {low:g} Hz must be below band_high = {high:g} Hz")
        return self
