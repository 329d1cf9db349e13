"""Settings of the representations: parcel series, flat maps and pFC views."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from boldmill.config.base import Section


class ParcellateConfig(Section):
    """Mean over each parcel's voxels or vertices."""

    min_coverage: float = Field(
        default=0.5, ge=0, le=1, description="a parcel with a smaller share of its voxels in the mask is NaN"
    )
    fc_estimator: Literal["pearson", "ledoit_wolf", "partial"] = Field(
        default="pearson",
        description="stored FC: Pearson (amplitude does not depend on scan length), Ledoit-Wolf shrunk, or partial "
        "correlation from the Ledoit-Wolf precision",
    )
    fisher_z: bool = Field(default=False, description="store Fisher z (arctanh) of the FC; readers undo it")


class FlatmapConfig(Section):
    """Cortical flat maps: both hemispheres on one image of 1.2 mm pixels."""

    preset: Literal["v2", "v1"] = Field(
        default="v2",
        description="published order: v2 projects, z-scores each pixel over the run and resamples; v1 z-scores each "
        "vertex, resamples and projects",
    )
    target_tr: float = Field(default=1.0, gt=0, description="repetition time after resampling, s")
    sampling: Literal["ribbon", "regfusion"] = Field(
        default="ribbon",
        description="volume to surface: between white and pial of the group surfaces, or at given coordinates",
    )
    depths: int = Field(default=5, ge=1, description="samples between white and pial surface (ribbon)")
    regfusion: list[str] = Field(
        default=[],
        description="registration-fusion coordinates (MNI152, one row per vertex of the flat surface's mesh): "
        "text files, left and right",
    )
    movie_frames: int = Field(default=40, ge=0, description="frames of the QC movie; 0: none")
    keep: list[Literal["frames"]] = Field(
        default=[],
        description="what stays once it is clips: frames (562 MB per hour of fMRI at 1 s); holds for maps made from "
        "then on; without, they are made again when the settings of clips change",
    )

    @model_validator(mode="after")
    def _coordinates(self) -> FlatmapConfig:
        if self.sampling == "regfusion" and len(self.regfusion) != 2:
            raise ValueError("sampling: regfusion needs two files in `regfusion`, left and right")
        return self


class AugmentConfig(Section):
    """Pseudo-functional connectivity: FC of a random subset of the time points."""

    n_views: int = Field(default=8, ge=1, description="pFC views stored per scan")
    drop_rate: float = Field(default=0.2, ge=0, lt=1, description="share of time points dropped per view")
    mode: Literal["scattered", "block"] = Field(default="scattered", description="scattered points or one block")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="stored precision of a view")
    min_timepoints: int = Field(default=30, ge=3, description="fewest time points left in a view; shorter: quarantined")
