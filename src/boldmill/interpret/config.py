"""Settings of the interpretation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from boldmill.config.base import Section

INTERPRETABLE = ("brainmass",)
"""Models that can be explained: a transformer over regions whose input is FC."""


class InterpretConfig(Section):
    """Maps of what a model uses, on held-out subjects, in the folds of the evaluation."""

    models: list[str] = Field(default=list(INTERPRETABLE), description="models explained (brainmass); empty: none")
    tasks: list[str] = Field(default=[], description="tasks explained; empty: every two-class task of evaluate.tasks")
    repeats: int = Field(default=1, ge=1, description="repeats of the folds that maps are made in")
    max_scans: int = Field(
        default=200,
        ge=1,
        description="most scans explained per task, chosen by stable hash; a scan costs ig_steps passes",
    )
    ig_steps: int = Field(default=32, ge=2, description="points of the integrated-gradients path")
    baseline: Literal["mean", "zero"] = Field(
        default="mean", description="start of the path: mean FC of the probe's training scans, or no correlation at all"
    )
    tolerance: float = Field(
        default=0.05,
        gt=0,
        description="completeness gap, as a share of the explained log-odds, above which the table warns",
    )
    top: int = Field(default=10, ge=1, description="regions named per map")
    edges: int = Field(default=40, ge=1, description="strongest edges drawn in a connectogram")
    surface_labels: list[str] = Field(
        default=[],
        description="left and right fsaverage5 label GIFTI (keys 1, 2, ... in column order), for tables whose atlas is "
        "not configured; empty: no cortex picture of those",
    )

    @field_validator("models")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(INTERPRETABLE))
        if unknown:
            raise ValueError(f"cannot explain {unknown}; only {', '.join(INTERPRETABLE)} can be explained")
        return value

    @field_validator("surface_labels")
    @classmethod
    def _pair(cls, value: list[str]) -> list[str]:
        if len(value) not in (0, 2):
            raise ValueError("give two files, left and right hemisphere, or none")
        return value
