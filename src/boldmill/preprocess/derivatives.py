"""BIDS-Derivatives: names, sidecars and the data set's description.

Every derived file has a JSON sidecar whose ``Sources`` are BIDS URIs: ``bids:raw:<path>`` for the raw data set,
``bids::<path>`` for files of this one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill import __version__
from boldmill.atomic import read_json, write_json, write_text
from boldmill.preprocess.images import Array, Dtype, Float, write_volume

ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "rec", "dir", "run", "echo", "flip", "part", "hemi", "space"),
    *("res", "den", "label", "from", "to", "mode", "desc"),
)
"""Entities in the order of BIDS file names."""

BIDS_VERSION = "1.10.0"
MASKS = ("mask", "dseg", "probseg")

NOT_IN_BIDS = {
    "*_xfm.*": "transforms, head motion, EPI distortion (BEP014)",
    "*_boldref.*": "reference images of the runs (BEP012)",
    "*_timeseries.*": "confounds and other time series (BEP012)",
    "**/func/*_hemi-*": "series on surfaces (BEP012)",
    "*_alff.*": "amplitude of low-frequency fluctuations (BEP012)",
    "*_falff.*": "their share of all fluctuations (BEP012)",
    "*_reho.*": "regional homogeneity (BEP012)",
}
"""Files BIDS has no name for yet and what they are; .bidsignore lists them (as those of fMRIPrep and XCP-D do)."""

DESCRIPTIONS = {
    ("T1w", "preproc"): "T1w after bias-field correction, cropped to the head",
    ("T1w", "jacobian"): "volume change from template to T1w, affine included; below 0: folded",
    ("mask", "brain"): "brain mask",
    ("dseg", ""): "most probable tissue",
    ("probseg", ""): "probability of one tissue",
    ("bold", "clean"): "series after confound regression and filtering, mean zero, zero outside the mask",
    ("bold", "preproc"): "series after motion, slice-timing and distortion correction, before confound regression",
    ("boldref", ""): "mean of the series",
    ("boldref", "coreg"): "median of the realigned series on the grid of the run",
}
"""(suffix, desc) -> ``Description`` of a file."""

README = """# {name}: preprocessed by boldmill

