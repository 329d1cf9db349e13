"""Which TemplateFlow files a configuration reads: the stages ask by these queries, `boldmill fetch` brings them.

One list for the readers, for the download and for `boldmill doctor`, so that none can forget a file of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.atomic import canonical_json
from boldmill.spaces.flow import Query, finest, holds_data, listed, matches, query
from boldmill.spaces.names import AtlasName, configured_atlases

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.spaces.config import SpacesConfig

NO_TEMPLATE = re.compile(r"(T1w|anat|boldref|bold|func|fsnative|fsaverage\d*|fsLR)$")
"""Output spaces that need no volume template."""
FURTHER: tuple[tuple[int, str | None], ...] = ((2, "brain"), (1, "brain"), (2, None))
"""Resolution and ``desc`` of a further template's T1w, in the order they are looked for."""
HEMISPHERES = ("L", "R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Files that a configuration reads.

    Parameters
    ----------
    what : str
        What they are, in a few words.
    choices : tuple of tuples of Query
        Sets of files, in the order they are looked for; the first set that is whole is read.
    resolution : float or None
        Where several files fit a query, the one nearest to this voxel size (mm) is read; without it the first by name.
    optional : bool
        Whether the stage goes on without them.
    """

    what: str
    choices: tuple[tuple[Query, ...], ...]
    resolution: float | None = None
    optional: bool = False

    def found(self, home: Path | None = None) -> list[Path] | None:
        """Return the files in the store that will be read, or None where no choice is whole."""
        for choice in self.choices:
            files = [self.pick(listed(one, home)) for one in choice]
            if all(path is not None and holds_data(path) for path in files):
                return [path for path in files if path is not None]
        return None

    def pick(self, fitting: list[Path]) -> Path | None:
        """Return the one file of those that fit a query."""
        if not fitting:
            return None
        return fitting[0] if self.resolution is None else finest(fitting, self.resolution)

    def among(self, names: Iterable[str]) -> list[str] | None:
        """Return the paths, of all that TemplateFlow has, that the first whole choice takes; None without one."""
        known = [Path(name) for name in names]
        for choice in self.choices:
            files = [self.pick(sorted(path for path in known if matches(one, path.name))) for one in choice]
            if all(files):
                return [path.as_posix() for path in files if path is not None]
        return None

    @property
    def words(self) -> str:
        """The files of the first choice as a person reads them."""
        return " and ".join(one.words for one in self.choices[0])


def head_query(template: str) -> Query:
    """T1w with skull at 2 mm."""
    return query(template, resolution=2, suffix="T1w", desc=None, extension=".nii.gz")


def mask_query(template: str, resolution: int = 2) -> Query:
    """Brain mask."""
    return query(template, resolution=resolution, suffix="mask", desc="brain", extension=".nii.gz")


def further_queries(space: str) -> tuple[tuple[Query, ...], ...]:
    """T1w and brain mask of a further template, one pair per choice."""
    return tuple(
        (query(space, resolution=res, suffix="T1w", desc=desc, extension=".nii.gz"), mask_query(space, res))
        for res, desc in FURTHER
    )


def atlas_query(space: str, name: AtlasName, suffix: str = "dseg") -> Query:
    """Label volumes of an atlas, at any resolution."""
    entities = {"atlas": name.atlas, "suffix": suffix, **dict(name.entities), "desc": name.desc or None}
    return query(space, **entities, extension=".nii.gz")


def table_queries(space: str, name: AtlasName) -> tuple[tuple[Query, ...], ...]:
    """Label table of an atlas; thresholds of one atlas (``HOCPA th25``) share a table without ``desc``."""
    descs = dict.fromkeys([name.desc or None, None])
    return tuple(
        (query(space, atlas=name.atlas, suffix="dseg", **dict(name.entities), desc=desc, extension=".tsv"),)
        for desc in descs
    )


def sphere_queries() -> tuple[Query, ...]:
    """The fsLR spheres registered to fsaverage, left and right."""
    wanted = {"space": "fsaverage", "density": "32k", "suffix": "sphere", "extension": ".surf.gii"}
    return tuple(query("fsLR", hemi=side, **wanted) for side in HEMISPHERES)


def further_templates(output_spaces: Iterable[str], first: str) -> list[str]:
    """Return the templates, other than the first, that output spaces name; a resolution after ``:`` is left out.

    >>> further_templates(["MNI152NLin2009cAsym:res-2", "T1w", "fsaverage5", "MNI152NLin6Asym"], "MNI152NLin6Asym")
    ['MNI152NLin2009cAsym']
    """
    names = {space.partition(":")[0] for space in output_spaces}
    return sorted(name for name in names if name != first and not NO_TEMPLATE.match(name))


def needs(spaces: SpacesConfig, output_spaces: Iterable[str] = ()) -> Iterator[Need]:
    """Yield what the stages `templates`, `atlas` and `operators` read of TemplateFlow with these settings."""
    if spaces.template_source == "templateflow":
        yield Need(what="T1w", choices=((head_query(spaces.template),),))
        yield Need(what="brain mask", choices=((mask_query(spaces.template),),))
    for place, name in enumerate(configured_atlases(spaces).values()):
        if place == 0 and spaces.atlas_source == "embedded":
            continue
        volume = ((atlas_query(spaces.template, name),),)
        yield Need(what=f"atlas {name.label}", choices=volume, resolution=spaces.resolution)
        yield Need(what=f"names of {name.label}", choices=table_queries(spaces.template, name))
    optional = spaces.surface_source != "templateflow" and spaces.flat != "rebuilt"
    for side, one in zip(HEMISPHERES, sphere_queries(), strict=True):
        yield Need(what=f"sphere {side}", choices=((one,),), optional=optional)
    for space in further_templates(output_spaces, spaces.template):
        yield Need(what=space, choices=further_queries(space))


def config_needs(config: Config) -> list[Need]:
    """Return what a configuration reads; nothing where all data sets are tables of atlases of their own."""
    if config.datasets and all(dataset.atlas for dataset in config.datasets):
        return []
    return list(needs(config.spaces, output_spaces(config)))


def output_spaces(config: Config) -> list[str]:
    """Return the output spaces that the configuration or one of its data sets asks for."""
    asked = [*config.preprocess.output_spaces]
    for dataset in config.datasets:
        asked += dataset.overrides.get("preprocess", {}).get("output_spaces", [])
    return asked


def fetch_json(config: Config) -> str:
    """Return the settings of the rule `fetch`, which is no stage: what it brings is no output of the workflow."""
    wanted = {"spaces": config.spaces.model_dump(mode="json"), "output_spaces": output_spaces(config)}
    return canonical_json({"config": wanted if config_needs(config) else {}})
