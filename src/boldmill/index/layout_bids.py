"""Runs in the BIDS-Derivatives names of fMRIPrep, XCP-D and HALFpipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from boldmill.errors import DataFault
from boldmill.index.names import BidsFile
from boldmill.index.ready_files import Ready, Run, Stage, ready_file, run_entities, run_of

NATIVE = frozenset(("", "T1w", "T2w", "boldref", "func", "bold", "orig", "scanner", "individual", "anat"))
"""Spaces of the scanner or the person: nothing there to compare people by."""
SURFACES = {("fsaverage5", ""): "fsaverage5", ("fsaverage", "10k"): "fsaverage5", ("fsaverage5", "10k"): "fsaverage5"}
SURFACES |= {("fsLR", density): "fsLR" for density in ("", "32k", "91k")}
"""(space, density) of a GIFTI series -> mesh it is on."""

Ignored = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a pipeline names its series.

    Parameters
    ----------
    desc : tuple of str
        ``desc-`` labels of a series, the preferred one first; an empty one stands for none.
    stage : {"clean", "parcellate"}
    """

    desc: tuple[str, ...]
    stage: Stage


FMRIPREP = Style(desc=("preproc", ""), stage="clean")
XCPD = Style(desc=("denoised",), stage="parcellate")


@dataclass(slots=True)
class Tables:
    """Files that go with a run: its tables by role, and the masks by run, space and resolution."""

    by_run: dict[tuple[Run, str], list[BidsFile]]
    masks: dict[tuple[Run, str, str], BidsFile]
    labels: list[BidsFile]

    @classmethod
    def of(cls, files: Iterable[BidsFile]) -> Tables:
        """Sort files by what they are."""
        tables = cls({}, {}, [])
        for file in files:
            label = file.entities.get
            role = ""
            if file.ext == ".tsv" and label("desc") == "confounds" and file.suffix in ("timeseries", "regressors"):
                role = "confounds"
            elif file.ext == ".tsv" and file.suffix in ("motion", "outliers"):
                role = file.suffix
            elif file.suffix == "mask" and label("desc") in ("brain", "bold") and file.ext in (".nii.gz", ".nii"):
                tables.masks[run_of(run_entities(file)), label("space", ""), label("res", "")] = file
            elif file.ext == ".json" and label("desc") == "confounds" and file.suffix in ("timeseries", "regressors"):
                role = "confounds_json"
            if role:
                tables.by_run.setdefault((run_of(run_entities(file)), role), []).append(file)
        return tables

    def add(self, one: Ready, *roles: str) -> None:
        """Give a run the tables of some roles; two of a role are a fault."""
        for role in roles:
            found = self.by_run.get((one.run, role), [])
            if len(found) > 1:
                names = ", ".join(file.path for file in found)
                one.fault = DataFault("ambiguous run", one.path, f"several {role} tables: {names}", "keep one")
            elif found:
                one.roles[role] = found[0]


def read_bids(paths: Iterable[str], style: Style) -> tuple[list[Ready], Ignored]:
    """Return the forms of every run that fMRIPrep or XCP-D left, and the series that are not read.

    Parameters
    ----------
    paths : iterable of str
        Files below the root.
    style : Style
    """
    files = [file for path in paths if (file := ready_file(path)) is not None]
    tables = Tables.of(files)
    found: list[Ready] = []
    ignored: Ignored = []
    pairs: dict[tuple[Run, str, str], list[BidsFile]] = {}
    for file in files:
        if style.stage == "parcellate" and is_parcels(file):
            found.append(parcels(file))
            continue
        if file.suffix != "bold" or file.ext not in (".nii.gz", ".nii", ".dtseries.nii", ".func.gii"):
            continue
        if why := _unread(file, style):
            ignored.append((file.path, why))
        elif file.ext == ".func.gii":
            label = file.entities.get
            mesh = SURFACES[label("space", "fsaverage5"), label("den", "")]
            pairs.setdefault((run_of(run_entities(file)), mesh, label("desc", "")), []).append(file)
        else:
            found.append(_series(file, style, tables))
    found += [_pair(mesh, style, group) for (_, mesh, _), group in pairs.items()]
    for one in found:
        roles = ("confounds", "confounds_json") if style.stage == "clean" else ("motion", "outliers")
        tables.add(one, *roles)
        if style.stage == "clean" and one.fault is None and "confounds" not in one.roles:
            one.fault = DataFault(
                "no confounds table",
                one.path,
                "no confounds table: nothing can be regressed",
                "restore the ..._desc-confounds_timeseries.tsv of the run",
            )
    return found, ignored


