"""The parcel table: id, name, network, hemisphere. Joined on ids, because names differ between releases.

19 of the 100 names differ between the first release (v0.8, TemplateFlow's volumes) and the current one (2019 and
later, TemplateFlow's fsaverage); three names exist in both with different ids. Ids and order agree everywhere.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from boldmill.errors import ConfigError
from boldmill.spaces.packages import package_file

RELEASE = "Schaefer2018 7Networks, names of the 2019 release"
_MEMBER = "tpl-fsaverage/tpl-fsaverage_atlas-Schaefer2018_seg-7n_scale-100_dseg.tsv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One parcel; ``id`` is its label in volumes and on surfaces, 1-based."""

    id: int
    name: str
    network: str
    hemisphere: str


_SIDES = {"lh": "L", "left": "L", "l": "L", "rh": "R", "right": "R", "r": "R"}


def parse_name(parcel_id: int, name: str) -> Parcel:
    """Split a parcel's name into its parts; names of other atlases may tell no network, or no hemisphere.

    >>> parse_name(1, "7Networks_LH_Vis_1")
    Parcel(id=1, name='LH_Vis_1', network='Vis', hemisphere='L')
    >>> parse_name(2, "Left-Caudate")
    Parcel(id=2, name='Left-Caudate', network='', hemisphere='L')
    """
    short = name.removeprefix("7Networks_").removeprefix("17Networks_")
    words = re.split(r"[_\s-]+", short)
    side = next((_SIDES[word.lower()] for word in words if word.lower() in _SIDES), "")
    network = words[1] if words[0] in ("LH", "RH") and len(words) > 1 else ""
    return Parcel(id=parcel_id, name=short, network=network, hemisphere=side)


def schaefer100() -> list[Parcel]:
    """Return the 100 parcels in id order, with the names of :data:`RELEASE`.

    Read from the label table in the `templateflow` package's skeleton. Its ``index`` column is a packed colour, and it
    has one background row per hemisphere, so the id is the row's rank among the parcels.
    """
    import zipfile

    path = names_file()
    with zipfile.ZipFile(path) as archive:
        text = archive.read(_MEMBER).decode()
    rows = [r for r in csv.DictReader(io.StringIO(text), delimiter="\t") if r["name"].startswith("7Networks_")]
    if len(rows) != 100:
        raise ConfigError(
            "unexpected label table", path, f"{len(rows)} parcels, not 100", "install templateflow==25.1.2"
        )
    return [parse_name(number, row["name"]) for number, row in enumerate(rows, start=1)]


def names_file() -> Path:
    """Return the file :func:`schaefer100` reads."""
    return package_file("templateflow", "conf/templateflow-skel.zip")


def read_table(text: str, where: str | Path = "label table") -> list[Parcel]:
    """Read a TemplateFlow label table (``index``, ``name``) and return its parcels in id order.

    Parcels that share a name get their id after it, since columns are named by parcels.

    Raises
    ------
    ConfigError
        It has no such columns, an index is no whole number, or two rows have one index.
    """
    fix = "use another atlas, or repair the table"
    try:
        rows = [(float(r["index"]), r["name"].strip()) for r in csv.DictReader(io.StringIO(text), delimiter="\t")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"it needs columns `index` and `name`, a number and a name in each row ({error})"
        raise ConfigError("cannot read label table", where, why, fix) from error
    rows = [(number, name) for number, name in rows if number > 0 and "Background" not in name]
    if wrong := sorted({number for number, count in Counter(n for n, _ in rows).items() if count > 1 or number % 1}):
        why = f"indices {', '.join(f'{n:g}' for n in wrong[:10])} are not whole numbers of one row each"
        raise ConfigError("cannot read label table", where, why, fix)
    parcels = sorted((parse_name(int(number), name) for number, name in rows), key=lambda p: p.id)
    while shared := {name for name, count in Counter(p.name for p in parcels).items() if count > 1}:
        parcels = [replace(p, name=f"{p.name}_{p.id}") if p.name in shared else p for p in parcels]
    return parcels


def table_tsv(parcels: list[Parcel]) -> str:
    """Return the table as TSV text: ``id name network hemisphere``."""
    lines = ["id\tname\tnetwork\themisphere"]
    lines += [f"{p.id}\t{p.name}\t{p.network}\t{p.hemisphere}" for p in parcels]
    return "\n".join(lines) + "\n"
