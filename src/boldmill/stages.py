"""The stages: what each reads of the configuration, its version, and the one JSON text Snakemake tracks.

A code change in an imported package does not rerun a Snakemake job, so the stage version is part of the
tracked params. ``stages.lock`` holds each stage's version and the digest of its code; a test fails when
the code moved and the version did not (:mod:`boldmill.stages_lock`).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from boldmill.atomic import canonical_json, sha256_text
from boldmill.errors import ConfigError, nearest

if TYPE_CHECKING:
    from boldmill.config.base import Section
    from boldmill.config.model import Config

    S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage.

    Parameters
    ----------
    version : int
        Raised whenever the stage would give other bytes for the same input and settings.
    reads : tuple of str
        Keys of the configuration, dotted (``"models.brainmass"``), the stage depends on.
    module : str
        The command's module; its import closure is what the lock digests.
    seeded : bool
        Whether the base seed is part of the settings.
    omits : tuple of str
        Keys below those read that belong to another stage.
    """

    version: int
    reads: tuple[str, ...]
    module: str
    seeded: bool = False
    omits: tuple[str, ...] = ()


_OPERATORS = "boldmill.represent.operators_command"

STAGES: dict[str, Stage] = {
    "ingest": Stage(
        version=4,
        reads=("datasets", "index", "shards.n_buckets", "spaces.template", "spaces.atlas_desc"),
        module="boldmill.index.command",
    ),
    "templates": Stage(
        version=2,
        reads=("spaces.template_source", "spaces.template", "spaces.demo_template", "preprocess.output_spaces"),
        module="boldmill.spaces.templates_command",
    ),
    "atlas": Stage(
        version=3,
        reads=(
            *("spaces.resolution", "spaces.atlas_source", "spaces.atlas", "spaces.atlas_desc"),
            "spaces.surface_source",
        ),
        module="boldmill.spaces.atlas_command",
    ),
    "preprocess": Stage(
        version=3, reads=("spaces.resolution", "preprocess", "clean"), module="boldmill.preprocess.command", seeded=True
    ),
    "operator_parcels": Stage(version=1, reads=(), module=_OPERATORS),
    "operator_ribbon": Stage(
        version=1,
        reads=(
            *("spaces.resolution", "spaces.flat"),
            *("flatmap.sampling", "flatmap.depths", "flatmap.regfusion"),
        ),
        module=_OPERATORS,
    ),
    "operator_flat": Stage(version=1, reads=("spaces.flat", "spaces.flat_files"), module=_OPERATORS),
    "operator_meshes": Stage(version=1, reads=("spaces.flat",), module=_OPERATORS),
    "parcellate": Stage(version=4, reads=("parcellate.min_coverage",), module="boldmill.represent.parcellate_command"),
    "flatmap": Stage(
        version=5,
        reads=("flatmap.preset", "flatmap.target_tr", "flatmap.movie_frames"),
        module="boldmill.represent.flatmap_command",
    ),
    "augment": Stage(version=2, reads=("augment",), module="boldmill.represent.augment_command", seeded=True),
    "clips": Stage(
        version=1,
        reads=("shards.clip_frames", "shards.clip_stride", "shards.clip_dtype", "shards.row_group_rows"),
        module="boldmill.shards.clips_command",
    ),
    "shards": Stage(
        version=4,
        reads=("shards.row_group_rows", "parcellate.fc_estimator", "parcellate.fisher_z"),
        module="boldmill.shards.command",
    ),
    "snapshot": Stage(
        version=4,
        reads=("snapshot", "inclusion"),
        module="boldmill.shards.snapshot_command",
        seeded=True,
        omits=("snapshot.name",),
    ),
    "freeze_shards": Stage(version=1, reads=(), module="boldmill.shards.freeze_command"),
    "freeze": Stage(version=1, reads=("snapshot", "inclusion"), module="boldmill.shards.snapshot_command", seeded=True),
    "train_brainmass": Stage(
        version=3, reads=("models.brainmass", "augment"), module="boldmill.train.command", seeded=True
    ),
    "train_fmri_mae": Stage(version=2, reads=("models.fmri_mae",), module="boldmill.train.command", seeded=True),
    "train_fm_app": Stage(version=3, reads=("models.fm_app",), module="boldmill.train.command", seeded=True),
    "evaluate": Stage(
        version=6,
        reads=("evaluate",),
        module="boldmill.evaluate.command",
        seeded=True,
        omits=("evaluate.few_shot", "evaluate.transfers"),
    ),
    "few_shot": Stage(
        version=4,
        reads=("evaluate.tasks", "evaluate.few_shot", "evaluate.max_clips", "evaluate.bootstrap"),
        module="boldmill.evaluate.fewshot_command",
        seeded=True,
    ),
    "zero_shot": Stage(
        version=4,
        reads=(
            *("evaluate.tasks", "evaluate.transfers", "evaluate.max_clips"),
            *("evaluate.bootstrap", "evaluate.permutations"),
        ),
        module="boldmill.evaluate.transfer_command",
        seeded=True,
    ),
    "ablation": Stage(
        version=2, reads=("ablation", "evaluate.bootstrap"), module="boldmill.ablation.command", seeded=True
    ),
    "interpret": Stage(
        version=2,
        reads=("interpret", "evaluate.tasks", "evaluate.folds", "evaluate.repeats"),
        module="boldmill.interpret.command",
        seeded=True,
    ),
    "cohort": Stage(version=2, reads=("project", "inclusion"), module="boldmill.quality.cohort_command"),
    "pages": Stage(version=3, reads=("project", "preset", "report"), module="boldmill.report.pages_command"),
    "report": Stage(version=7, reads=("project", "preset", "report"), module="boldmill.report.command"),
    "ledger": Stage(version=2, reads=(), module="boldmill.provenance.ledger"),
}


