"""TemplateFlow files by the entities in their names, in the local store only.

Nothing here knows a network: a job reads what lies below ``TEMPLATEFLOW_HOME`` and stops where a file is missing, with
what to run (``boldmill fetch``, :mod:`boldmill.setup.fetch`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from boldmill.errors import MachineFault

POINTER = 400
"""A NIfTI, GIFTI or TSV under this size that starts as a git-annex or LFS pointer is no data, bytes."""
FETCH = "run `snakemake fetch` with the same configuration where there is a network (a login node); no job downloads"
_SHORT = {"resolution": "res", "density": "den", "segmentation": "seg"}
"""Long names of entities, as TemplateFlow's client knows them -> keys in file names."""
_NAME = re.compile(r"(?P<entities>tpl-.+)_(?P<suffix>[A-Za-z0-9]+)(?P<extension>\.[^/]+)")


class Query(NamedTuple):
    """What a file is found by: its template, and entities as pairs; ``None`` means that the entity is absent."""

    template: str
    entities: tuple[tuple[str, str | int | None], ...]

    @property
    def words(self) -> str:
        """The query as a person reads it."""
        said = [f"no {key}" if value is None else f"{key} {value}" for key, value in self.entities]
        return f"tpl-{self.template} ({', '.join(said)})"


def query(template: str, **entities: str | int | None) -> Query:
    """Return a query.

    >>> query("fsLR", hemi="L", density="32k", desc=None).words
    'tpl-fsLR (hemi L, density 32k, no desc)'
    """
    return Query(template, tuple(entities.items()))


def flow_home() -> Path:
    """Return the folder of TemplateFlow's store: ``TEMPLATEFLOW_HOME``, else where its client keeps it."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("TEMPLATEFLOW_HOME") or user_cache_dir("templateflow")).absolute()


def parse_name(name: str) -> dict[str, str]:
    """Return the entities of a file name, with ``suffix`` and ``extension``; empty for one that has none.

    >>> parse_name("tpl-MNI152NLin6Asym_res-02_desc-brain_mask.nii.gz")["res"]
    '02'
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return {}
    pairs = (part.partition("-") for part in match["entities"].split("_"))
    return {**{key: value for key, _, value in pairs}, "suffix": match["suffix"], "extension": match["extension"]}


def matches(wanted: Query, name: str) -> bool:
    """Tell whether a file name fits a query; entities it does not name are free."""
    found = parse_name(name)
    if not found or found["tpl"] != wanted.template:
        return False
    for key, value in wanted.entities:
        short = _SHORT.get(key, key)
        have = found.get(short)
        if value is None or have is None:
            if (value is None) != (have is None):
                return False
        elif have != str(value) and not (short == "res" and _size(have) == _size(str(value)) is not None):
            return False
    return True


def _size(res: str) -> float | None:
    """Return what a ``res-`` entity says, mm; None for words such as ``iso4mm``."""
    return float(res) if res.isdigit() else None


def listed(wanted: Query, home: Path | None = None) -> list[Path]:
    """Return the files of the store that fit a query, by name, whether or not they hold data."""
    folder = (home or flow_home()) / f"tpl-{wanted.template}"
    return sorted(path for path in folder.rglob("tpl-*") if matches(wanted, path.name))


def flow_file(wanted: Query) -> Path:
    """Return the file that fits a query; with several, the first by name, which is that of the finest resolution.

    Raises
    ------
    MachineFault
        No file fits, or it is empty (listed, never fetched) or a pointer to data that is not there.
    """
    found = listed(wanted)
    if not found:
        why = f"no such file below {flow_home()} (TEMPLATEFLOW_HOME)"
        raise MachineFault("missing TemplateFlow file", wanted.words, why, FETCH)
    return with_data(found[0])


def with_data(path: Path) -> Path:
    """Return a path whose file holds data.

    Raises
    ------
    MachineFault
        It is empty, a broken link, or a pointer.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise MachineFault("missing TemplateFlow file", path, "it was listed but never fetched", FETCH)
    refuse_pointer(path)
    return path


def holds_data(path: Path) -> bool:
    """Tell whether :func:`with_data` would return a path."""
    try:
        return with_data(path) == path
    except MachineFault:
        return False


def refuse_pointer(path: Path) -> None:
    """Raise if a file is a git-annex or LFS pointer instead of data."""
    if path.stat().st_size > POINTER:
        return
    head = path.read_bytes()[:POINTER]
    if head.startswith((b"/annex/objects", b"version https://git-lfs", b"../.git/annex", b".git/annex")):
        why, fix = "it is a pointer, not data", f"`datalad get` it, or {FETCH}"
        raise MachineFault("missing TemplateFlow file", path, why, fix)


def finest(paths: Iterable[Path], resolution: float) -> Path:
    """Return the file whose ``res-`` entity (mm) is nearest to a resolution, the finer one of two; by name without."""

    def distance(path: Path) -> tuple[float, float, str]:
        size = _size(parse_name(path.name).get("res", "")) or resolution
        return abs(size - resolution), size, path.name

    return min(paths, key=distance)
