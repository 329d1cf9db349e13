"""Which scans a data set reads: splits, sites, limits on quality figures, any predicate; every refusal has a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boldmill.errors import ConfigError, nearest
from boldmill.tables import pairs

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.shards.reader import Snapshot

Words = str | Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen.

    Parameters
    ----------
    scans : DataFrame
        Rows of the scans table, sorted by scan id.
    left_out : dict
        Scan id -> why a limit or the predicate refused it.
    """

    scans: pd.DataFrame
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def scan_ids(self) -> list[str]:
        """Scan ids, sorted."""
        return [str(scan_id) for scan_id in self.scans["scan_id"]]


def select(
    snapshot: Snapshot,
    table: str,
    *,
    split: Words = None,
    dataset: Words = None,
    site: Words = None,
    kind: Words = None,
    scan_ids: Sequence[str] | None = None,
    where: Callable[[pd.DataFrame], Any] | None = None,
    atlas: str | None = None,
    limits: Mapping[str, float] | None = None,
) -> Selection:
    """Return the scans with rows in ``table`` that pass all filters.

    Parameters
    ----------
    snapshot : Snapshot
        The data.
    table : str
        Table that is to be read.
    split, dataset, site, kind : str or sequence of str, optional
        Keep only these values.
    scan_ids : sequence of str, optional
        Keep only these scans.
    where : callable, optional
        Takes the scans table and returns one truth value per row.
    atlas : str, optional
        Atlas of a table of parcels; the snapshot's first by default.
    limits : mapping, optional
        ``min_<figure>`` and ``max_<figure>``, both inclusive. A figure is a numeric column of the scans table
        (``mean_fd``, ``n_volumes`` or short ``volumes``, ``tr``) or an entry of its ``qc`` (``tsnr``, ...). A scan
        whose figure is unknown does not pass.

    Raises
    ------
    ConfigError
        An unknown split, scan or figure.
    """
    chosen = snapshot.scans(split=split, dataset=dataset, site=site, kind=kind, having=table, atlas=atlas)
    if scan_ids is not None:
        known = set(chosen["scan_id"])
        if unknown := [scan_id for scan_id in scan_ids if scan_id not in known]:
            why = f"no scan with rows in {table} that the other filters keep has it{nearest(unknown[0], known)}"
            raise ConfigError("unknown scan", unknown[0], why, "name scans of the snapshot")
        chosen = chosen[chosen["scan_id"].isin(list(scan_ids))]
    left_out: dict[str, str] = {}
    for name, limit in (limits or {}).items():
        values = _figure(chosen, name)
        passes = values >= limit if name.startswith("min_") else values <= limit
        sign = "<" if name.startswith("min_") else ">"
        for scan_id, value in zip(chosen["scan_id"][~passes], values[~passes], strict=True):
            why = f"{name[4:]} {value:g} {sign} {limit:g}" if value == value else f"{name[4:]} unknown"
            left_out[str(scan_id)] = why
        chosen = chosen[passes]
    if where is not None:
        kept = _truths(where, chosen)
        left_out |= {str(scan_id): "refused by `where`" for scan_id in chosen["scan_id"][~kept]}
        chosen = chosen[kept]
    return Selection(scans=chosen.reset_index(drop=True), left_out=left_out)


def _figure(scans: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return the figure a limit speaks of, NaN where unknown."""
    import pandas as pd

    end, figure = name[:4], name[4:]
    numbers = [str(c) for c in scans.columns if pd.api.types.is_numeric_dtype(scans[c]) or c in ("mean_fd", "tr")]
    if end in ("min_", "max_"):
        for column in (figure, f"n_{figure}"):
            if column in numbers:
                return scans[column].astype("float64")
        qc = [pairs(value) for value in scans["qc"]]
        if not qc or any(figure in entry for entry in qc):
            return pd.Series([entry.get(figure, float("nan")) for entry in qc], index=scans.index, dtype="float64")
    else:
        qc = []
    known = {
        f"{side}_{n.removeprefix('n_')}" for side in ("min", "max") for n in [*numbers, *(k for q in qc for k in q)]
    }
    why = f"limits are named min_ or max_ and a figure of the scans{nearest(name, sorted(known))}"
    raise ConfigError("unknown limit", name, why, f"use one of {', '.join(sorted(known))}")


def _truths(where: Callable[[pd.DataFrame], Any], scans: pd.DataFrame) -> pd.Series[bool]:
    import numpy as np
    import pandas as pd

    kept = np.asarray(where(scans))
    if kept.shape != (len(scans),) or kept.dtype != bool:
        why = f"it gave {kept.dtype} of shape {kept.shape} for {len(scans)} scans"
        raise ConfigError("cannot use the filter", "where", why, "return one bool per row of the table it is given")
    return pd.Series(kept, index=scans.index)
