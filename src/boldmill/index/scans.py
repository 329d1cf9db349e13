"""From files to scans: which files make one run, which T1w goes with it, and which runs are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from boldmill.errors import ConfigError, DataFault, nearest
from boldmill.index.config import DatasetConfig, FilterConfig
from boldmill.index.listing import Listing
from boldmill.index.names import BidsFile, scan_id
from boldmill.index.ready_files import KIND, Choice, Wanted, choose

if TYPE_CHECKING:
    from boldmill.index.table_scans import TableSeries

T = TypeVar("T")


@dataclass(slots=True)
class Scan:
    """One run, or one subject with a T1w only.

    Parameters
    ----------
    files : list of BidsFile
        The BOLD image; left and right series for a surface scan; nothing for a T1w only.
    t1w : list of BidsFile
        Candidates, the preferred one first (same session before others).
    fmaps : list of BidsFile
        Field maps and single-band references of the subject (volume runs).
    confounds : BidsFile or None
        Table of a surface scan.
    fault : DataFault or None
        Why the scan is refused by its name alone.
    ready : Choice or None
        Ready-made data of a known pipeline: the form that is read, and the others.
    table : TableSeries or None
        Series of a data set of tables.
    """

    scan_id: str
    dataset: str
    entities: dict[str, str]
    kind: str
    files: list[BidsFile] = field(default_factory=list)
    t1w: list[BidsFile] = field(default_factory=list)
    fmaps: list[BidsFile] = field(default_factory=list)
    confounds: BidsFile | None = None
    fault: DataFault | None = None
    flags: list[str] = field(default_factory=list)
    ready: Choice | None = None
    table: TableSeries | None = None

    def label(self, entity: str) -> str:
        """Return the label of an entity, empty if the scan has none."""
        return self.entities.get(entity, "")

    @property
    def roles(self) -> dict[str, BidsFile]:
        """Further files of ready-made data, by role."""
        return self.ready.taken.roles if self.ready else {}


def build_scans(dataset: DatasetConfig, listing: Listing, wanted: Wanted | None = None) -> list[Scan]:
    """Return the scans of one data set, filters applied, sorted by scan id.

    ``wanted`` decides between the forms of ready-made data; those not read are added to ``listing.ignored``.

    Raises
    ------
    ConfigError
        A filter names something the data set does not hold, or no scan passes all of them.
    """
    bold = [file for file in listing.images if file.suffix == "bold"]
    t1w = [file for file in listing.images if file.suffix == "T1w"]
    _check_filters(dataset, [*(file.entities for file in (*bold, *t1w)), *(one.entities for one in listing.ready)])
    if listing.layout is not None:
        scans = _ready_scans(dataset, listing, wanted or Wanted())
    elif dataset.kind == "derivative":
        scans = _surface_scans(dataset.name, [f for f in bold if _kept(f, dataset.filters)], listing.tables)
    else:
        scans = _volume_scans(dataset.name, [f for f in bold if _kept(f, dataset.filters)])
        by_subject, fmaps = _by_subject(t1w), _by_subject(listing.fmaps)
        for scan in scans:
            scan.t1w = _preferred(by_subject.get(scan.label("sub"), []), scan.label("ses"))
            scan.fmaps = fmaps.get(scan.label("sub"), [])
        scans += _anat_scans(dataset, by_subject, {file.entities["sub"] for file in bold})
    if not scans and (bold or t1w or listing.ready):
        _refuse_all_filtered(dataset)
    return sorted(scans, key=lambda scan: scan.scan_id)


def filtered(dataset: DatasetConfig, scans: list[Scan]) -> list[Scan]:
    """Return the scans that the filters of a data set keep.

    Raises
    ------
    ConfigError
        A filter names something the data set does not hold, or no scan passes all of them.
    """
    _check_filters(dataset, [scan.entities for scan in scans])
    kept = [scan for scan in scans if _passes(scan.entities, dataset.filters)]
    if not kept:
        _refuse_all_filtered(dataset)
    return kept


def _refuse_all_filtered(dataset: DatasetConfig) -> None:
    if dataset.filters != FilterConfig():
        where = f"datasets[{dataset.name}].filters"
        raise ConfigError("filters match nothing", where, "each is there, but no scan has them all", "loosen one")


def _same(label: str, wanted: str) -> bool:
    return label == wanted or (label.isdigit() and wanted.isdigit() and int(label) == int(wanted))


def _kept(file: BidsFile, filters: FilterConfig) -> bool:
    """Return whether the filters keep a file; a run filter of ``1`` keeps ``run-01``."""
    return _passes(file.entities, filters)


def _passes(entities: Mapping[str, str], filters: FilterConfig) -> bool:
    label = entities.get
    return (
        (not filters.participant or label("sub") in filters.participant)
        and (not filters.session or label("ses") in filters.session)
        and (not filters.task or label("task") in filters.task)
        and (not filters.run or any(_same(label("run", ""), wanted) for wanted in filters.run))
    )


def _check_filters(dataset: DatasetConfig, entities: list[Mapping[str, str]]) -> None:
    """Refuse a filter that matches nothing: most likely it is misspelt."""
    for name, entity in (("participant", "sub"), ("session", "ses"), ("task", "task"), ("run", "run")):
        present = sorted({found[entity] for found in entities if entity in found})
        for wanted in getattr(dataset.filters, name):
            if not any(label == wanted or (entity == "run" and _same(label, wanted)) for label in present):
                shown = ", ".join(present[:8]) + (", ..." if len(present) > 8 else "")
                raise ConfigError(
                    "filter matches nothing",
                    f"datasets[{dataset.name}].filters.{name}",
                    f"'{wanted}' is not in the data set{nearest(wanted, present)}; it has: {shown or 'none'}",
                    "give labels without their prefix, as written in the file names",
                )


def _volume_scans(dataset: str, bold: list[BidsFile]) -> list[Scan]:
    scans: list[Scan] = []
    for files in _groups(bold, lambda file: file.identity):
        first = files[0]
        scan = Scan(scan_id(dataset, first.entities), dataset, dict(first.entities), "volume", [first])
        part = first.entities.get("part", "mag")
        if len(files) > 1:
            names = ", ".join(sorted(file.path for file in files))
            scan.files = files
            scan.fault = DataFault("ambiguous run", first.path, f"several files for one run: {names}", "keep one")
        elif part != "mag":
            scan.fault = DataFault(
                "not a magnitude image", first.path, f"part-{part} is not read", "nothing, if the magnitude is there"
            )
        scans.append(scan)
    for echoes in _groups(scans, lambda scan: tuple(kv for kv in scan.files[0].identity if kv[0] != "echo")):
        _choose_echo([scan for scan in echoes if scan.fault is None])
    return scans


def _choose_echo(scans: list[Scan]) -> None:
    """Keep one series of a multi-echo run: one without echo entity (combined), else the middle echo.

    The middle echo (the second of three) is the one whose contrast is nearest to single-echo BOLD.
    """
    if len(scans) < 2:
        return
    ordered = sorted(scans, key=lambda scan: int(scan.label("echo") or 0))
    combined = not ordered[0].label("echo")
    kept = ordered[0] if combined else ordered[len(ordered) // 2]
    what = "the combined series is" if combined else f"the middle one, echo-{kept.label('echo')}, is"
    for scan in ordered:
        if scan is not kept:
            scan.fault = DataFault(
                "one of several echoes",
                scan.files[0].path,
                f"echo-{scan.label('echo')} of a run with {len(ordered)} series: {what} used",
                "nothing; or combine the echoes and give the result as a run without echo entity",
            )
    if not combined:
        kept.flags.append(f"echo-{kept.label('echo')} of {len(ordered)} used")


def _by_subject(files: list[BidsFile]) -> dict[str, list[BidsFile]]:
    found: dict[str, list[BidsFile]] = {}
    for file in files:
        found.setdefault(file.entities["sub"], []).append(file)
    return found


def _preferred(candidates: list[BidsFile], session: str) -> list[BidsFile]:
    """Return T1w candidates, best first: same session, no contrast agent, magnitude, lowest run, then by name."""

    def rank(file: BidsFile) -> tuple[bool, bool, bool, int, str]:
        label = file.entities.get
        run = int(label("run", "0"))
        return (label("ses", "") != session, "ce" in file.entities, label("part", "mag") != "mag", run, file.path)

    return sorted(candidates, key=rank)


def _anat_scans(dataset: DatasetConfig, t1w: dict[str, list[BidsFile]], with_bold: set[str]) -> list[Scan]:
    """Return one scan per subject without any BOLD run, unless the filters ask for a task or a run."""
    if dataset.filters.task or dataset.filters.run:
        return []
    scans = []
    for subject, files in t1w.items():
        kept = [file for file in files if _kept(file, dataset.filters)]
        if subject in with_bold or not kept:
            continue
        candidates = _preferred(kept, min(file.entities.get("ses", "") for file in kept))
        entities = {key: candidates[0].entities[key] for key in ("sub", "ses") if key in candidates[0].entities}
        name = scan_id(dataset.name, {"sub": subject}, "T1w")
        scans.append(Scan(name, dataset.name, entities, "anat", t1w=candidates))
    return scans


def _surface_scans(dataset: str, bold: list[BidsFile], tables: list[BidsFile]) -> list[Scan]:
    def run_of(file: BidsFile) -> tuple[tuple[str, str | int], ...]:
        return tuple(kv for kv in file.identity if kv[0] in ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run"))

    confounds: dict[tuple[tuple[str, str | int], ...], list[BidsFile]] = {}
    for table in tables:
        confounds.setdefault(run_of(table), []).append(table)
    scans = []
    for files in _groups(bold, run_of):
        sides = {side: [file for file in files if file.entities["hemi"] == side] for side in "LR"}
        entities = {k: v for k, v in files[0].entities.items() if k != "hemi"}
        scan = Scan(scan_id(dataset, entities), dataset, entities, "surface", [f for side in "LR" for f in sides[side]])
        for side, found in sides.items():
            if len(found) > 1:
                names = ", ".join(file.path for file in found)
                scan.fault = DataFault(
                    "ambiguous run", found[0].path, f"several files for hemi-{side}: {names}", "keep one"
                )
            elif not found:
                scan.fault = DataFault(
                    "half a run", files[0].path, f"hemi-{side} is missing", "restore the other hemisphere"
                )
        found_tables = confounds.get(run_of(files[0]), [])
        if len(found_tables) > 1:
            names = ", ".join(file.path for file in found_tables)
            scan.fault = DataFault("ambiguous run", files[0].path, f"several confounds tables: {names}", "keep one")
        scan.confounds = found_tables[0] if found_tables else None
        if not found_tables:
            scan.flags.append("no confounds table")
        scans.append(scan)
    return scans


def _ready_scans(dataset: DatasetConfig, listing: Listing, wanted: Wanted) -> list[Scan]:
    """Return one scan per run of a known pipeline, from the form :func:`choose` takes."""
    forms = [one for one in listing.ready if _passes(one.entities, dataset.filters)]
    choices, ignored = choose(dataset, forms, wanted, listing.layout.name if listing.layout else "generic")
    listing.ignored = sorted({*listing.ignored, *ignored})
    return [
        Scan(
            name,
            dataset.name,
            dict(choice.taken.entities),
            KIND[choice.taken.form],
            choice.taken.files,
            confounds=choice.taken.roles.get("confounds"),
            fault=choice.taken.fault,
            flags=list(choice.taken.flags),
            ready=choice,
        )
        for name, choice in choices.items()
    ]


def _groups(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Group items by key, in order of first appearance."""
    found: dict[Hashable, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())
