"""The root of ``config.yaml``; each stage keeps its own section beside its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from boldmill.ablation.config import AblationConfig
from boldmill.config.base import Section
from boldmill.evaluate.config import EvaluateConfig
from boldmill.index.config import DatasetConfig, IndexConfig
from boldmill.interpret.config import InterpretConfig
from boldmill.models.brainmass.config import BrainMassConfig
from boldmill.models.fm_app.config import FmAppConfig
from boldmill.models.fmri_mae.config import FmriMaeConfig
from boldmill.paths import MODELS
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.strategies import PRESETS, with_preset
from boldmill.quality.config import InclusionConfig
from boldmill.report.config import ReportConfig
from boldmill.represent.config import AugmentConfig, FlatmapConfig, ParcellateConfig
from boldmill.shards.config import ShardsConfig, SnapshotConfig
from boldmill.spaces.config import SpacesConfig


class ModelsConfig(Section):
    """Which models are trained, and how."""

    train: list[str] = Field(default=list(MODELS), description="models to train and evaluate")
    brainmass: BrainMassConfig = BrainMassConfig()
    fmri_mae: FmriMaeConfig = FmriMaeConfig()
    fm_app: FmAppConfig = FmAppConfig()

    @field_validator("train")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(MODELS))
        if unknown:
            raise ValueError(f"unknown models {unknown}; known are {', '.join(MODELS)}")
        return value


class Config(Section):
    """The whole configuration."""

    project: str = Field(default="boldmill", description="name shown in the report")
    preset: Literal[tuple(PRESETS)] = Field(  # type: ignore[valid-type]
        default="boldmill", description="named set of values for keys of preprocess and clean; keys you set win"
    )
    results: str = Field(
        default="results", pattern=r"^[\w./+-]+$", description="folder for everything the workflow writes (no spaces)"
    )
    seed: int = Field(default=20261120, ge=0, description="base seed; every draw is keyed by it and by what it is for")
    datasets: list[DatasetConfig] = Field(
        default=[], description="BIDS data sets, raw or derivative, and tables of parcel series"
    )
    index: IndexConfig = IndexConfig()
    spaces: SpacesConfig = SpacesConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    clean: CleanConfig = CleanConfig()
    parcellate: ParcellateConfig = ParcellateConfig()
    flatmap: FlatmapConfig = FlatmapConfig()
    augment: AugmentConfig = AugmentConfig()
    shards: ShardsConfig = ShardsConfig()
    inclusion: InclusionConfig = InclusionConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    models: ModelsConfig = ModelsConfig()
    ablation: AblationConfig = AblationConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    interpret: InterpretConfig = InterpretConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return with_preset(value) if isinstance(value, Mapping) else value

    @field_validator("datasets")
    @classmethod
    def _unique(cls, value: list[DatasetConfig]) -> list[DatasetConfig]:
        names = [d.name for d in value]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"data set names must be unique; used twice: {twice}")
        return value


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""Section name -> its class, for the settings of a stage."""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``config.yaml`` (committed as ``workflow/schemas/config.schema.json``)."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "boldmill configuration"
    return schema