BIDS derivatives of one data set. Names follow BIDS and, where BIDS has none yet, fMRIPrep; those are listed in
`.bidsignore`. Every image has a JSON sidecar with its `Sources`: `bids:raw:` is the raw data set, `bids:template:` the
folder of the template (both in `DatasetLinks` of `dataset_description.json`), `bids::` this one. 4D images are there
only where `preprocess.keep` lists them; `boldmill apply` makes the others again from the recipes below
`preprocess/{name}/recipes` of the results folder, bit by bit the same.
"""


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
    references : mapping
        Space -> URI of its reference image, for ``SpatialReference``; of another space its name is given.
    """

    results: Path
    root: Path
    raw: Path
    dataset: str
    references: Mapping[str, str] = field(default_factory=dict)

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
        """Write the JSON beside a derived file: ``fields`` (None: left out) and what BIDS asks of a file of its name.

        The name alone says ``SpatialReference`` (``references``, or the image a mask lies on), ``Resolution`` and
        ``Density`` where the entity is there, ``SkullStripped`` (false) of an image, and ``Description``. Given fields
        win.
        """
        given = {key: value for key, value in fields.items() if value is not None}
        return write_json(sidecar_of(path), {**self._implied(path), **given, "Sources": sorted(set(sources))})

    def _implied(self, path: Path) -> dict[str, Any]:
        """Return the sidecar fields the name of a file implies."""
        entities, suffix, extension = parse_name(path.name)
        space, native = entities.get("space", ""), ""
        if suffix in MASKS and not space:  # on the grid of the image it was made from
            kept = {key: value for key, value in entities.items() if key not in ("label", "desc")}
            more = {"desc": "coreg"} if path.parent.name == "func" else {"desc": "preproc"}
            like = self.path(kept, path.parent.name, "boldref" if path.parent.name == "func" else "T1w", **more)
            native = self.uri(like)
        image = extension in (".nii", ".nii.gz")
        fields = {
            "SpatialReference": self.references.get(space, space) if space else native,
            "Resolution": f"res-{entities['res']} of {space}" if "res" in entities else "",
            "Density": f"{entities['den']} vertices per hemisphere" if "den" in entities else "",
            "Description": DESCRIPTIONS.get((suffix, entities.get("desc", "")), ""),
        }
        known: dict[str, Any] = {key: value for key, value in fields.items() if value}
        return {**known, "SkullStripped": False} if image and suffix not in (*MASKS, "xfm") else known

    def uri_raw(self, path: str | Path) -> str:
        """BIDS URI of a raw file, given relative to the raw data set."""
        return f"bids:raw:{Path(path).as_posix()}"

    def uri(self, path: Path) -> str:
        """BIDS URI of a derived file."""
        return f"bids::{path.relative_to(self.root).as_posix()}"

    def relative(self, path: Path) -> str:
        """Path of a derived file as manifests name it: relative to the results folder."""
        return path.relative_to(self.results).as_posix()

    def describe(self) -> list[Path]:
        """Write description, README and .bidsignore: the same bytes from every job, so that concurrent writers agree.

        Licence and DOI are those of the raw data set, where its description has them.
        """
        raw = _raw_description(self.raw)
        source = {"URL": self.raw.resolve().as_uri(), **_picked(raw, {"DatasetDOI": "DOI"})}
        links = {"raw": self.raw.resolve().as_uri()}
        if self.references:
            # Relative, as both move with the results: the same run elsewhere gives the same bytes.
            links["template"] = Path(os.path.relpath(self.results / "templates", self.root)).as_posix()
        description = {
            "Name": f"{self.dataset}: preprocessed by boldmill",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "boldmill", "Version": __version__, **_code_url()}],
            "SourceDatasets": [source],
            "DatasetLinks": links,
            **_picked(raw, {"License": "License", "Authors": "Authors", "ReferencesAndLinks": "ReferencesAndLinks"}),
        }
        ignored = [f"# {words}\n{pattern}" for pattern, words in NOT_IN_BIDS.items()]
        return [
            write_json(self.root / "dataset_description.json", description),
            write_text(self.root / "README.md", README.format(name=self.dataset)),
            write_text(self.root / ".bidsignore", "\n".join(ignored) + "\n"),
        ]


def _code_url() -> dict[str, str]:
    """Return ``CodeURL`` where the package's metadata name a repository."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        urls = metadata("boldmill").get_all("Project-URL") or []
    except PackageNotFoundError:  # run from a source tree that was never installed
        return {}
    named = dict(url.split(", ", 1) for url in urls if ", " in url)
    return next(({"CodeURL": named[key]} for key in ("Repository", "Source", "Homepage") if key in named), {})


def _raw_description(raw: Path) -> dict[str, Any]:
    """Return the description of the raw data set; one that is missing or no JSON object says nothing."""
    try:
        found = read_json(raw / "dataset_description.json")
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _picked(given: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    return {new: given[old] for old, new in keys.items() if given.get(old)}


def parse_name(name: str) -> tuple[dict[str, str], str, str]:
    """Return entities, suffix and extension of a BIDS file name.

    >>> parse_name("sub-01_task-rest_space-T1w_desc-brain_mask.nii.gz")
    ({'sub': '01', 'task': 'rest', 'space': 'T1w', 'desc': 'brain'}, 'mask', '.nii.gz')
    """
    stem, dot, extension = name.partition(".")
    *parts, suffix = stem.split("_")
    return dict(part.split("-", 1) for part in parts if "-" in part), suffix, dot + extension


def sidecar_of(path: Path) -> Path:
    """Return where the JSON beside a derived file lies: its extension (``.nii.gz``, ``.func.gii``) is replaced.

    >>> sidecar_of(Path("sub-01_bold.func.gii")).name
    'sub-01_bold.json'
    """
    return path.with_name(path.name.partition(".")[0] + ".json")
