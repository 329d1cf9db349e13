"""Runs of HCP minimal preprocessing: ``<subject>/MNINonLinear/Results/<run>/<run>_Atlas*.dtseries.nii``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from boldmill.index.layout_bids import Ignored
from boldmill.index.names import BidsFile
from boldmill.index.ready_files import Ready

DIRECTIONS = frozenset(("LR", "RL", "AP", "PA"))
_SERIES = re.compile(
    r"(?P<run>[rt]fMRI_\w+?)_Atlas(?P<msm>_MSMAll)?(?P<hp>_hp\w+?)?(?P<clean>_r?clean)?\.dtseries\.nii"
)
MOVEMENT = "Movement_Regressors.txt"


def entities_of(subject: str, run: str) -> dict[str, str]:
    """Return the entities of an HCP run by its folder's name.

    >>> entities_of("100307", "rfMRI_REST1_LR")
    {'sub': '100307', 'task': 'REST1', 'dir': 'LR'}
    >>> entities_of("100307", "rfMRI_REST1_7T_PA")
    {'sub': '100307', 'task': 'REST1', 'acq': '7T', 'dir': 'PA'}
    """
    words = run.split("_")[1:]
    direction = words.pop() if len(words) > 1 and words[-1] in DIRECTIONS else ""
    task, *rest = (re.sub("[^A-Za-z0-9]", "", word) for word in words)
    found = {"sub": re.sub("[^A-Za-z0-9]", "", subject), "task": task, "acq": "".join(rest), "dir": direction}
    return {key: value for key, value in found.items() if value}


def read_hcp(paths: Iterable[str]) -> tuple[list[Ready], Ignored]:
    """Return the grayordinate series of every run, and the series that are not read.

    ICA-FIX series (``_hp2000_clean``) are preferred and enter at parcellation; others enter at cleaning with the twelve
    movement regressors. MSMAll alignment is preferred to MSMSulc.
    """
    paths = set(paths)
    found: list[Ready] = []
    ignored: Ignored = []
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        match = _SERIES.fullmatch(name)
        subject, run = path.split("/")[0], folder.rpartition("/")[2]
        if match is None or match["run"] != run:
            if re.fullmatch(rf"{re.escape(run)}(_hp\w+_r?clean)?\.nii\.gz", name):
                ignored.append((path, "HCP volumes are not read; the grayordinates of the run are"))
            elif name.endswith(".dtseries.nii"):
                ignored.append((path, "not a series of the run its folder names"))
            continue
        entities = entities_of(subject, run)
        clean = match["clean"] is not None
        one = Ready(
            form="cifti",
            stage="parcellate" if clean else "clean",
            entities=entities,
            files=[BidsFile(path, entities, "func", "bold", ".dtseries.nii")],
            space="fsLR",
            rank=2 * (not clean) + (match["msm"] is None),
        )
        if match["hp"] and not clean:
            ignored.append((path, "high-pass filtered only; the series before or after ICA-FIX is read"))
            continue
        if clean:
            one.flags.append("ICA-FIX series: no band-pass is applied after")
        if f"{folder}/{MOVEMENT}" in paths:
            one.roles["motion" if clean else "confounds"] = BidsFile(f"{folder}/{MOVEMENT}", {}, "", "motion", ".txt")
        found.append(one)
    return found, ignored
