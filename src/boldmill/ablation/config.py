"""Settings of the ablation."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from boldmill.config.base import Section
from boldmill.errors import nearest


class VariantConfig(Section):
    """One variant: settings of `models.brainmass` and `augment` laid over the configuration."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name in the table and of its folder")
    group: str = Field(default="", description="what varies, e.g. loss or drop_rate: drawn together")
    set: dict[str, Any] = Field(
        default={}, description="dotted keys below models.brainmass or augment, e.g. {models.brainmass.weight_rec: 0}"
    )


class AblationConfig(Section):
    """Variants of BrainMass, each trained and evaluated with the frozen linear probe: `snakemake ablation`."""

    variants: list[VariantConfig] = Field(default=[], description="variants: name, group, set; empty: no ablation")
    reference: str = Field(default="full", description="variant whose gain over itself is none: the full model")

    @model_validator(mode="after")
    def _names(self) -> AblationConfig:
        names = [variant.name for variant in self.variants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"variant names must be unique; used twice: {twice}")
        if names and self.reference not in names:
            raise ValueError(f"reference: `{self.reference}` is no variant{nearest(self.reference, names)}")
        return self
