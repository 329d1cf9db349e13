"""Settings of the Parquet shards and of the data snapshot."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from boldmill.config.base import Section

MAX_BUCKETS = 4096
"""About 260,000 scans of 64 in a bucket: a dry run then takes a minute or two."""


class ShardsConfig(Section):
    """Parquet shards; bucket = stable hash of the subject."""

    n_buckets: int = Field(
        default=64, ge=1, le=MAX_BUCKETS, description="buckets; about 64 scans each is good, at most 4096"
    )
    clip_frames: int = Field(default=16, ge=2, description="frames of one flat clip")
    clip_stride: int = Field(default=16, ge=1, description="frames between starts of consecutive clips")
    clip_dtype: Literal["float16", "int8"] = Field(
        default="float16", description="stored precision of flat clips; int8: half the size, steps of max|z|/127"
    )
    row_group_rows: int = Field(default=256, ge=1, description="rows of one Parquet row group")


class SnapshotConfig(Section):
    """The data that training and evaluation read, frozen by name, with the split of every subject."""

    name: str = Field(
        default="first",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="the shards of the day this name first appears are frozen below results/datasets/<name>; training "
        "takes newer data when the name changes, or follows every update where it is latest",
    )
    heldout: float = Field(
        default=0.3, ge=0, lt=1, description="share of subjects never seen in pre-training, by stable hash"
    )
    validation: float = Field(default=0.1, ge=0, lt=1, description="share of the others used to watch pre-training")
    always_train: list[str] = Field(
        default=[], description="data sets nobody of which is held out, e.g. those without any phenotype to test on"
    )
    heldout_sites: list[str] = Field(default=[], description="sites held out whole, in addition")
    heldout_datasets: list[str] = Field(default=[], description="data sets held out whole, in addition")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if both := sorted(set(self.always_train) & set(self.heldout_datasets)):
            raise ValueError(f"{', '.join(both)}: both in always_train and in heldout_datasets")
        return self
