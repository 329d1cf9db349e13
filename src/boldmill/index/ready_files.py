"""Ready-made data of other pipelines: the forms one run comes in, and which of them is read.

A pipeline leaves the same run as volumes, surfaces, grayordinates and parcel series. One form becomes the scan, in the
order volume in the configured space, fsaverage5 or fsLR surfaces, grayordinates, parcel series, volume in another
space; `prefer` and `pick` of the data set change it. The others are listed as ignored, with the one that was taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from boldmill.errors import DataFault
from boldmill.index.config import DatasetConfig
from boldmill.index.names import SCAN_ENTITIES, BidsFile, parse_name, scan_id

Form = Literal["volume", "surface", "cifti", "parcels"]
Stage = Literal["clean", "parcellate"]
Run = tuple[tuple[str, str | int], ...]

FORMS: tuple[Form, ...] = ("volume", "surface", "cifti", "parcels")
KIND = {"volume": "volume_ready", "surface": "surface", "cifti": "cifti", "parcels": "parcels"}
"""Form -> kind of the ticket."""
RUN_ENTITIES = tuple(key for key in SCAN_ENTITIES if key not in ("echo", "part"))
SUBCORTICAL_4S = 56
"""Subcortical parcels that XCP-D's 4S atlases add to Schaefer's."""

_LABEL = re.compile("[A-Za-z0-9+-]+")


@dataclass(slots=True, kw_only=True)
class Ready:
    """One form of one run.

    Parameters
    ----------
    form : {"volume", "surface", "cifti", "parcels"}
    stage : {"clean", "parcellate"}
        Where it enters: with confounds to regress, or clean already.
    entities : dict
        Those that name the run.
    files : list of BidsFile
        The series: one file, or left and right.
    space : str
        Space of the series, empty for parcels.
    roles : dict
        Further files: ``mask``, ``confounds``, ``motion``, ``outliers``, ``labels``.
    rank : int
        Between forms of the same kind, the smallest is taken.
    """

    form: Form
    stage: Stage
    entities: dict[str, str]
    files: list[BidsFile]
    space: str = ""
    roles: dict[str, BidsFile] = field(default_factory=dict)
    rank: int = 0
    fault: DataFault | None = None
    flags: list[str] = field(default_factory=list)

    @property
    def run(self) -> Run:
        """What tells its run from others."""
        return run_of(self.entities)

    @property
    def path(self) -> str:
        """Path of its first file."""
        return self.files[0].path


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the configuration asks for: the template space and the number of parcels of the atlas (0: unknown)."""

    space: str = ""
    n_parcels: int = 0


@dataclass(slots=True, kw_only=True)
class Choice:
    """One run: the form taken, the others, and the pipeline's layout."""

    taken: Ready
    others: list[Ready]
    layout: str


def ready_file(path: str) -> BidsFile | None:
    """Return the file a path stands for, or None where its name does not begin with a subject.

    Unlike raw data, entities that BIDS does not know (``feature-``, ``reg-``, ``filt-``) are kept.
    """
    *folders, name = path.split("/")
    entities, suffix, ext = parse_name(name)
    if not name.startswith("sub-") or not suffix or not all(_LABEL.fullmatch(v) for v in entities.values()):
        return None
    return BidsFile(path, entities, folders[-1] if folders else "", suffix, ext)


def run_of(entities: dict[str, str]) -> Run:
    """Return what tells one run from another: equal for ``run-1`` and ``run-01``."""
    found = ((key, entities[key]) for key in RUN_ENTITIES if entities.get(key))
    return tuple((k, int(v) if k == "run" and v.isdigit() else v) for k, v in found)


def run_entities(file: BidsFile) -> dict[str, str]:
    """Return the entities of a file that name its run."""
    return {key: file.entities[key] for key in RUN_ENTITIES if file.entities.get(key)}


def choose(
    dataset: DatasetConfig, found: Iterable[Ready], wanted: Wanted, layout: str
) -> tuple[dict[str, Choice], list[tuple[str, str]]]:
    """Return the form each run is read from, by scan id, and the forms that are not, with the reason.

    Parameters
    ----------
    dataset : DatasetConfig
        ``prefer`` puts forms first; ``pick`` keeps files with the given entities only.
    found : iterable of Ready
    wanted : Wanted
    layout : str
        Name of the pipeline's layout.
    """
    ignored: list[tuple[str, str]] = []
    groups: dict[Run, list[Ready]] = {}
    for one in found:
        if odd := _picked_away(dataset.pick, one.files[0]):
            ignored += [(file.path, f"datasets[{dataset.name}].pick asks for {odd}") for file in one.files]
            continue
        groups.setdefault(one.run, []).append(one)
    order = _order(dataset.prefer, wanted)
    choices: dict[str, Choice] = {}
    for _, forms in sorted(groups.items(), key=lambda item: str(item[0])):
        first, *others = sorted(forms, key=lambda one: (one.fault is not None, order(one)))
        for other in others:
            if other.fault is not None and first.fault is None and order(other) < order(first):
                first.flags.append(f"{other.path} passed over: {other.fault.why}")
        for other in others:
            if order(other)[:-1] == order(first)[:-1] and first.fault is None:
                first.fault = DataFault(
                    "ambiguous run", first.path, f"{first.path} and {other.path} are one run", "keep one, or use `pick`"
                )
            ignored += [(file.path, f"the run is read from {first.path}") for file in other.files]
        choices[scan_id(dataset.name, first.entities)] = Choice(taken=first, others=others, layout=layout)
    return choices, ignored


def _picked_away(pick: dict[str, str], file: BidsFile) -> str:
    for key, value in pick.items():
        label = file.entities.get(key)
        if key == "atlas":
            label = label or file.entities.get("seg")
        if label is not None and label != value:
            return f"{key}-{value}"
    return ""


def _order(prefer: list[Form], wanted: Wanted) -> Callable[[Ready], tuple[bool, int, bool, int, str, str]]:
    forms = [*prefer, *(form for form in FORMS if form not in prefer)]

    def key(one: Ready) -> tuple[bool, int, bool, int, str, str]:
        elsewhere = one.form == "volume" and bool(wanted.space) and one.space != wanted.space
        label = one.files[0].entities.get
        atlas = f"{label('atlas', '') or label('seg', '')} {label('feature', '')}"
        resolution = f"res-{label('res', '')}"
        return (
            elsewhere,
            forms.index(one.form),
            one.form == "parcels" and not names_count(atlas, wanted.n_parcels),
            one.rank,
            f"{one.space} {resolution} {atlas}",
            one.path,
        )

    return key


def names_count(atlas: str, n_parcels: int) -> bool:
    """Return whether an atlas label names a number of parcels, alone or with XCP-D's subcortical ones.

    >>> names_count("schaefer400", 400), names_count("4S456Parcels", 400), names_count("Tian", 400)
    (True, True, False)
    """
    return bool({str(n_parcels), str(n_parcels + SUBCORTICAL_4S)} & set(re.findall(r"\d+", atlas)))
