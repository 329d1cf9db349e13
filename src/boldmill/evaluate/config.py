"""Settings of the evaluation: tasks, folds and statistics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from boldmill.config.base import Section
from boldmill.errors import nearest
from boldmill.evaluate.transfer_config import FewShotConfig, TransferConfig


class TaskConfig(Section):
    """One downstream task: a column of the phenotype table."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name in the tables")
    column: str = Field(description="phenotype column")
    kind: Literal["classification", "regression"] = Field(default="classification", description="kind of target")
    positive: str = Field(default="", description="label counted as positive (classification); empty: the last sorted")
    datasets: list[str] = Field(default=[], description="data sets used; empty: all that have the column")


class EvaluateConfig(Section):
    """Folds are grouped by subject (and family); everything fitted is fitted inside the training fold."""

    tasks: list[TaskConfig] = Field(default=[], description="downstream tasks")
    folds: int = Field(default=5, ge=2, description="folds of the cross-validation")
    repeats: int = Field(default=5, ge=1, description="repeats of the cross-validation")
    max_clips: int = Field(
        default=64, ge=1, description="flat clips per scan its fMRI-MAE features are averaged over, evenly spaced"
    )
    bootstrap: int = Field(default=1000, ge=100, description="bootstrap draws of the 95 % interval")
    permutations: int = Field(default=500, ge=99, description="label permutations of the p-value")
    select_edges: int = Field(
        default=30, ge=1, description="edges the FC classification baseline keeps by ANOVA, chosen in the training fold"
    )
    few_shot: FewShotConfig = FewShotConfig()
    transfers: list[TransferConfig] = Field(
        default=[], description="zero-shot transfers: name, source task, target task (the source itself: its held-out)"
    )

    @model_validator(mode="after")
    def _transfers_name_tasks(self) -> EvaluateConfig:
        known = [task.name for task in self.tasks]
        for one in self.transfers:
            for name in (one.source, one.target):
                if name not in known:
                    raise ValueError(f"transfer {one.name}: `{name}` is no task{nearest(name, known)}")
        return self
