"""Settings of the evaluation: tasks, protocols, folds and statistics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from boldmill.config.base import Section
from boldmill.errors import nearest
from boldmill.evaluate.methods_config import (
    BaselineName,
    BrainNetCnnConfig,
    FinetuneConfig,
    KnnConfig,
    MlpConfig,
    ProbeName,
    TransformerConfig,
)
from boldmill.evaluate.transfer_config import FewShotConfig, TransferConfig

Protocol = Literal["cv", "heldout", "split", "paper", "leave-one-site-out", "external", "nested"]


class RangeConfig(Section):
    """Scans kept by a number, both ends included."""

    min: float | None = Field(default=None, description="smallest value kept; null: no limit")
    max: float | None = Field(default=None, description="largest value kept; null: no limit")


class TaskConfig(Section):
    """One downstream task: a column of the phenotype table."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name in the tables")
    column: str = Field(description="phenotype column")
    kind: Literal["classification", "multiclass", "regression"] = Field(
        default="classification", description="kind of target; classification: one label against all others"
    )
    positive: str = Field(default="", description="label counted as positive (classification); empty: the last sorted")
    datasets: list[str] = Field(default=[], description="data sets used; empty: all that have the column")
    sites: list[str] = Field(default=[], description="sites used; empty: all")
    include: dict[str, RangeConfig | list[str | int | float]] = Field(
        default={}, description="column (or mean_fd): labels kept, or {min, max}; a scan without a value is left out"
    )
    external: list[str] = Field(
        default=[],
        description="data sets tested only, on labels of the others, by methods fitted on these (protocol external)",
    )
    protocols: list[Protocol] = Field(default=[], description="protocols of this task; empty: evaluate.protocols")


class EvaluateConfig(Section):
    """Folds are grouped by subject (and family); everything fitted is fitted inside the training fold."""

    tasks: list[TaskConfig] = Field(default=[], description="downstream tasks")
    protocols: list[Protocol] = Field(
        default=["cv", "heldout"],
        description="who is trained and who tested: cv, heldout, split, paper, leave-one-site-out, external, nested",
    )
    folds: int = Field(default=5, ge=2, description="folds of the cross-validation")
    repeats: int = Field(default=5, ge=1, description="repeats of the cross-validation")
    inner_folds: int = Field(default=3, ge=2, description="inner folds that choose hyperparameters (protocol nested)")
    paper_repeats: int = Field(default=10, ge=1, description="repeats of the 70/15/15 split (protocol paper)")
    grid_c: list[float] = Field(
        default=[0.001, 0.01, 0.1, 1.0, 10.0],
        min_length=1,
        description="inverse penalties of logistic regression that nested cross-validation chooses from",
    )
    max_clips: int = Field(
        default=64, ge=1, description="flat clips per scan its fMRI-MAE features are averaged over, evenly spaced"
    )
    bootstrap: int = Field(default=1000, ge=100, description="bootstrap draws of the 95 % interval")
    permutations: int = Field(default=500, ge=99, description="label permutations of the p-value")
    select_edges: int = Field(
        default=30, ge=1, description="edges the FC classification baseline keeps by ANOVA, chosen in the training fold"
    )
    baselines: list[BaselineName] = Field(
        default=["fc_linear_selected", "fc_svm", "random", "covariates", "constant"],
        description="baselines of every table: fc_linear_selected (the reference), fc_svm, fc_ridge, fc_logistic, "
        "tangent, brainnetcnn, transformer (from random weights), random (random frozen encoder), covariates, constant",
    )
    probes: list[ProbeName] = Field(
        default=["logistic", "svm_rbf"],
        description="probes of frozen features: logistic (ridge for a regression), svm_rbf, mlp, knn; finetune trains "
        "all weights",
    )
    harmonise: Literal["none", "combat"] = Field(
        default="none",
        description="site effects removed from FC edges and frozen features inside each training fold "
        "of the evaluation (few-shot, transfers and maps take them as they are)",
    )
    knn: KnnConfig = KnnConfig()
    mlp: MlpConfig = MlpConfig()
    brainnetcnn: BrainNetCnnConfig = BrainNetCnnConfig()
    transformer: TransformerConfig = TransformerConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    few_shot: FewShotConfig = FewShotConfig()
    transfers: list[TransferConfig] = Field(
        default=[], description="zero-shot transfers: name, source task, target task (the source itself: its held-out)"
    )

    @field_validator("tasks")
    @classmethod
    def _unique(cls, value: list[TaskConfig]) -> list[TaskConfig]:
        names = [task.name for task in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names of tasks must be unique; used twice: {twice}")
        return value

    @model_validator(mode="after")
    def _transfers_name_tasks(self) -> EvaluateConfig:
        known = [task.name for task in self.tasks]
        for one in self.transfers:
            for name in (one.source, one.target):
                if name not in known:
                    why = f"transfer {one.name}: `{name}` is no task{nearest(name, known)}"
                    raise ValueError(f"{why}; name one of evaluate.tasks, or set `transfers: []` for those of the demo")
        return self
