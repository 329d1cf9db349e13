"""Settings of fMRI-MAE."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boldmill.config.base import Section


class FmriMaeConfig(Section):
    """Masked autoencoder on flat-map video (arXiv 2510.13768)."""

    preset: Literal["tiny", "S", "B"] = Field(default="tiny", description="size; tiny is for laptops and tests")
    patch: int = Field(default=16, ge=4, description="patch side, pixels")
    patch_t: int = Field(default=4, ge=1, description="patch length, frames")
    mask_ratio: float = Field(default=0.9, gt=0, lt=1, description="share of patches hidden (tube masking)")
    decode_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the hidden patches that are predicted in training (sparse decoding); 1: all",
    )
    steps: int = Field(default=200, ge=1, description="optimiser steps")
    batch: int = Field(default=4, ge=1, description="clips per step")
    lr: float = Field(default=1e-3, gt=0, description="peak AdamW learning rate")
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW weight decay")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of steps with linear warm-up")
    clip_value: float = Field(default=3.0, gt=0, description="frames are clamped to plus and minus this many SD")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="matrix products in fp32 or bf16; weights, residual stream, frame statistics and loss are fp32 in "
        "either",
    )
