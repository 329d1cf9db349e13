"""What the present configuration and code would make of an output: whether they still ask for it, and with the same
settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from boldmill.paths import MODELS
from boldmill.provenance.lifetimes import is_frozen
from boldmill.provenance.record import shown
from boldmill.stages import STAGES, stage_json

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.index.read import Index

OF_A_MODEL = ("models", "evaluate", "interpret")
"""Folders below the results with one folder per model."""
BUCKET = re.compile(r"/bucket-(\d+)\.")


class Current:
    """Judge outputs by their row of the ledger.

    Parameters
    ----------
    config : Config, optional
        The present configuration; without one only stage versions are compared.
    index : Index, optional
        Knows whose overrides the jobs of a bucket read; without one those of any of the data sets will do.
    """

    def __init__(self, config: Config | None, index: Index | None = None) -> None:
        self.config, self.index = config, index
        self._home = shown(config.results) if config is not None else ""
        self._said: dict[tuple[object, ...], tuple[str, ...]] = {}

    def reasons(self, stage: str, path: str, settings: str, record: str) -> tuple[str, ...]:
        """Return why an output would not be made again as it is, in words; empty where nothing differs.

        Parameters
        ----------
        stage, path, settings, record : str
            Stage, path and settings (canonical JSON) of the output, as recorded, and path of its record.
        """
        if stage not in STAGES:
            return ()  # a command of its own, which no configuration drives
        if is_frozen(path) or self._other_snapshot(stage, path):
            return ()
        place, owners = _place(path, self._home), self._owners(record)
        key = (stage, place, settings, *owners)
        if key not in self._said:
            self._said[key] = tuple(self._judge(stage, place, settings, owners))
        return self._said[key]

    def _owners(self, record: str) -> tuple[frozenset[str] | None, ...]:
        """Return the data sets whose overrides a job's settings hold (None: of all); several where nobody can tell."""
        if self.config is None:
            return (None,)
        bucket = BUCKET.search(record)
        if bucket and self.index is not None:
            return (self.index.datasets_in(int(bucket[1])),)
        if bucket:
            return (None, *(frozenset([dataset.name]) for dataset in self.config.datasets))
        *_, folder, dataset, _name = ("", "", *PurePath(record).parts)
        return (frozenset([dataset]) if folder == "preprocess" else None,)  # of one subject, or of all data sets

    def _other_snapshot(self, stage: str, path: str) -> bool:
        """Return whether a manifest is of a frozen snapshot that the configuration does not name: it stays as it is."""
        return stage == "freeze" and self.config is not None and PurePath(path).parent.name != self.config.snapshot.name

    def _judge(self, stage: str, place: str, settings: str, owners: Collection[frozenset[str] | None]) -> Iterator[str]:
        recorded = json.loads(settings)
        version = STAGES[stage].version
        if recorded.get("version") != version:
            yield f"stage version {recorded.get('version')} -> {version}"
        if self.config is None:
            return
        wanted = self._texts(stage, place, owners)
        if not wanted:
            yield f"{place} is no longer in the configuration"
            return
        if settings in wanted:
            return
        best = min((list(differences(recorded, json.loads(text))) for text in wanted), key=len)
        yield from best

    def _texts(self, stage: str, place: str, owners: Collection[frozenset[str] | None]) -> set[str]:
        """Return the settings the present configuration gives a stage at a place, with the overrides of ``owners``."""
        from boldmill.ablation.variants import evaluation_config, variant_config
        from boldmill.spaces.names import for_atlas

        assert self.config is not None
        config, (folder, _, name) = self.config, place.partition("/")
        if folder in OF_A_MODEL and name in MODELS and name not in config.models.train:
            return set()
        if folder == "ablation" and name:
            variants = {variant.name: variant for variant in config.ablation.variants}
            if name not in variants:
                return set()
            config = variant_config(evaluation_config(config), variants[name])
        if stage == "atlas":
            if name not in self._atlases:
                return set()
            config = config.model_copy(update={"spaces": for_atlas(config.spaces, name)})
        return {stage_json(config, stage, owner) for owner in owners}

    @cached_property
    def _atlases(self) -> list[str]:
        from boldmill.spaces.names import atlas_labels, configured_atlases

        assert self.config is not None
        return [*configured_atlases(self.config.spaces), *atlas_labels(self.config)]


def _place(path: str, home: str = "") -> str:
    """Return the part of a path that chooses settings: an atlas, a model, a variant; else nothing.

    Below the results folder ``home`` it comes first; folders above may be called alike.

    >>> _place("/lab/models/old/results/shards/fc/A/bucket-000.parquet", "/lab/models/old/results")
    ''
    """
    inside = bool(home) and PurePath(path).is_relative_to(home)
    folders = (PurePath(path).relative_to(home) if inside else PurePath(path)).parts[:-1]
    for folder in (*OF_A_MODEL, "ablation", "atlas"):
        if folder in (folders[:-1][:1] if inside else folders[:-1]):
            return f"{folder}/{folders[folders.index(folder) + 1]}"
    return ""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two settings (parsed JSON of ``stage_json``), key by key, in words.

    >>> list(differences({"config": {"clean": {"band_high": 0.1}}}, {"config": {"clean": {"band_high": 0.08}}}))
    ['clean.band_high changed 0.1 -> 0.08']
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    for key in sorted(old.keys() | new.keys()):
        name = re.sub(r"^config\.", "", key)
        if key == "version":
            continue
        if key not in new:
            yield f"{name} was {_short(old[key])}, and is no longer read"
        elif key not in old:
            yield f"{name} is new: {_short(new[key])}"
        elif old[key] != new[key]:
            yield f"{name} changed {_short(old[key])} -> {_short(new[key])}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
