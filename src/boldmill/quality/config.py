"""Inclusion rules: which scans enter the snapshot."""

from __future__ import annotations

from pydantic import Field

from boldmill.config.base import Section


class InclusionConfig(Section):
    """Inclusion rules; an excluded scan keeps its row and its reason, and stays out of the snapshot."""

    max_mean_fd: float | None = Field(
        default=None, gt=0, description="mean FD (Power) above is excluded, mm; null: none"
    )
    min_minutes: float | None = Field(
        default=None, gt=0, description="fewer minutes of kept volumes are excluded; null: none"
    )
    max_censored: float | None = Field(
        default=None, gt=0, le=1, description="a larger share of censored volumes is excluded; null: none"
    )
    min_residual_dof: int | None = Field(
        default=None, ge=1, description="fewer residual degrees of freedom are excluded; null: none"
    )
    min_tsnr: float | None = Field(default=None, gt=0, description="lower median tSNR is excluded; null: none")
    min_coverage: float | None = Field(
        default=None, gt=0, le=1, description="a smaller covered share of the template brain is excluded; null: none"
    )
    outlier_z: float = Field(
        default=3.5, gt=0, description="modified z against the cohort above which a figure is flagged (not excluded)"
    )
