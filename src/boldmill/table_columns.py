"""The registry of columns behind :mod:`boldmill.tables`; raise its ``SCHEMA_VERSION`` when one changes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Parameters
    ----------
    name, description : str
        Name and meaning.
    type : str
        ``string``, ``int32``, ``float64``, ``bool``, ``strings`` (a list), ``map`` (a list of keys with texts),
        ``numbers`` (a list of keys with float64), ``array`` (one binary value) or ``vector`` (a fixed-size list of
        float32).
    unit : str
        Unit, where the column has one.
    shape : str
        Axes of an ``array`` or ``vector``, comma separated: names of columns or of ``sizes``.
    dtype : str
        Element type of an ``array`` or ``vector``.
    source : str
        The stage or file the value is taken from.
    nullable : bool
        Whether the value may be missing.
    """

    name: str
    type: str
    description: str
    source: str
    unit: str = ""
    shape: str = ""
    dtype: str = ""
    nullable: bool = False


_IDENTITY = (
    Column(name="scan_id", type="string", description="unique name of the scan", source="ticket"),
    Column(name="dataset", type="string", description="data set", source="ticket"),
    Column(name="subject", type="string", description="participant label without prefix", source="ticket"),
)

_ATLAS = Column(name="atlas", type="string", description="label of the atlas of the parcels", source="parcellate")

_PROVENANCE = (
    Column(name="source_sha256", type="strings", description="sha256 of the raw images", source="ticket"),
    Column(name="pipeline_version", type="string", description="version of boldmill", source="boldmill"),
    Column(
        name="stage_digests", type="map", description="stage -> digest of its settings", source="provenance records"
    ),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "scans": (
        *_IDENTITY,
        Column(name="session", type="string", description="session label, or empty", source="ticket"),
        Column(name="task", type="string", description="task label, or empty", source="ticket"),
        Column(name="run", type="string", description="run label, or empty", source="ticket"),
        Column(name="entities", type="map", description="all BIDS entities of the scan", source="ticket"),
        Column(name="kind", type="string", description="volume, surface, parcels, table or anat", source="ticket"),
        Column(name="bucket", type="int32", description="shard bucket of the subject", source="ticket"),
        Column(name="site", type="string", description="site", source="participants"),
        Column(name="family", type="string", description="family, or empty where unknown", source="participants"),
        Column(name="licence", type="string", description="terms of use of the data set", source="participants"),
        Column(name="space", type="string", description="space of the cleaned series", source="preprocess"),
        Column(
            name="phenotypes",
            type="string",
            description="JSON object: column -> value or null; descriptions are in the schema metadata",
            source="participants",
        ),
        Column(name="tr", type="float64", unit="s", description="repetition time", source="preprocess", nullable=True),
        Column(name="n_volumes", type="int32", description="volumes of the cleaned series", source="preprocess"),
        Column(
            name="mean_fd",
            type="float64",
            unit="mm",
            description="mean framewise displacement; null: unknown",
            source="preprocess",
            nullable=True,
        ),
        Column(name="qc", type="numbers", description="every quality number of the scan", source="preprocess"),
        Column(name="flags", type="strings", description="quality warnings", source="preprocess"),
        Column(name="atlases", type="strings", description="atlases with a row in timeseries and fc", source="shards"),
        Column(name="n_clips", type="int32", description="rows in flat_clips", source="flatmap"),
        Column(
            name="morphometry",
            type="vector",
            shape="n_parcels,n_features",
            dtype="float32",
            description="T1w features of each parcel; null without T1w",
            source="parcellate",
            nullable=True,
        ),
        *_PROVENANCE,
    ),
    "timeseries": (
        *_IDENTITY,
        _ATLAS,
        Column(
            name="tr",
            type="float64",
            unit="s",
            description="repetition time; null: unknown (tables of parcel series)",
            source="parcellate",
            nullable=True,
        ),
        Column(name="n_volumes", type="int32", description="T", source="parcellate"),
        Column(name="n_parcels", type="int32", description="P", source="parcellate"),
        Column(
            name="values",
            type="array",
            shape="n_volumes,n_parcels",
            dtype="float32",
            unit="a.u., mean zero",
            description="mean of each parcel; NaN: parcel not covered",
            source="parcellate",
        ),
        *_PROVENANCE,
    ),
    "fc": (
        *_IDENTITY,
        _ATLAS,
        Column(name="n_volumes", type="int32", description="T", source="parcellate"),
        Column(
            name="values",
            type="vector",
            shape="n_edges",
            dtype="float32",
            unit="correlation",
            description="functional connectivity (estimator and Fisher z: schema metadata), upper triangle row by row; "
            "NaN: undefined",
            source="shards",
        ),
        *_PROVENANCE,
    ),
    "pfc": (
        *_IDENTITY,
        _ATLAS,
        Column(name="view", type="int32", description="index of the view", source="augment"),
        Column(name="n_kept", type="int32", description="time points kept", source="augment"),
        Column(name="n_edges", type="int32", description="E", source="augment"),
        Column(
            name="values",
            type="array",
            shape="n_edges",
            dtype="float16",
            unit="correlation",
            description="FC of the kept time points, upper triangle row by row; NaN: undefined",
            source="augment",
        ),
        *_PROVENANCE,
    ),
    "flat_clips": (
        *_IDENTITY,
        Column(name="clip", type="int32", description="index of the clip in its scan", source="shards"),
        Column(name="start", type="int32", unit="frames", description="first frame", source="shards"),
        Column(name="tr", type="float64", unit="s", description="time between frames", source="flatmap"),
        Column(name="tr_in", type="float64", unit="s", description="TR of the run before resampling", source="flatmap"),
        Column(name="n_frames", type="int32", description="T", source="shards"),
        Column(name="n_pixels", type="int32", description="X, true pixels of the mask", source="flatmap"),
        Column(
            name="values",
            type="array",
            shape="n_frames,n_pixels",
            dtype="float16",
            unit="SD over the run / scale",
            description="flat-map frames, z-scored over the run, valid pixels in row-major order of the mask",
            source="flatmap",
        ),
        Column(name="scale", type="float64", unit="SD over the run", description="one step of values", source="shards"),
        Column(
            name="mean",
            type="array",
            shape="n_pixels",
            dtype="float32",
            unit="a.u.",
            description="mean of each pixel over the run; kept in clip 0 of a scan only",
            source="flatmap",
            nullable=True,
        ),
        Column(
            name="std",
            type="array",
            shape="n_pixels",
            dtype="float32",
            unit="a.u.",
            description="SD of each pixel over the run; kept in clip 0 of a scan only",
            source="flatmap",
            nullable=True,
        ),
        *_PROVENANCE,
    ),
}
"""Columns of every table, in order."""

KEYS: dict[str, tuple[str, ...]] = {
    "scans": ("scan_id",),
    "timeseries": ("scan_id",),
    "fc": ("scan_id",),
    "pfc": ("scan_id", "view"),
    "flat_clips": ("scan_id", "clip"),
}
"""Columns that name a row; tables are sorted by them."""
