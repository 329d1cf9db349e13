"""Settings of FM-APP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boldmill.config.base import Section


class FmAppConfig(Section):
    """Any-phenotype prediction from text, with fMRI to sMRI transfer (doi 10.1109/TMI.2024.3506734)."""

    preset: Literal["tiny", "full"] = Field(default="tiny", description="size; full has the published widths")
    text_encoder: Literal["hashed"] = Field(default="hashed", description="text encoder; printed beside each metric")
    text_field: Literal["name", "title", "description", "title+description"] = Field(
        default="title+description", description="which words of a phenotype are encoded"
    )
    unseen: list[str] = Field(default=[], description="phenotypes kept out of training, predicted from text alone")
    phenotypes: list[str] = Field(default=[], description="phenotypes used; empty: every numeric column with words")
    sentinels: dict[str, list[float]] = Field(
        default={}, description="codes that mean a missing value, per phenotype, e.g. {creatinine: [-9, 99999]}"
    )
    map: Literal["softmax", "sinkhorn"] = Field(default="softmax", description="phenotype active map")
    epochs_fmri: int = Field(default=60, ge=1, description="passes of stage 1 (fMRI)")
    epochs_t1w: int = Field(default=60, ge=1, description="passes of stage 2 (T1w learns from fMRI)")
    batch: int = Field(default=8, ge=1, description="scans per step")
    lr: float = Field(default=5e-4, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(default=5e-3, ge=0, description="AdamW weight decay")
    transfer: float = Field(default=1.0, ge=0, description="weight of the feature transfer loss")
    synthesizer: Literal["ridge", "kernel"] = Field(default="ridge", description="weights of an unseen phenotype")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="matrix products of the encoders in training, fp32 or bf16; weights, active map, heads and losses "
        "are fp32 in either",
    )
