"""Read a data snapshot: the one way models, evaluation and report reach the shards.

Axes: T time, P parcels, K views, E edges, N scans. Tables of parcels are of one atlas: the first, or the one named.

A row is decoded in two lines, also without this module::

    values = np.frombuffer(row["values"], dtype="<f4")           # dtype: metadata of the Parquet field
    series = values.reshape(row["n_volumes"], row["n_parcels"])  # axes: metadata of the Parquet field
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import BoldmillError, ConfigError, DataFault, nearest
from boldmill.paths import ATLAS_TABLES
from boldmill.shards import intact
from boldmill.shards.rows import TableRows
from boldmill.tables import SCHEMA_VERSION
from boldmill.tables import columns as columns_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from boldmill.represent.fc import Estimator

SPLITS = ("train", "validation", "heldout")


class Snapshot:
    """A frozen list of shards with the split of every subject.

    Parameters
    ----------
    manifest : dict
        The content of ``manifest.json``.
    folder : Path
        Where the manifest lies; paths of shards are relative to it.
    """

    def __init__(self, manifest: dict[str, Any], folder: Path) -> None:
        self.manifest, self.folder = manifest, folder
        self._rows: dict[tuple[str, str], TableRows] = {}
        self._metadata: dict[tuple[str, str], list[dict[bytes, bytes]]] = {}
        self._intact: set[tuple[str, str]] = set()

    @classmethod
    def load(cls, path: str | Path) -> Snapshot:
        """Read a manifest and refuse another schema version or a missing shard.

        Raises
        ------
        ConfigError
            No manifest, or one of another schema version.
        BoldmillError
            A shard it names does not exist, or has another size; its bytes are compared when its table is first read.
        """
        try:
            manifest = read_json(path)
        except (OSError, ValueError) as error:
            raise ConfigError("cannot read the snapshot", path, str(error), "run `boldmill snapshot`") from error
        if not isinstance(manifest, dict) or "table_schema" not in manifest:
            fix = "name the manifest.json of a snapshot"
            raise ConfigError("cannot use the snapshot", path, "it is no manifest of a snapshot", fix)
        version = manifest["table_schema"]
        if version != SCHEMA_VERSION:
            why = f"its tables have schema version {version}, this boldmill reads {SCHEMA_VERSION}"
            raise ConfigError("cannot use the snapshot", path, why, "rebuild the shards and the snapshot")
        snapshot = cls(manifest, Path(path).parent)
        for shard in manifest["shards"]:
            if not snapshot._path(shard).is_file():
                raise BoldmillError("shard is missing", snapshot._path(shard), "the snapshot names it", "rebuild it")
            size = snapshot._path(shard).stat().st_size
            if size != shard["size"]:
                why = f"its sha256 cannot be that of the snapshot: {size} bytes, not {shard['size']}"
                fix = "take a new snapshot (snapshot.name)"
                raise BoldmillError("shard changed", snapshot._path(shard), why, fix)
        return snapshot

    @property
    def id(self) -> str:
        """Digest of the content: shards, splits and left-out scans."""
        return str(self.manifest["id"])

    @property
    def subjects(self) -> dict[str, str]:
        """``"<dataset>/<subject>"`` -> split."""
        return dict(self.manifest["subjects"])

    @property
    def excluded(self) -> dict[str, str]:
        """Scans left out by the quality filter -> reason."""
        return dict(self.manifest["excluded"])

    def verify(self) -> None:
        """Hash every shard and raise :class:`BoldmillError` for the first that changed since the snapshot."""
        for shard in self.manifest["shards"]:
            if sha256_file(self._path(shard)) != shard["sha256"]:
                raise intact.changed(self._path(shard))

    @property
    def atlases(self) -> list[str]:
        """Labels of the atlases; the first is read where none is named."""
        return list(self.manifest["atlases"])

    def paths(self, table: str, atlas: str | None = None) -> list[Path]:
        """Return the shards of a table that have rows, by bucket; of one atlas, where the table is one of parcels.

        Raises
        ------
        BoldmillError
            A shard is not the one the manifest names: its sha256 differs (:mod:`boldmill.shards.intact`).
        """
        place = (table, self._atlas(table, atlas))
        named = [s for s in self.manifest["shards"] if (s["table"], s.get("atlas", "")) == place and s["rows"]]
        if place not in self._intact:
            intact.check(self.folder, named)
            self._intact.add(place)
        return [self._path(shard) for shard in named]

    def rows(self, table: str, atlas: str | None = None) -> TableRows:
        """Return random access to the rows of a table; of one atlas, where the table is one of parcels."""
        place = (table, self._atlas(table, atlas))
        if place not in self._rows:
            self._rows[place] = TableRows(self.paths(table, atlas))
        return self._rows[place]

    def _atlas(self, table: str, atlas: str | None) -> str:
        """Return the label the shards of a table bear: the empty text where it is no table of parcels."""
        if atlas is not None and atlas not in self.atlases:
            why = f"the snapshot has {', '.join(self.atlases)}{nearest(atlas, self.atlases)}"
            raise ConfigError("unknown atlas", atlas, why, "use one of them, or add it to spaces.further_atlases")
        if table not in ATLAS_TABLES:
            return ""
        if not self.atlases:
            why = "the snapshot has flat maps only"
            raise ConfigError("no table of parcels", table, why, "use flat_clips, or another snapshot")
        return self.atlases[0] if atlas is None else atlas

    @cached_property
    def _scans(self) -> pd.DataFrame:
        import pandas as pd
        import pyarrow.parquet as pq

        frames = []
        for path in self.paths("scans"):
            names = [name for name in pq.read_schema(path).names if name != "morphometry"]
            frames.append(pq.read_table(path, columns=names, use_threads=False).to_pandas())
        if not frames:
            return pd.DataFrame(columns=[c.name for c in columns_of("scans") if c.name != "morphometry"] + ["split"])
        table = pd.concat(frames, ignore_index=True).sort_values("scan_id", ignore_index=True)
        keys = table["dataset"] + "/" + table["subject"]
        table["split"] = keys.map(self.manifest["subjects"])
        kept: pd.DataFrame = table[~table["scan_id"].isin(list(self.manifest["excluded"]))]
        return kept.reset_index(drop=True)

    def scans(
        self,
        *,
        split: str | Sequence[str] | None = None,
        dataset: str | Sequence[str] | None = None,
        site: str | Sequence[str] | None = None,
        kind: str | Sequence[str] | None = None,
        having: str | None = None,
        atlas: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return the scans table, one row per scan sorted by scan id, with the column ``split`` added.

        Parameters
        ----------
        split, dataset, site, kind : str or sequence of str, optional
            Keep only these values.
        having : {"timeseries", "fc", "pfc", "flat_clips"}, optional
            Keep only scans that have rows in this table.
        atlas : str, optional
            Of which atlas those rows are; the first one by default.
        columns : sequence of str, optional
            Keep only these columns; all but ``morphometry`` by default (:meth:`morphometry`).
        """
        table = self._scans
        for column, wanted in (("split", split), ("dataset", dataset), ("site", site), ("kind", kind)):
            if wanted is None:
                continue
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            if column == "split" and (unknown := sorted(set(values) - set(SPLITS))):
                hint = nearest(unknown[0], SPLITS)
                raise ConfigError("unknown split", unknown[0], f"splits are {SPLITS}{hint}", "use one of them")
            table = table[table[column].isin(values)]
        if having is not None and len(table):
            table = table[self._has(table, having, atlas)]
        table = table.reset_index(drop=True)
        return table if columns is None else table.loc[:, list(columns)]

    def _has(self, table: pd.DataFrame, other: str, atlas: str | None) -> pd.Series[bool]:
        columns_of(other)  # an unknown table is refused by name
        label = self._atlas(other, atlas)
        if other == "flat_clips":
            return table["n_clips"] > 0
        if other in ("timeseries", "fc"):
            return table["atlases"].map(lambda labels: label in labels)
        return table["scan_id"].isin(set(self.rows(other, atlas).scan_ids))

    def phenotypes(self, scan_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Return one column per phenotype, indexed by scan id (all scans, or ``scan_ids`` in their order)."""
        import pandas as pd

        texts = self._scans.set_index("scan_id")["phenotypes"] if len(self._scans) else pd.Series(dtype=str)
        chosen = texts if scan_ids is None else texts.loc[list(scan_ids)]
        return pd.DataFrame([json.loads(text) for text in chosen], index=chosen.index)

    @cached_property
    def descriptions(self) -> dict[str, dict[str, Any]]:
        """Data set -> phenotype column -> its words (``Description``, ``Levels``, ``Units``)."""
        merged: dict[str, dict[str, Any]] = {}
        for text in self._texts("scans", "phenotype_descriptions"):
            merged.update(json.loads(text))
        return merged

    def parcels(self, atlas: str | None = None) -> list[str]:
        """Return the parcel names of an atlas in the order of the columns."""
        texts = set(self._texts("timeseries", "parcels", atlas))
        if len(texts) > 1:
            raise BoldmillError("shards do not fit", "timeseries", "their parcels differ", "rebuild all shards")
        return list(json.loads(texts.pop())) if texts else []

    def timeseries(self, scan_id: str, atlas: str | None = None) -> npt.NDArray[np.float32]:
        """Return the parcel series of a scan: (T, P); NaN columns are parcels that are not covered."""
        rows = self.rows("timeseries", atlas)
        series: npt.NDArray[np.float32] = rows.array(rows.at(scan_id), "values")
        return series

    def fc(self, scan_ids: Sequence[str], atlas: str | None = None) -> npt.NDArray[np.float32]:
        """Return the FC of scans as upper triangles: (N, E), correlations of the estimator stored.

        Fisher z, where it was stored, is undone, so that no reader takes one for the other; :meth:`fc_estimators` tells
        a partial correlation from a full one. The stored numbers are those of ``rows("fc")``.
        """
        import numpy as np

        rows, transformed = self.rows("fc", atlas), self._of_datasets("fisher_z", atlas)
        values = np.stack([rows.array(rows.at(scan_id), "values") for scan_id in scan_ids])
        if any(transformed.values()):
            owners = [rows.row(rows.at(scan_id), ["dataset"])["dataset"] for scan_id in scan_ids]
            z = np.array([transformed[owner] for owner in owners])
            values[z] = np.tanh(values[z])
        return values

    def fc_estimators(self, atlas: str | None = None) -> dict[str, str]:
        """Return data set -> estimator of its stored FC (``pearson``, ``ledoit_wolf``, ``partial``)."""
        return self._of_datasets("estimators", atlas)

    def fc_matrix(self, scan_id: str, atlas: str | None = None) -> npt.NDArray[np.float32]:
        """Return the FC of a scan: (P, P), diagonal 1, NaN for parcels without FC."""
        from boldmill.represent.fc import unvectorise

        matrix: npt.NDArray[np.float32] = unvectorise(self.fc([scan_id], atlas)[0])
        return matrix

    def pearson(self, scan_ids: Sequence[str], atlas: str | None = None) -> npt.NDArray[np.float32]:
        """Return the Pearson FC of scans, (N, E), whatever estimator was stored: what pFC views are parts of."""
        return self.fc_by("pearson", scan_ids, atlas)

    def fc_by(self, estimator: Estimator, scan_ids: Sequence[str], atlas: str | None = None) -> npt.NDArray[np.float32]:
        """Return the full-length FC of scans by an estimator, (N, E); computed where another one was stored."""
        import numpy as np

        from boldmill.represent.fc import correlation, vectorise

        if set(self.fc_estimators(atlas).values()) <= {estimator}:
            return self.fc(scan_ids, atlas)
        found = (vectorise(correlation(self.timeseries(s, atlas), estimator=estimator, where=s)) for s in scan_ids)
        return np.stack([edges.astype(np.float32) for edges in found])

    def pfc_estimators(self, atlas: str | None = None) -> list[str]:
        """Return the estimators of the stored pFC views, sorted."""
        return sorted(set(self._texts("pfc", "estimator", atlas)))

    def pfc(self, scan_id: str, atlas: str | None = None) -> npt.NDArray[np.floating[Any]]:
        """Return the stored pFC views of a scan: (K, E), in the stored precision."""
        import numpy as np

        rows = self.rows("pfc", atlas)
        return np.stack([rows.array(row, "values") for row in rows.all_of(scan_id)])

    def morphometry(self, scan_id: str) -> npt.NDArray[np.float32]:
        """Return the T1w features of a scan's parcels: (P, 9).

        Raises
        ------
        DataFault
            The subject has no usable T1w.
        """
        rows = self.rows("scans")
        values: npt.NDArray[np.float32] | None = rows.find(rows.at(scan_id), "morphometry")
        if values is None:
            raise DataFault("no morphometry", scan_id, "the subject has no usable T1w", "leave the scan out")
        return values

    @cached_property
    def flat_mask(self) -> npt.NDArray[np.bool_]:
        """The valid pixels of the flat grid: (H, W); clips hold its true pixels in row-major order."""
        from boldmill.shards.clips import decode_mask

        texts = set(self._texts("flat_clips", "mask"))
        if len(texts) != 1:
            why = "no shard has flat clips" if not texts else "their masks differ"
            raise BoldmillError("no flat-map mask", "flat_clips", why, "rebuild all shards with one operator")
        return decode_mask(texts.pop())

    def _of_datasets(self, key: str, atlas: str | None) -> dict[str, Any]:
        """Return what the FC shards say by data set."""
        merged: dict[str, Any] = {}
        for text in self._texts("fc", key, atlas):
            merged.update(json.loads(text))
        return merged

    def _texts(self, table: str, key: str, atlas: str | None = None) -> list[str]:
        """Return a text of the schemas of a table's shards; footers are read once."""
        import pyarrow.parquet as pq

        place = (table, self._atlas(table, atlas))
        if place not in self._metadata:
            self._metadata[place] = [pq.read_schema(path).metadata or {} for path in self.paths(table, atlas)]
        found = (metadata.get(key.encode()) for metadata in self._metadata[place])
        return [text.decode() for text in found if text is not None]

    def _path(self, shard: dict[str, Any]) -> Path:
        return Path(os.path.normpath(self.folder / shard["path"]))
