"""Settings of the data sets and of ingest."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from boldmill.config.base import Section


class FilterConfig(Section):
    """Keep only what is named; an empty list keeps everything. Labels are given without their BIDS prefix."""

    participant: list[str] = Field(default=[], description="participant labels to keep, e.g. ['01', '02']")
    session: list[str] = Field(default=[], description="session labels to keep")
    task: list[str] = Field(default=[], description="task labels to keep")
    run: list[str] = Field(default=[], description="run labels to keep")


class DatasetConfig(Section):
    """One BIDS data set."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$", description="short name, letters and digits; part of every scan id")
    root: str = Field(description="folder of the data set (relative to the working directory, or absolute)")
    kind: Literal["raw", "derivative", "tables"] = Field(
        default="raw",
        description="raw BIDS, ready-made derivatives (fMRIPrep, C-PAC, XCP-D, HALFpipe, HCP, fsaverage5 pairs), or "
        "tables of parcel series (npz, tsv, csv, 1D)",
    )
    atlas: str = Field(
        default="", description="tables: name of their own atlas, e.g. HO111; empty: they are of the configured atlas"
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
    site: str = Field(default="", description="site of all participants; empty: by `site_column`, else `name`")
    site_column: str = Field(default="site", description="column of participants.tsv that holds the site")
    family_column: str = Field(default="", description="column of participants.tsv that holds the family, if known")
    licence: str = Field(default="", description="terms of use, carried into every shard; empty: dataset_description")
    filters: FilterConfig = FilterConfig()
    overrides: dict[str, dict[str, Any]] = Field(
        default={}, description="any science setting for this data set only, e.g. {clean: {compcor: 3}}"
    )


class IndexConfig(Section):
    """Checks made while indexing; a scan that fails one is quarantined with its reason."""

    min_volumes: int = Field(default=20, ge=2, description="fewest volumes of a BOLD run")
    tr_range: tuple[float, float] = Field(default=(0.1, 12.0), description="accepted repetition time, seconds")
    verify_gzip: bool = Field(default=True, description="decompress every image once, so that truncated files show")
