"""Settings of the representations: parcel series, flat maps and pFC views."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
    """Cortical flat maps, 224 x 560 pixels of 1.2 mm, both hemispheres on one image."""

    target_tr: float = Field(default=1.0, gt=0, description="repetition time after resampling, s")
    depths: int = Field(default=5, ge=1, description="samples between white and pial surface (volume input)")
    movie_frames: int = Field(default=40, ge=0, description="frames of the QC movie; 0: none")


class AugmentConfig(Section):
    """Pseudo-functional connectivity: FC of a random subset of the time points."""

    n_views: int = Field(default=8, ge=1, description="pFC views stored per scan")
    drop_rate: float = Field(default=0.2, gt=0, lt=1, description="share of time points dropped per view")
    mode: Literal["scattered", "block"] = Field(default="scattered", description="scattered points or one block")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="stored precision of a view")
    min_timepoints: int = Field(default=30, ge=3, description="fewest time points left in a view; shorter: quarantined")
