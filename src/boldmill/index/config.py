"""Settings of the data sets and of ingest."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from boldmill.config.base import Section

OF_TABLES = ("atlas", "files", "pattern", "labels", "tr")
"""Keys of a data set that only tables of parcel series have."""
OF_IMAGES = ("prefer", "pick")
"""Keys that such tables do not have."""


class FilterConfig(Section):
    """Keep only what is named; an empty list keeps everything. Labels are given without their BIDS prefix."""

    participant: list[str] = Field(default=[], description="participant labels to keep, e.g. ['01', '02']")
    session: list[str] = Field(default=[], description="session labels to keep")
    task: list[str] = Field(default=[], description="task labels to keep")
    run: list[str] = Field(default=[], description="run labels to keep")


class DatasetConfig(Section):
    """One data set: BIDS, raw or derivative, or tables of parcel series."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$", description="short name, letters and digits; part of every scan id")
    root: str = Field(
        description="folder of the data set (relative to the working directory, or absolute); tables: or one file"
    )
    kind: Literal["raw", "derivative", "tables"] = Field(
        default="raw",
        description="raw BIDS, ready-made derivatives (fMRIPrep, C-PAC, XCP-D, HALFpipe, HCP, fsaverage5 pairs), or "
        "tables of parcel series (npz, tsv, csv, 1D)",
    )
    atlas: str = Field(
        default="", description="tables: name of their own atlas, e.g. HO111; empty: they are of the configured atlas"
    )
    files: list[str] = Field(
        default=[],
        description="tables: files of series below root, wildcards allowed; empty: every npz, npy, tsv, csv and 1D",
    )
    pattern: str = Field(
        default="",
        description="tables: how a series' name gives its labels, e.g. sub-{sub}-{ses}, {sub}_task-{task}_* or a "
        "regular expression with groups (?P<sub>...); matched with the folders if it has a /; empty: BIDS names, else "
        "the whole name is the subject",
    )
    labels: str = Field(
        default="",
        description="tables: file with the names of the columns (id and name in each line), below root; empty: names "
        "in the files themselves",
    )
    tr: float | dict[str, float] | None = Field(
        default=None, description="tables: repetition time, s, of all or by site, e.g. {NYU: 2.0}; null: unknown"
    )
    prefer: list[Literal["volume", "surface", "cifti", "parcels"]] = Field(
        default=[],
        description="forms of ready-made runs to take first, in this order; without it volume, surface, cifti, parcels",
    )
    pick: dict[str, str] = Field(
        default={},
        description="entities the files of ready-made runs must have where they carry them, e.g. "
        "{atlas: 4S156Parcels, feature: corrMatrix1}",
    )
    phenotypes: str = Field(
        default="", description="phenotype table (tsv or csv) below root; empty: participants.tsv, where there is one"
    )
    id_column: str = Field(
        default="participant_id", description="column of the phenotype table that names the participant (or the series)"
    )
    missing: list[str | float] = Field(
        default=[], description="values of the phenotype table that mean a missing one, beside n/a, e.g. [-9999]"
    )
    site: str = Field(default="", description="site of all participants; empty: by `site_column`, else `name`")
    site_column: str = Field(default="site", description="column of the phenotype table that holds the site")
    family_column: str = Field(default="", description="column of the phenotype table that holds the family, if known")
    licence: str = Field(default="", description="terms of use, carried into every shard; empty: dataset_description")
    filters: FilterConfig = FilterConfig()
    overrides: dict[str, dict[str, Any]] = Field(
        default={}, description="any science setting for this data set only, e.g. {clean: {compcor: 3}}"
    )

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        from boldmill.index.table_names import compile_pattern

        if value:
            compile_pattern(value)
        return value

    @model_validator(mode="after")
    def _kind_fits(self) -> DatasetConfig:
        wrong = OF_IMAGES if self.kind == "tables" else OF_TABLES
        if given := sorted(key for key in wrong if getattr(self, key)):
            raise ValueError(f"`{given[0]}` is not for a data set of kind {self.kind}")
        return self


class IndexConfig(Section):
    """Checks made while indexing; a scan that fails one is quarantined with its reason."""

    min_volumes: int = Field(default=20, ge=2, description="fewest volumes of a BOLD run")
    tr_range: tuple[float, float] = Field(default=(0.1, 12.0), description="accepted repetition time, seconds")
    verify_gzip: bool = Field(default=True, description="decompress every image once, so that truncated files show")