def stage(name: str) -> Stage:
    """Return a stage by name; an unknown one is refused with the nearest valid name."""
    if name not in STAGES:
        raise ConfigError("unknown stage", name, f"it is not in the registry{nearest(name, STAGES)}", "use a known one")
    return STAGES[name]


def stage_json(config: Config, name: str, datasets: Collection[str] | None = None) -> str:
    """Return the canonical JSON of exactly the configuration slice a stage reads, with its version.

    Per-dataset overrides are included for ``datasets`` (those with scans in a bucket), or for all where it is ``None``.
    """
    chosen = stage(name)
    dumped = config.model_dump(mode="json")
    overrides = {entry["name"]: entry.pop("overrides") for entry in dumped["datasets"]}
    value: dict[str, Any] = {"stage": name, "version": chosen.version, "config": {}, "overrides": {}}
    if chosen.seeded:
        value["seed"] = config.seed
    for key in chosen.reads:
        _put(value["config"], key, _get(dumped, key))
    for key in chosen.omits:
        section, _, name = key.rpartition(".")
        _get(value["config"], section).pop(name)
    for owner, sections in overrides.items():
        if datasets is not None and owner not in datasets:
            continue
        relevant: dict[str, Any] = {}
        for key in chosen.reads:
            section, _, rest = key.partition(".")
            over = sections.get(section)
            if over and (not rest or rest in over):
                relevant.setdefault(section, {}).update({rest: over[rest]} if rest else over)
        if relevant:
            value["overrides"][owner] = relevant
    return canonical_json(value)


class Settings:
    """The settings a command was given: the parsed text of :func:`stage_json`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._value: dict[str, Any] = json.loads(text)

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return str(self._value["stage"])

    @property
    def version(self) -> int:
        """Version of the stage."""
        return int(self._value["version"])

    @property
    def seed(self) -> int:
        """Base seed (stages that draw random numbers)."""
        return int(self._value["seed"])

    @property
    def base_seed(self) -> int | None:
        """Base seed, or None for a stage that draws no random numbers."""
        return int(self._value["seed"]) if "seed" in self._value else None

    @property
    def digest(self) -> str:
        """First 16 hex digits of the sha256 of the settings: written into every row."""
        return sha256_text(self.text)[:16]

    def raw(self, key: str) -> Any:
        """Return a value of the slice by dotted key."""
        return _get(self._value["config"], key)

    def every(self, key: str) -> list[Any]:
        """Return a value by dotted key (``section.name``), and those that data sets override it with."""
        section, _, name = key.partition(".")
        over = (self._value["overrides"][owner].get(section, {}) for owner in sorted(self._value["overrides"]))
        return [self.raw(key), *(values[name] for values in over if name in values)]

    def for_dataset(self, dataset: str) -> str:
        """Return the text of these settings without the overrides of other data sets."""
        over = {name: value for name, value in self._value["overrides"].items() if name == dataset}
        return canonical_json({**self._value, "overrides": over})

    def section(self, key: str, kind: type[S], dataset: str | None = None) -> S:
        """Return a section as its class, with the overrides of ``dataset`` applied.

        >>> settings = Settings('{"stage":"flatmap","version":1,"config":{"flatmap":{"depths":3}},"overrides":{}}')
        >>> from boldmill.represent.config import FlatmapConfig
        >>> settings.section("flatmap", FlatmapConfig).depths
        3
        """
        over = self._value["overrides"].get(dataset, {}).get(key, {}) if dataset else {}
        return kind.model_validate({**_get(self._value["config"], key), **kind.fill(over)})


def _get(value: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        value = value[part]
    return value


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = value
