"""Settings of BrainMass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from boldmill.config.base import Section
from boldmill.models.brainmass.architecture import PRESETS, with_preset


class BrainMassConfig(Section):
    """Masked-ROI modelling and latent alignment on FC (arXiv 2403.01433)."""

    size: Literal["tiny", "S", "B", "L"] = Field(default="tiny", description="size; tiny is for laptops and tests")
    preset: Literal[tuple(PRESETS)] = Field(  # type: ignore[valid-type]
        default="boldmill",
        description="named set of values; paper: the forward pass and the FC estimator of the published code; keys "
        "you set win",
    )
    init: str | None = Field(
        default=None,
        description="weights to start from, a model.safetensors of `boldmill import-weights` or of another run; size, "
        "width and rec_layers are then those of the file; null: fresh weights",
    )
    forward_style: Literal["uniform", "paper"] = Field(
        default="uniform",
        description="extra tokens and positions in every pass; paper: in masked passes only, as published",
    )
    estimator: Literal["pearson", "ledoit_wolf"] = Field(
        default="pearson",
        description="FC of the training views and of evaluation: Pearson (amplitude does not depend on scan length), "
        "or Ledoit-Wolf shrunk",
    )
    width: int | None = Field(
        default=None,
        ge=1,
        description="channels of a token; null: the number of ROIs where the heads divide it, else 100 with a learned "
        "projection",
    )
    rec_layers: Literal[2, 3] = Field(
        default=2, description="layers of the reconstruction head, 2 (published totals) or 3 (the paper's text)"
    )
    mask_columns: bool = Field(
        default=False, description="masked passes hide the columns of masked ROIs too, not the rows alone"
    )
    epochs: int = Field(default=20, ge=0, description="passes over the training scans; 0: the weights of init as given")
    batch: int = Field(default=32, ge=2, description="scans per step")
    lr: float = Field(default=3e-4, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(default=5e-5, ge=0, description="AdamW weight decay")
    warmup_epochs: int = Field(default=2, ge=0, description="linear warm-up, epochs")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="learning rate after the warm-up; cosine falls to 0 at the last step"
    )
    mask_clf: float = Field(default=0.1, gt=0, lt=1, description="share of ROIs masked for InfoNCE")
    mask_rec: float = Field(default=0.05, gt=0, lt=1, description="share of ROIs masked for reconstruction")
    weight_lra: float = Field(default=1.0, ge=0, description="weight of the alignment loss; 0: off, not computed")
    weight_clf: float = Field(default=0.1, ge=0, description="weight of the InfoNCE loss; 0: off, not computed")
    weight_rec: float = Field(default=2.0, ge=0, description="weight of the reconstruction loss; 0: off, not computed")
    ema: float = Field(default=0.996, gt=0, lt=1, description="momentum of the target network")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="matrix products in fp32 or bf16; weights, losses, norms and softmax are fp32 in either",
    )
    compile: bool = Field(
        default=False,
        description="blocks go through torch.compile in training on a GPU (needs a C++ compiler there); on a CPU they "
        "have a faster way of their own",
    )
    legacy_frozen_heads: bool = Field(
        default=False,
        description="leave both masked-ROI heads, mask vector and extra tokens at their first values, as the published "
        "optimiser does by mistake",
    )
    views: Literal["shards", "fly"] = Field(
        default="fly", description="pFC views made on the training device, or read from the shards: the same networks"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return with_preset(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _possible(self) -> BrainMassConfig:
        if self.weight_lra == self.weight_clf == self.weight_rec == 0:
            raise ValueError("weight_lra, weight_clf and weight_rec are all 0: nothing would be learned")
        if self.epochs == 0 and self.init is None:
            raise ValueError("epochs: 0 trains nothing, and there are no weights: set init, or epochs above 0")
        return self
