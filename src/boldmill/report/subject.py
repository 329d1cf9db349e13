"""The page of one subject: manifest, records, confounds and picture arrays to one self-contained HTML text.

Axes: T time (volumes), R carpet rows, S slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.index.quarantine import QuarantineRow
from boldmill.paths import Layout
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.provenance.record import prov_path
from boldmill.report import citations, methods, svg
from boldmill.report import subject_figures as figures
from boldmill.report.config import ReportConfig
from boldmill.stages import Settings

Array = NDArray[Any]
DPI = 110
"""Resolution of the figures where ``report.dpi`` asks for less: traces are unreadable below."""
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The texts of one subject (``html``, ``markdown``, ``bib``) and the files they were made from."""

    html: str
    markdown: str
    bib: str
    read: list[Path]


@dataclass(slots=True, kw_only=True)
class Source:
    """Reads files below the results folder and remembers them."""

    results: Path
    read: list[Path] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """Return a file of a manifest, noted as read.

        Raises
        ------
        DataFault
            It is not there.
        """
        path = self.results / name
        if not path.is_file():
            raise DataFault(
                "cannot draw page", path, "a file the manifest names is missing", "run the preprocess stage again"
            )
        self.read.append(path)
        return path

    def json(self, name: str) -> Any:
        """Read a JSON file."""
        return read_json(self.path(name))

    def arrays(self, name: str | None) -> dict[str, Array]:
        """Read picture arrays; none where the manifest names none.

        Raises
        ------
        DataFault
            The file is missing or no npz of arrays.
        """
        import zipfile

        if name is None:
            return {}
        path = self.path(name)
        try:
            with np.load(path, allow_pickle=False) as found:
                return {key: found[key] for key in found.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataFault(
                "cannot draw page", path, f"the picture arrays are broken ({error})", "run the preprocess stage again"
            ) from error


def build(manifest_path: Path, results: Path, settings: Settings, refused: Sequence[QuarantineRow] = ()) -> Page:
    """Return the page of one subject.

    Parameters
    ----------
    manifest_path : Path
        Subject manifest; its provenance record is used where it lies beside it.
    results : Path
        Results folder.
    settings : Settings
        Settings of stage ``pages``.
    refused : sequence of QuarantineRow
        Rows of ``index/quarantine.tsv``; those of the subject are shown with what preprocessing refused.

    Raises
    ------
    DataFault
        A file the manifest names is missing or broken.
    """
    source = Source(results=results, read=[manifest_path])
    manifest = read_json(manifest_path)
    dataset, subject = str(manifest["dataset"]), str(manifest["subject"])
    record = read_json(prov_path(manifest_path)) if prov_path(manifest_path).is_file() else {}
    ran = Settings(record["settings"]) if record else None
    preprocess = ran.section("preprocess", PreprocessConfig, dataset) if ran else PreprocessConfig()
    clean = ran.section("clean", CleanConfig, dataset) if ran else CleanConfig()
    dpi = max(DPI, settings.section("report", ReportConfig).dpi)
    runs = [
        methods.Run(scan_id=name, entry=entry, recipe=_recipe(source, entry))
        for name, entry in sorted(manifest["scans"].items())
        if entry["status"] == "ok" and entry["kind"] != "anat"
    ]
    environment = record.get("environment", {})
    versions = {k: str(environment[k]) for k in ("boldmill", "python") if k in environment}
    versions |= {str(k): str(v) for k, v in environment.get("packages", {}).items() if k not in ("torch", "snakemake")}
    layout = Layout.at(results)
    facts = methods.Facts(
        preset=str(settings.raw("preset")),
        space=str(manifest["space"]),
        resolution=float(ran.raw("spaces.resolution")) if ran else None,
        template_source=str(source.json("templates/template.json")["source"]) if layout.template.is_file() else "",
        preprocess=preprocess,
        clean=clean,
        anat=manifest["anat"],
        runs=runs,
        versions=versions,
    )
    text = methods.paragraphs(facts)
    anat = _anat(source, manifest["anat"])
    costs = record.get("cost_cpu_s", {})
    took = times(costs)
    page = {
        "dataset": dataset,
        "subject": subject,
        "project": settings.raw("project"),
        "preset": facts.preset,
        "space": facts.space,
        "resolution": facts.resolution,
        "versions": versions,
        "commit": environment.get("git", {}).get("commit", ""),
        "dirty": environment.get("git", {}).get("dirty", False),
        "digest": record.get("settings_digest", ""),
        "settings": _readable(record),
        "host": environment.get("host"),
        "peak": record.get("peak_rss_mib"),
        "threads": record.get("threads"),
        "times": took,
        "total": sum(row[2] for row in took) or None,
        "reused": sorted(({"anat"} | {run.scan_id for run in runs}) - set(costs)) if costs and record else [],
        "warnings": warnings(manifest),
        "quarantined": quarantined(manifest, refused),
        "anat": anat,
        "runs": [_run(source, run, clean, dpi) for run in runs],
        "colour_bar": figures.colour_bar(),
        "methods": [(heading, _markup(citations.as_html(words))) for heading, words in text],
        "references": [(key, citations.WORKS[key]) for key in sorted(citations.cited(text))],
        "methods_md": f"sub-{subject}_methods.md",
        "methods_bib": f"sub-{subject}_methods.bib",
    }
    return Page(
        html=_render(page),
        markdown=citations.markdown(text, f"Methods: {dataset}, sub-{subject}"),
        bib=citations.bibliography(citations.cited(text)),
        read=source.read,
    )


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # made by citations.as_html, which escapes


def _render(page: Mapping[str, Any]) -> str:
    from boldmill import __version__
    from boldmill.report.templating import load

    html: str = load("boldmill.report", "subject.html").render(p=page, version=__version__)
    return html


def _recipe(source: Source, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    name = entry.get("files", {}).get("recipe")
    found: Mapping[str, Any] = source.json(name) if name else {}
    return found


def _readable(record: Mapping[str, Any]) -> str:
    import json

    return json.dumps(json.loads(record["settings"]), indent=2, sort_keys=True) if record else ""


def warnings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where and what of every flag: the T1w's first, then each run's."""
    found = [("T1w", str(flag)) for flag in manifest["anat"].get("flags", [])]
    for name, entry in sorted(manifest["scans"].items()):
        found += [(name, str(flag)) for flag in entry.get("flags", [])]
    return found


def quarantined(manifest: Mapping[str, Any], refused: Sequence[QuarantineRow] = ()) -> list[dict[str, str]]:
    """Return scan, reason and fix of everything that was refused, here or (``refused``) at ingest."""
    mine = (str(manifest["dataset"]), str(manifest["subject"]))
    early = [row for row in refused if (row.dataset, row.subject) == mine]
    entries = [("T1w", manifest["anat"]), *sorted(manifest["scans"].items())]
    found = [
        {"scan": name, "reason": str(entry.get("reason", "")), "fix": str(entry.get("fix", ""))}
        for name, entry in entries
        if entry["status"] == "quarantined"
    ]
    return found + [{"scan": row.scan_id, "reason": row.reason, "fix": row.fix} for row in early]


def times(costs: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Return part, step, CPU-seconds and seconds of what the record says ran, the T1w first."""
    rows = []
    for part in sorted(costs, key=lambda name: (name != "anat", name)):
        steps = costs[part] if isinstance(costs[part], Mapping) else {"all": {"cpu_s": costs[part], "wall_s": None}}
        for step, cost in steps.items():
            pair = cost if isinstance(cost, Mapping) else {"cpu_s": cost, "wall_s": None}
            rows.append(("T1w" if part == "anat" else part, str(step), float(pair["cpu_s"]), pair["wall_s"]))
    return rows


def picture(arrays: Mapping[str, Array], name: str) -> dict[str, Any] | None:
    """Return the mosaic of an image as ``uri``, ``width``, ``height``, or None where it was not saved."""
    if f"{name}_axial" not in arrays:
        return None
    pixels = svg.mosaic(svg.stacks(arrays, name))
    return {"uri": svg.webp(pixels), "width": pixels.shape[1], "height": pixels.shape[0], "id": ""}


def _anat(source: Source, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Pictures and figures of the T1w; its outlines are written once and used again by every run."""
    if entry["status"] != "ok":
        return None
    arrays = source.arrays(entry["files"].get("figures"))
    found: dict[str, Any] = {"qc": entry["qc"], "sources": entry.get("sources", []), "t1w": picture(arrays, "t1w")}
    if not found["t1w"]:
        return found
    found["t1w"]["id"] = "t1w-slices"
    drawn = {name: svg.outline(svg.stacks(arrays, name)) for name in ("mask", "pial", "wm")}
    scale = f'transform="scale({1 / svg.SCALE:g})"'
    paths = {name: f'<path id="c-{name}" class="line k-{name}" {scale} d="{path}"/>' for name, path in drawn.items()}
    return {
        **found,
        "t1w_again": {**found["t1w"], "uri": None},
        "template": picture(arrays, "template"),
        "warped": picture(arrays, "warped"),
        "lines": _markup("".join(paths.values())),
        "edges": _markup('<use href="#c-pial"/><use href="#c-wm"/>'),
    }


def _run(source: Source, run: methods.Run, clean: CleanConfig, dpi: int) -> dict[str, Any]:
    """Pictures and figures of one run; what was not saved is None."""
    from boldmill.preprocess import confounds

    entry = run.entry
    arrays = source.arrays(entry["files"].get("figures"))
    columns: dict[str, Array] = {}
    notes: dict[str, Any] = {}
    name = entry["files"].get("confounds")
    if name:
        columns = confounds.read(source.path(name)).columns
        if (source.results / name).with_suffix(".json").is_file():
            notes = source.json(Path(name).with_suffix(".json").as_posix())
    regressed = list(run.recipe.get("regressors", []))
    censored = run.recipe.get("censored")
    bold, distorted = picture(arrays, "bold"), picture(arrays, "distorted")
    if bold and distorted:
        bold["id"] = f"bold-{run.scan_id}"
    tsnr, wide, high = figures.tsnr_picture(arrays) if "tsnr" in arrays else (None, 0, 0)
    labels = arrays.get("carpet_labels")
    out: dict[str, Any] = {
        "scan_id": run.scan_id,
        "short": run.scan_id.split("_", 2)[-1],
        "tr": entry.get("tr"),
        "n_volumes": entry.get("n_volumes"),
        "qc": entry["qc"],
        "outliers": len(figures.impulses(columns, "motion_outlier")),
        "censored": censored,
        "regressors": regressed,
        "fieldmap": f"corrected ({run.fieldmap})" if run.distortion else ("none used" if run.raw else "n/a"),
        "slice_timing": ("corrected" if run.timing else "not corrected") if run.recipe else "n/a",
        "bold": bold,
        "distorted": distorted if bold else None,
        "bold_again": {**bold, "uri": None} if bold else None,
        "tsnr": tsnr,
        "tsnr_size": (wide, high),
        "tsnr_top": arrays.get("tsnr_top"),
        "tsnr_mm": [f"{mm:.0f}" for mm in arrays.get("tsnr_mm", [])],
        "has_carpet": "carpet" in arrays,
        "cerebellum": labels is not None and bool((labels == 4).any()),
        "missing": ""
        if arrays
        else "No picture arrays were saved for this run: only what its confounds hold is drawn.",
    }
    drawings: dict[str, Callable[[], str | None]] = {
        "traces": lambda: figures.traces_and_carpet(
            columns, arrays.get("carpet"), arrays.get("carpet_clean"), labels, float(entry["tr"]), censored or [], dpi
        ),
        "correlations": lambda: figures.correlation_figure(columns, dpi),
        "compcor": lambda: figures.compcor_figure(notes, regressed, dpi),
    }
    out |= {key: draw() if columns else None for key, draw in drawings.items()}
    band = (clean.band_low, clean.band_high)
    out["spectrum"] = figures.spectrum_figure(arrays, band, dpi) if "spectrum_hz" in arrays else None
    return out
