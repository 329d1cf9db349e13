"""Runs in C-PAC's output tree: ``output/pipeline_<name>/sub-X_ses-Y/func/...`` (or ``sub-X/ses-Y/func``)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from boldmill.index.layout_bids import NATIVE, Ignored, no_mask
from boldmill.index.names import BidsFile
from boldmill.index.ready_files import Ready, Run, ready_file, run_entities, run_of

CLEANED = ("cleaned", "denoisedNofilt")
"""``desc-`` of a series after nuisance regression, the filtered one first."""
SPACES = {name.lower(): name for name in ("MNI152NLin6Asym", "MNI152NLin2009cAsym", "MNI152NLin2009aSym")}
"""C-PAC writes some template names in other capitals than TemplateFlow (``MNI152NLin6ASym``)."""
MOVEMENT = ("movementParameters", "movementParametersUnfiltered")


def read_cpac(paths: Iterable[str]) -> tuple[list[Ready], Ignored]:
    """Return the forms of every run C-PAC left, and the series that are not read.

    A series with a ``reg-`` entity, or ``desc-cleaned`` and ``desc-denoisedNofilt``, has its nuisance regressed and
    enters at parcellation; ``desc-preproc`` enters at cleaning, with C-PAC's regressors and movement parameters.
    """
    files = [file for path in paths if (file := ready_file(path)) is not None and file.datatype == "func"]
    masks: dict[tuple[Run, str], BidsFile] = {}
    tables: dict[tuple[Run, str], BidsFile] = {}
    for file in files:
        run, label = run_of(run_entities(file)), file.entities.get
        if file.suffix == "mask" and label("desc") in ("bold", "brain"):
            masks[run, label("space", "")] = file
        elif file.ext in (".1D", ".tsv") and label("desc") == "confounds":
            tables.setdefault((run, "confounds"), file)
        elif file.ext in (".1D", ".tsv") and label("desc") in MOVEMENT:
            tables.setdefault((run, "motion"), file)
    found: list[Ready] = []
    ignored: Ignored = []
    for file in files:
        label = file.entities.get
        if "task" not in file.entities:
            continue
        if _is_parcels(file):
            one = Ready(form="parcels", stage="parcellate", entities=run_entities(file), files=[file], rank=_fork(file))
        elif file.suffix == "bold" and file.ext in (".nii.gz", ".nii"):
            if why := _unread(file):
                ignored.append((file.path, why))
                continue
            one = _volume(file)
            mask = masks.get((one.run, label("space", "")))
            if mask is not None:
                one.roles["mask"] = mask
            elif one.stage == "clean":
                one.fault = no_mask(file.path)
            else:
                one.flags.append("no brain mask: voxels that vary are taken for brain")
        else:
            continue
        for role in ("confounds", "motion") if one.stage == "clean" else ("motion",):
            if (one.run, role) in tables:
                one.roles[role] = tables[one.run, role]
        found.append(one)
    return found, ignored


def _is_parcels(file: BidsFile) -> bool:
    label = file.entities.get
    mean = label("desc", "").startswith("Mean") and file.suffix == "timeseries"
    return mean and file.ext in (".1D", ".tsv", ".csv") and bool(label("atlas"))


def _unread(file: BidsFile) -> str:
    desc, space = file.entities.get("desc", ""), file.entities.get("space", "")
    base = desc.partition("-")[0]
    if base not in ("preproc", *CLEANED):
        return f"desc-{desc} is not read; desc-preproc, desc-cleaned and desc-denoisedNofilt are"
    return "in the person's own space; series in a template space are read" if space in NATIVE else ""


def _volume(file: BidsFile) -> Ready:
    desc, space = file.entities.get("desc", "").partition("-")[0], file.entities.get("space", "")
    cleaned = "reg" in file.entities or desc in CLEANED
    one = Ready(
        form="volume",
        stage="parcellate" if cleaned else "clean",
        entities=run_entities(file),
        files=[file],
        space=SPACES.get(space.lower(), space),
        rank=_fork(file) + {"cleaned": 0, "preproc": 1 if cleaned else 3, "denoisedNofilt": 2}[desc],
    )
    if desc == "denoisedNofilt":
        one.flags.append("C-PAC's series without its band-pass: none is applied after")
    return one


def _fork(file: BidsFile) -> int:
    """Return a rank by C-PAC's fork number, so that the first of several regression strategies is taken."""
    numbers = re.findall(r"-(\d+)(?:_|$)", f"{file.entities.get('reg', '')}_{file.entities.get('desc', '')}")
    return 10 * int(numbers[0]) if numbers else 0
