"""BIDS-Derivatives: names, sidecars and the data set's description.

Every derived file has a JSON sidecar whose ``Sources`` are BIDS URIs: ``bids:raw:<path>`` for the raw data set,
``bids::<path>`` for files of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill import __version__
from boldmill.atomic import write_json
from boldmill.preprocess.images import Array, Dtype, Float, write_volume

ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "rec", "dir", "run", "echo", "flip", "part", "hemi", "space"),
    *("res", "den", "label", "from", "to", "mode", "desc"),
)
"""Entities in the order of BIDS file names."""

BIDS_VERSION = "1.10.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivatives:
    """Files of one data set's derivatives.

    Parameters
    ----------
    results : Path
        Results folder; manifests name files relative to it.
    root : Path
        ``results/derivatives/<dataset>``.
    raw : Path
        Root of the raw data set.
    dataset : str
        Name of the data set.
    """

    results: Path
    root: Path
    raw: Path
    dataset: str

    def path(
        self, entities: Mapping[str, str], datatype: str, suffix: str, extension: str = ".nii.gz", **more: str
    ) -> Path:
        """Return the path of a derived file; ``more`` adds or replaces entities, empty ones are left out.

        >>> d = Derivatives(results=Path("r"), root=Path("r/d"), raw=Path("x"), dataset="d")
        >>> d.path({"sub": "01", "task": "rest"}, "func", "bold", space="MNI152NLin6Asym", desc="preproc").as_posix()
        'r/d/sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz'
        """
        merged = {**entities, **{key.rstrip("_"): value for key, value in more.items()}}
        unknown = sorted(set(merged) - set(ORDER))
        if unknown:
            raise KeyError(f"unknown BIDS entities {unknown}")
        parts = [f"{key}-{merged[key]}" for key in ORDER if merged.get(key)]
        folder = self.root / f"sub-{merged['sub']}"
        if merged.get("ses"):
            folder = folder / f"ses-{merged['ses']}"
        return folder / datatype / ("_".join([*parts, suffix]) + extension)

    def image(
        self,
        path: Path,
        data: Array,
        affine: Float,
        *,
        sources: Iterable[str],
        dtype: Dtype = "float32",
        tr: float | None = None,
        template: bool = False,
        **fields: Any,
    ) -> Path:
        """Write an image and its sidecar; ``fields`` are sidecar keys such as ``SkullStripped``."""
        write_volume(path, data, affine, dtype=dtype, tr=tr, template=template)
        self.sidecar(path, sources=sources, **fields)
        return path

    def sidecar(self, path: Path, *, sources: Iterable[str], **fields: Any) -> Path:
        """Write the JSON beside a derived file."""
        kept = {key: value for key, value in fields.items() if value is not None}
        return write_json(sidecar_of(path), {**kept, "Sources": sorted(set(sources))})

    def uri_raw(self, path: str | Path) -> str:
        """BIDS URI of a raw file, given relative to the raw data set."""
        return f"bids:raw:{Path(path).as_posix()}"

    def uri(self, path: Path) -> str:
        """BIDS URI of a derived file."""
        return f"bids::{path.relative_to(self.root).as_posix()}"

    def relative(self, path: Path) -> str:
        """Path of a derived file as manifests name it: relative to the results folder."""
        return path.relative_to(self.results).as_posix()

    def describe(self) -> Path:
        """Write ``dataset_description.json``: the same bytes from every job, so that concurrent writers agree."""
        return write_json(
            self.root / "dataset_description.json",
            {
                "Name": f"{self.dataset}: preprocessed by boldmill",
                "BIDSVersion": BIDS_VERSION,
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "boldmill", "Version": __version__}],
                "SourceDatasets": [{"URL": self.raw.resolve().as_uri()}],
                "DatasetLinks": {"raw": self.raw.resolve().as_uri()},
            },
        )


def sidecar_of(path: Path) -> Path:
    """Return where the JSON beside a derived file lies."""
    stem = path.name.removesuffix(".gz")
    return path.with_name(stem[: stem.rindex(".")] + ".json")