def _unread(file: BidsFile, style: Style) -> str:
    """Return why a series is not read, or an empty text."""
    label = file.entities.get
    if "task" not in file.entities:
        return "a run needs a task entity"
    if label("desc", "") not in style.desc:
        return f"desc-{label('desc', '')} is not read; {' or '.join(f'desc-{d}' for d in style.desc if d)} is"
    if "echo" in file.entities:
        return "one echo of a run; the combined series is read"
    space, density = label("space", ""), label("den", "")
    if file.ext == ".dtseries.nii":
        return "" if (space, density) in (("fsLR", "91k"), ("fsLR", "")) else f"{space} {density} is not fsLR 91k"
    if file.ext == ".func.gii":
        if label("hemi") not in ("L", "R"):
            return "a surface series needs hemi-L or hemi-R"
        return "" if (label("space", "fsaverage5"), density) in SURFACES else f"space-{space} {density} is not read"
    if space in NATIVE:
        return "in the person's own space; series in a template space are read"
    return "" if label("desc") else "a series without desc- entity"


def _series(file: BidsFile, style: Style, tables: Tables) -> Ready:
    label = file.entities.get
    cifti = file.ext == ".dtseries.nii"
    one = Ready(
        form="cifti" if cifti else "volume",
        stage=style.stage,
        entities=run_entities(file),
        files=[file],
        space="fsLR" if cifti else label("space", ""),
        rank=style.desc.index(label("desc", "")),
    )
    if not cifti:
        mask = tables.masks.get((one.run, one.space, label("res", "")))
        if mask is not None:
            one.roles["mask"] = mask
        elif style.stage == "clean":
            one.fault = no_mask(one.path)
        else:
            one.flags.append("no brain mask: voxels that vary are taken for brain")
    return one


def no_mask(path: str) -> DataFault:
    """Return the fault of a volume that comes without its brain mask."""
    return DataFault(
        "no brain mask", path, "its brain mask is missing", "restore the mask in the same space and resolution"
    )


def _pair(mesh: str, style: Style, group: list[BidsFile]) -> Ready:
    sides = {side: [file for file in group if file.entities["hemi"] == side] for side in "LR"}
    one = Ready(
        form="surface",
        stage=style.stage,
        entities=run_entities(group[0]),
        files=[file for side in "LR" for file in sides[side]],
        space=mesh,
        rank=int(mesh != "fsaverage5"),
    )
    for side, files in sides.items():
        if not files:
            why = f"hemi-{side} is missing"
            one.fault = DataFault("half a run", group[0].path, why, "restore the other hemisphere")
        elif len(files) > 1:
            names = ", ".join(file.path for file in files)
            one.fault = DataFault("ambiguous run", files[0].path, f"several files for hemi-{side}: {names}", "keep one")
    return one


def is_parcels(file: BidsFile) -> bool:
    """Return whether a file holds mean series of an atlas's parcels."""
    label = file.entities.get
    table = file.suffix == "timeseries" and file.ext == ".tsv" and label("stat", "mean") == "mean"
    return table and bool(label("atlas") or label("seg")) and label("desc", "") in ("", "denoised")


def parcels(file: BidsFile) -> Ready:
    """Return a table of parcel series as a form of its run."""
    return Ready(form="parcels", stage="parcellate", entities=run_entities(file), files=[file])


def read_halfpipe(paths: Iterable[str]) -> tuple[list[Ready], Ignored]:
    """Return HALFpipe's parcel series with the confounds of its fMRIPrep folder and the atlas's label table."""
    paths = list(paths)
    files = [file for path in paths if (file := ready_file(path)) is not None]
    tables = Tables.of(files)
    labels = [path for path in paths if path.endswith("_dseg.tsv")]
    found: list[Ready] = []
    ignored: Ignored = []
    for file in files:
        if is_parcels(file):
            one = parcels(file)
            tables.add(one, "confounds")
            if table := _label_table(labels, file.entities.get("atlas", "")):
                one.roles["labels"] = BidsFile(table, {}, "", "dseg", ".tsv")
            found.append(one)
        elif file.suffix == "bold" and file.ext in (".nii.gz", ".nii"):
            ignored.append((file.path, "HALFpipe's images are not read; its parcel series are"))
    return found, ignored


def _label_table(labels: list[str], atlas: str) -> str:
    """Return the label table of an atlas: the one that bears its name, else the only one there is."""
    named = [path for path in labels if atlas.lower() in path.rpartition("/")[2].lower()]
    if len(named) == 1:
        return named[0]
    return labels[0] if len(labels) == 1 else ""
