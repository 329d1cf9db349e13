"""Turn what was collected into one HTML page: every picture embedded, no script or style from elsewhere.

Axes: T time (volumes), P parcels.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldmill import __version__
from boldmill.report import figures
from boldmill.report.collect import QC_COLUMNS, Collected, Scan, picture_sources
from boldmill.report.config import ReportConfig
from boldmill.report.sections import present, render_results


def render(collected: Collected, config: ReportConfig, project: str) -> str:
    """Return the page as HTML text."""
    from tqdm import tqdm

    from boldmill.report.templating import load

    shown = with_pictures(collected, config)
    distributions = by_site(collected.scans)
    html: str = load("boldmill.report", "page.html").render(
        project=project,
        version=__version__,
        data=collected,
        qc_columns=[name for name in QC_COLUMNS if any(name in scan.qc for scan in collected.scans)],
        results=render_results(collected.results, collected.small, config.dpi),
        sections=present(collected.results),
        scans=[
            {"scan": scan, "pictures": scan_pictures(scan, sources, config.dpi)}
            for scan, sources in tqdm(shown, desc="pictures", unit="scan", disable=None)
        ],
        hidden=len(collected.scans) - len(shown),
        curves={
            model: figures.curves(history, config.dpi, model) for model, history in collected.history.items() if history
        },
        distributions=figures.cohort(distributions, config.dpi) if distributions else None,
    )
    return html


def by_site(scans: list[Scan]) -> dict[str, dict[str, list[float]]]:
    """Return ``{quality number: {site: values}}`` for the numbers at least two scans have."""
    table: dict[str, dict[str, list[float]]] = {}
    for name in ("mean_fd", "mean_dvars", "tsnr", "residual_dof"):
        sites: dict[str, list[float]] = {}
        for scan in scans:
            value = scan.qc.get(name)
            if isinstance(value, int | float):
                sites.setdefault(scan.site or scan.dataset, []).append(float(value))
        if sum(map(len, sites.values())) > 1:
            table[name] = sites
    return table


def with_pictures(collected: Collected, config: ReportConfig) -> list[tuple[Scan, dict[str, Path]]]:
    """Return the scans that are shown with pictures, and the files each one's are made from."""
    shown = collected.scans[: config.max_scans]
    return [(scan, picture_sources(scan, movie=place < config.max_movies)) for place, scan in enumerate(shown)]


def scan_pictures(scan: Scan, sources: dict[str, Path], dpi: int) -> list[tuple[str, str, bytes]]:
    """Return the pictures of a scan, ``(caption, mime type, bytes)``, from the files of :func:`with_pictures`."""
    pictures: list[tuple[str, str, bytes]] = []
    if {"t1w_template", "brain_mask"} <= set(sources):
        contours = [(figures.load_volume(sources["brain_mask"]), "#ff4040")]
        if "gm" in sources:
            contours.append((figures.load_volume(sources["gm"]), "#40c0ff"))
        for name, caption in (("t1w_template", "T1w in template space"), ("boldref", "mean BOLD in template space")):
            if name in sources:
                title = f"{caption}: brain mask of the T1w (red), grey matter (blue)"
                picture = figures.overlay(figures.load_volume(sources[name]), contours, dpi, title)
                pictures.append((caption, "image/png", picture))
    if "timeseries" in sources:
        series, names = read_series(sources["timeseries"])
        fd, dvars = read_motion(sources.get("confounds"), len(series))
        picture = figures.motion_and_carpet(fd, dvars, series, scan.tr or 1.0, dpi)
        pictures.append(("motion and carpet (parcel series)", "image/png", picture))
        with np.errstate(invalid="ignore", divide="ignore"):
            fc = np.atleast_2d(np.corrcoef(series.T))
        pictures.append(("FC", "image/png", figures.fc_matrix(fc, [network_of(name) for name in names], dpi)))
    for name, caption, kind in (("still", "flat map", "image/png"), ("movie", "flat-map movie", "image/webp")):
        if name in sources:
            pictures.append((caption, kind, sources[name].read_bytes()))
    return pictures


def read_series(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Return a parcel time series (T, P), NaN where ``n/a``, and the names of its parcels."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = csv.reader(handle, delimiter="\t")
        names = next(rows)
        values = [[float("nan") if cell == "n/a" else float(cell) for cell in row] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(values), len(names)), names


def read_motion(path: Path | None, n_volumes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return FD (mm) and DVARS (T,) of a confounds table; NaN where the table has no such column."""
    missing = np.full(n_volumes, np.nan)
    if path is None:
        return missing, missing
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))

    def column(name: str) -> NDArray[np.float64]:
        if not rows or name not in rows[0]:
            return missing
        return np.array([float(row[name]) if row[name] not in ("n/a", "") else np.nan for row in rows])

    return column("framewise_displacement"), column("dvars")


def network_of(parcel: str) -> str:
    """Return hemisphere and network of a Schaefer parcel name, or the name itself.

    >>> network_of("7Networks_LH_DorsAttn_Post_3")
    'LH_DorsAttn'
    """
    parts = parcel.removeprefix("7Networks_").removeprefix("17Networks_").split("_")
    return "_".join(parts[:2]) if parts[0] in ("LH", "RH") else parcel
