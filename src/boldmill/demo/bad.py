"""Deliberately bad runs: faults of the data that a pipeline must quarantine without harming anything else.

Each is made from the subject's own good run, so that only the fault is wrong with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boldmill.atomic import atomic, write_json
from boldmill.demo.bids import bold_path
from boldmill.demo.bold import BoldRun
from boldmill.demo.cohort import Run
from boldmill.demo.geometry import save_nifti

SHORT_VOLUMES = 5
KEPT_SHARE = 0.6
FAULTS: dict[str, tuple[str, str]] = {
    "truncated": ("the gzip stream ends after 60 % of its bytes", "truncated"),
    "no_tr": ("no RepetitionTime in the sidecar, and pixdim[4] = 0 in the header", "RepetitionTime"),
    "short": (f"the run has only {SHORT_VOLUMES} volumes", "volumes"),
}
"""Kind -> (what is wrong, the word its quarantine reason must contain)."""


def write_bad(root: Path, kind: str, run: Run, good: Path, drawn: BoldRun, tr: float, sidecar: dict[str, Any]) -> None:
    """Write one bad run.

    Parameters
    ----------
    root : Path
        Root of the data set.
    kind : str
        Key of ``FAULTS``.
    run : Run
        The bad run.
    good : Path
        Image of the subject's good run; ``drawn`` is the same run in memory and ``sidecar`` its sidecar.
    """
    path = root / bold_path(run)
    if kind == "truncated":
        whole = good.read_bytes()
        with atomic(path) as temporary:
            temporary.write_bytes(whole[: int(KEPT_SHARE * len(whole))])
    elif kind == "no_tr":
        save_nifti(path, drawn.stored, drawn.affine, tr=0.0, slope=drawn.slope)
        sidecar = {name: value for name, value in sidecar.items() if name != "RepetitionTime"}
    else:
        save_nifti(path, drawn.stored[..., :SHORT_VOLUMES], drawn.affine, tr=tr, slope=drawn.slope)
    write_json(path.with_name(f"{run.stem}_bold.json"), sidecar)
