"""What FM-APP reads of a snapshot: FC of scans, morphometry of subjects, phenotype values, all joined by name.

Axes: B scans, S subjects, R parcels, K phenotypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.shards.reader import Snapshot

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """Scans of one or more splits, sorted by scan id.

    Parameters
    ----------
    ids, subjects : tuple of str
        Scan id and ``"<dataset>/<subject>"`` of each scan with FC.
    fc : (B, R, R) float32 array
        Correlation of the estimator stored (never Fisher z), NaN where undefined.
    table : DataFrame
        One row of phenotypes per subject, indexed by ``"<dataset>/<subject>"`` (every subject, also without FC).
    morphometry : dict
        Subject -> (R, 9) float32; subjects without T1w are absent.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    fc: Floats
    table: pd.DataFrame
    morphometry: dict[str, Floats]


def read_scans(snapshot: Snapshot, split: str | tuple[str, ...]) -> Scans:
    """Read the scans of a split; rows are matched by scan id, never by position in a participants table."""
    from boldmill.represent.fc import unvectorise

    everyone = snapshot.scans(split=split)
    keys = [f"{d}/{s}" for d, s in zip(everyone["dataset"], everyone["subject"], strict=True)]
    phenotypes = snapshot.phenotypes(list(everyone["scan_id"]))
    phenotypes.index = keys
    table = phenotypes[~phenotypes.index.duplicated()].sort_index()
    morphometry: dict[str, Floats] = {}
    for key, scan_id in zip(keys, everyone["scan_id"], strict=True):
        if key not in morphometry and (values := morphometry_of(snapshot, scan_id)) is not None:
            morphometry[key] = values
    functional = snapshot.scans(split=split, having="timeseries").sort_values("scan_id")
    ids = tuple(functional["scan_id"])
    rois = len(snapshot.parcels())
    fc = unvectorise(snapshot.fc(ids)) if ids else np.zeros((0, rois, rois), dtype=np.float32)
    return Scans(
        ids=ids,
        subjects=tuple(f"{d}/{s}" for d, s in zip(functional["dataset"], functional["subject"], strict=True)),
        fc=np.asarray(fc, dtype=np.float32),
        table=table,
        morphometry=morphometry,
    )


def morphometry_of(snapshot: Snapshot, scan_id: str) -> Floats | None:
    """Return the (R, 9) morphometry of a scan's subject, or None without a usable T1w."""
    try:
        values: Any = snapshot.morphometry(scan_id)
    except DataFault:
        return None
    return np.array(values, dtype=np.float32)  # a copy: the shard's own bytes are read-only
