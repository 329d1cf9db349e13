"""What the evaluation reads of a snapshot: one row per scan with functional connectivity, sorted by scan id.

Axes: N scans, E edges (upper triangle, row by row).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.represent.fc import fisher_z

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.shards.reader import Snapshot

Floats = NDArray[np.float64]

HELDOUT = "heldout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Scans with their labels, groups and functional connectivity.

    Parameters
    ----------
    scan_ids, datasets, subjects, groups, splits, sites : tuple of str
        Per scan; a subject is ``"<dataset>/<subject>"``, its group is its family where known, else the subject.
    mean_fd : (N,) array
        Mean framewise displacement, mm; NaN where unknown.
    fc : (N, E) array
        Fisher z of the correlation of the estimator stored (clipped to +-0.999); NaN where undefined.
    phenotypes : DataFrame
        Indexed by scan id.
    """

    scan_ids: tuple[str, ...]
    datasets: tuple[str, ...]
    subjects: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    sites: tuple[str, ...]
    mean_fd: Floats
    fc: Floats
    phenotypes: pd.DataFrame

    def __len__(self) -> int:
        return len(self.scan_ids)


def read_cohort(snapshot: Snapshot) -> Cohort:
    """Read every scan that has functional connectivity; phenotypes are joined by scan id, never by position."""
    table = snapshot.scans(having="timeseries").sort_values("scan_id", ignore_index=True)
    ids = tuple(map(str, table["scan_id"]))
    datasets = tuple(map(str, table["dataset"]))
    subjects = tuple(f"{d}/{s}" for d, s in zip(datasets, table["subject"], strict=True))
    phenotypes = snapshot.phenotypes(ids)
    return Cohort(
        scan_ids=ids,
        datasets=datasets,
        subjects=subjects,
        groups=tuple(map(group_of, datasets, subjects, table["family"])),
        splits=tuple(map(str, table["split"])),
        sites=tuple(map(str, table["site"])),
        mean_fd=np.array([np.nan if v is None else v for v in table["mean_fd"]], dtype=np.float64),
        fc=fisher_z(snapshot.fc(ids)) if ids else np.zeros((0, 0)),
        phenotypes=phenotypes.loc[list(ids)],
    )


def families(snapshot: Snapshot) -> dict[str, str]:
    """Return the group of everybody in a snapshot, also of subjects without functional connectivity.

    A relative of a tested subject may have been trained on from scans of another kind.
    """
    table = snapshot.scans()
    people = zip(table["dataset"], table["subject"], table["family"], strict=True)
    return {f"{d}/{s}": group_of(str(d), f"{d}/{s}", family) for d, s, family in people}


def group_of(dataset: str, subject: str, family: Any) -> str:
    """Return the unit that no fold may split: the family where known, else the subject."""
    known = isinstance(family, str) and family.strip() not in ("", "n/a")
    return f"{dataset}/family-{family}" if known else subject
