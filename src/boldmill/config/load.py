"""Read, merge and check a configuration; every complaint names the key and the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from boldmill.ablation.variants import check_variants
from boldmill.config.base import Section
from boldmill.config.model import SECTIONS, Config, json_schema
from boldmill.errors import ConfigError, nearest

PER_DATASET = ("index", "preprocess", "clean", "parcellate", "flatmap", "augment")
"""Sections a data set may override: what its scans go through before they meet those of other data sets."""

SHARED = {
    **dict.fromkeys(
        ("flatmap.sampling", "flatmap.depths", "flatmap.regfusion"), "the operators are built once for all data sets"
    ),
    "flatmap.preset": "flat maps of two orders are not to be mixed in one table",
    "flatmap.keep": "what stays is decided once for all data sets",
    "augment.dtype": "a column of a shard has one type",
}
"""Keys of those sections that hold for all data sets, and why."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key as Snakemake does; lists and scalars of ``over`` replace those of ``base``."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping safely."""
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("cannot read the configuration", path, str(error), "give an existing file") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError("not valid YAML", path, reason, "correct the syntax at that line") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError("not a configuration", path, "the top level is not a mapping", "write `key: value` lines")
    return value


def parse(raw: Mapping[str, Any], where: str | Path = "config.yaml") -> Config:
    """Check a merged mapping and return the frozen configuration.

    Raises
    ------
    ConfigError
        An unknown key (with the nearest valid one) or a value outside its type or range.
    """
    from pydantic import ValidationError

    _refuse_unknown(raw, Config, where, "")
    for dataset in raw.get("datasets") or []:
        if isinstance(dataset, Mapping):
            _check_overrides(dataset, where)
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise ConfigError("invalid configuration", where, f"{key}: {first['msg']}", f"correct `{key}`") from error
    _check_override_values(config, where)
    check_variants(config)
    _validator().validate(config.model_dump(mode="json"))
    return config


def _check_override_values(config: Config, where: str | Path) -> None:
    """Refuse an override whose value is outside its type or range now, not in the job that would read it."""
    from pydantic import ValidationError

    for dataset in config.datasets:
        for section, values in dataset.overrides.items():
            label = f"datasets[{dataset.name}].overrides.{section}"
            try:
                kind = SECTIONS[section]
                kind.model_validate({**getattr(config, section).model_dump(mode="json"), **kind.fill(values)})
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join([label, *map(str, first["loc"])])
                raise ConfigError(
                    "invalid configuration", where, f"{key}: {first['msg']}", f"correct `{key}`"
                ) from error


@cache
def _validator() -> Any:
    """Return the validator of the published schema, so that what users and editors check against is what runs."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json_schema())


def load(*paths: str | Path) -> Config:
    """Read and merge configuration files, later ones winning, and check the result."""
    raw: dict[str, Any] = {}
    for path in paths:
        raw = merge(raw, read_yaml(path))
    return parse(raw, paths[-1] if paths else "config.yaml")


def _check_overrides(dataset: Mapping[str, Any], where: str | Path) -> None:
    overrides = dataset.get("overrides") or {}
    label = f"datasets[{dataset.get('name', '?')}].overrides"
    for section, values in overrides.items():
        if section not in PER_DATASET:
            known = "holds for all data sets" if section in SECTIONS else f"is not known{nearest(section, PER_DATASET)}"
            fix = f"override one of {', '.join(PER_DATASET)}"
            raise ConfigError("cannot override", where, f"`{label}.{section}` {known}", fix)
        if values is not None and not isinstance(values, Mapping):
            continue  # the type error names it
        _refuse_unknown(values or {}, SECTIONS[section], where, f"{label}.{section}.")
        for key in values or {}:
            if why := SHARED.get(f"{section}.{key}"):
                fix = f"set `{section}.{key}` for all data sets"
                raise ConfigError("cannot override", where, f"`{label}.{section}.{key}`: {why}", fix)


def _refuse_unknown(raw: Mapping[str, Any], model: type[Section], where: str | Path, prefix: str) -> None:
    """Walk the raw mapping along the model, because a name is worth more than a type error."""
    for key, value in raw.items():
        field = model.model_fields.get(str(key))
        if field is None:
            hint = nearest(str(key), model.model_fields)
            raise ConfigError(
                "unknown configuration key", where, f"`{prefix}{key}` is not known{hint}", "rename or remove it"
            )
        inner = _section_in(field.annotation)
        if get_origin(field.annotation) is dict and isinstance(value, Mapping):  # its names are the user's
            inside = [(f"{prefix}{key}.{name}.", item) for name, item in value.items()]
        else:
            inside = [(f"{prefix}{key}.", item) for item in (value if isinstance(value, list) else [value])]
        for place, item in inside:
            if inner is not None and isinstance(item, Mapping):
                _refuse_unknown(item, inner, where, place)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in get_args(annotation):
        if found := _section_in(argument):
            return found
    return None
