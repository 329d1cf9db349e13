"""Settings of BrainMass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boldmill.config.base import Section


class BrainMassConfig(Section):
    """Masked-ROI modelling and latent alignment on FC (arXiv 2403.01433)."""

    preset: Literal["tiny", "S", "B", "L"] = Field(default="tiny", description="size; tiny is for laptops and tests")
    forward_style: Literal["uniform", "paper"] = Field(
        default="uniform",
        description="extra tokens and positions in every pass; paper: in masked passes only, as published",
    )
    width: int | None = Field(
        default=None,
        ge=1,
        description="channels of a token; null: the number of ROIs, or the next multiple of the heads with a learned "
        "projection",
    )
    epochs: int = Field(default=20, ge=1, description="passes over the training scans")
    batch: int = Field(default=32, ge=2, description="scans per step")
    lr: float = Field(default=3e-4, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(default=5e-5, ge=0, description="AdamW weight decay")
    warmup_epochs: int = Field(default=2, ge=0, description="linear warm-up, epochs")
    mask_clf: float = Field(default=0.1, gt=0, lt=1, description="share of ROIs masked for InfoNCE")
    mask_rec: float = Field(default=0.05, gt=0, lt=1, description="share of ROIs masked for reconstruction")
    weight_clf: float = Field(default=0.1, ge=0, description="weight of the InfoNCE loss")
    weight_rec: float = Field(default=2.0, ge=0, description="weight of the reconstruction loss")
    ema: float = Field(default=0.996, gt=0, lt=1, description="momentum of the target network")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="matrix products in fp32 or bf16; weights, losses, norms and softmax are fp32 in either",
    )
    views: Literal["shards", "fly"] = Field(
        default="fly", description="pFC views made on the training device, or read from the shards: the same networks"
    )
