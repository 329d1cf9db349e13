"""Names of atlases: how the configuration writes them, and the label that paths and tables carry.

An atlas is written as in TemplateFlow: its name, its ``desc`` if it has one, then any further entities, e.g.
``Schaefer2018 400Parcels17Networks``, ``HOCPA th25`` or ``Schaefer2018 seg=7n scale=100``. Its label is the same text
with everything but letters and digits replaced by ``-``: a folder name, and the value of the column ``atlas``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boldmill.errors import ConfigError, nearest

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.spaces.config import SpacesConfig

EMBEDDED = "Schaefer2018embedded"
"""Name of the atlas grown from what installed packages carry; it is not the published one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasName:
    """One atlas: ``atlas``, ``desc`` (or empty) and further TemplateFlow entities."""

    atlas: str
    desc: str = ""
    entities: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The atlas as the configuration writes it."""
        return " ".join([self.atlas, *filter(None, [self.desc]), *(f"{k}={v}" for k, v in self.entities)])

    @property
    def label(self) -> str:
        """The label that paths and tables carry."""
        return atlas_label(self.text)


def parse_atlas(text: str) -> AtlasName:
    """Read an atlas as the configuration writes it.

    >>> parse_atlas("Schaefer2018 seg=7n scale=100").entities
    (('seg', '7n'), ('scale', '100'))
    """
    atlas, *rest = text.split() or [""]
    pairs = [(key, value) for key, _, value in (word.partition("=") for word in rest if "=" in word)]
    plain = [word for word in rest if "=" not in word] + [value for key, value in pairs if key == "desc"]
    pairs = [pair for pair in pairs if pair[0] != "desc"]
    fixed = {"atlas", "suffix", "extension", "template"}.intersection(key for key, _ in pairs)
    if not atlas or "=" in atlas or len(plain) > 1 or fixed or not all(key and value for key, value in pairs):
        raise ValueError(f"'{text}': write NAME, NAME DESC, or NAME key=value")
    return AtlasName(atlas=atlas, desc=plain[0] if plain else "", entities=tuple(pairs))


def atlas_label(text: str) -> str:
    """Return the label of an atlas.

    >>> atlas_label("Schaefer2018 100Parcels7Networks")
    'Schaefer2018-100Parcels7Networks'
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", text.strip()).strip("-")


def configured_atlases(spaces: SpacesConfig) -> dict[str, AtlasName]:
    """Return label -> atlas of the configured atlases, the one models read first."""
    first = parse_atlas(f"{spaces.atlas} {spaces.atlas_desc}".strip())
    label = EMBEDDED if spaces.atlas_source == "embedded" else first.label
    return {label: first, **{name.label: name for name in map(parse_atlas, spaces.further_atlases)}}


def for_atlas(spaces: SpacesConfig, label: str) -> SpacesConfig:
    """Return the settings that make one of the configured atlases: it as the first, no others.

    Raises
    ------
    ConfigError
        No configured atlas has this label.
    """
    known = configured_atlases(spaces)
    if label not in known:
        why = f"it is not configured{nearest(label, known)}"
        raise ConfigError("unknown atlas", label, why, "name it in spaces.further_atlases")
    if label == next(iter(known)):
        return spaces.model_copy(update={"further_atlases": []})
    name = known[label]
    rest = " ".join([*filter(None, [name.desc]), *(f"{k}={v}" for k, v in name.entities)])
    one = {"atlas_source": "templateflow", "atlas": name.atlas, "atlas_desc": rest, "further_atlases": []}
    return spaces.model_copy(update=one)


def atlas_labels(config: Config) -> list[str]:
    """Return the labels of every atlas of a project: those configured, then those that data sets of tables bring.

    Where all data sets bring their own, nothing is parcellated, and the configured atlas is not among them.
    """
    own = [atlas_label(d.atlas) for d in config.datasets if d.atlas]
    made = list(configured_atlases(config.spaces)) if any(not d.atlas for d in config.datasets) else []
    return list(dict.fromkeys([*made, *own]))
