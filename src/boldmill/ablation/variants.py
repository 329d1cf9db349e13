"""The configuration of each variant: the user's, with a few keys changed, checked before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from boldmill.errors import ConfigError, nearest

if TYPE_CHECKING:
    from boldmill.ablation.config import VariantConfig
    from boldmill.config.base import Section
    from boldmill.config.model import Config

    S = TypeVar("S", bound=Section)

MODEL, VIEWS = "models.brainmass", "augment"
"""Sections a variant may change."""
PROBES, BASELINES = ["logistic"], ["fc_linear_selected"]
"""What every variant is evaluated with: the frozen linear probe, and FC as the reference."""
PROTOCOLS = ["split"]
"""Fitted on the subjects of pre-training, tested on all held-out ones."""


UNUSED = (
    "folds",
    "repeats",
    "inner_folds",
    "paper_repeats",
    "grid_c",
    "knn",
    "mlp",
    "brainnetcnn",
    "transformer",
    "finetune",
)
"""Settings of other probes and protocols: at their defaults, so that no variant is evaluated again for them."""


def variant_of(config: Config, name: str) -> VariantConfig:
    """Return a variant by name."""
    return next(variant for variant in config.ablation.variants if variant.name == name)


def variant_config(config: Config, variant: VariantConfig) -> Config:
    """Return the configuration with the settings of a variant laid over it.

    Raises
    ------
    ConfigError
        A key outside `models.brainmass` and `augment`, an unknown one, a value outside its range, or a key of
        `augment` where views are read from the shards, which hold those of the base.
    """
    changes: dict[str, dict[str, Any]] = {MODEL: {}, VIEWS: {}}
    for key, value in variant.set.items():
        section, _, name = key.rpartition(".")
        if section not in changes:
            why = f"`{key}` is not below {MODEL} or {VIEWS}"
            raise ConfigError("not part of an ablation", where(variant), why, "change the base configuration instead")
        changes[section][name] = value
    model = changed(config.models.brainmass, changes[MODEL], variant, MODEL)
    views = changed(config.augment, changes[VIEWS], variant, VIEWS)
    if changes[VIEWS] and model.views != "fly":
        why = "views read from the shards are those of the base configuration"
        raise ConfigError("cannot vary the views", where(variant), why, f"set {MODEL}.views: fly")
    models = config.models.model_copy(update={"brainmass": model})
    return config.model_copy(update={"models": models, "augment": views})


def changed(section: S, changes: dict[str, Any], variant: VariantConfig, label: str) -> S:
    """Return a section with some keys changed; what the user left to a preset is left to it again."""
    from pydantic import ValidationError

    kind = type(section)
    for name in changes:
        if name not in kind.model_fields:
            hint = nearest(name, kind.model_fields)
            raise ConfigError(
                "unknown configuration key", where(variant), f"`{label}.{name}` is not known{hint}", "rename it"
            )
    if not changes:
        return section
    try:
        return kind.model_validate({**section.model_dump(mode="json", exclude_unset=True), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([label, *map(str, first["loc"])])
        raise ConfigError(
            "invalid configuration", where(variant), f"{key}: {first['msg']}", f"correct `{key}`"
        ) from error


def evaluation_config(config: Config) -> Config:
    """Return the configuration of a variant's evaluation: one protocol, the frozen linear probe, the FC reference."""
    tasks = [task.model_copy(update={"protocols": []}) for task in config.evaluate.tasks]
    update = {"tasks": tasks, "protocols": PROTOCOLS, "probes": PROBES, "baselines": BASELINES}
    update |= {name: type(config.evaluate).model_fields[name].default for name in UNUSED}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=update)})


def check_variants(config: Config) -> None:
    """Raise :class:`ConfigError` for the first variant that cannot be."""
    for variant in config.ablation.variants:
        variant_config(config, variant)


def where(variant: VariantConfig) -> str:
    """Return how a message names a variant."""
    return f"ablation.variants[{variant.name}]"
