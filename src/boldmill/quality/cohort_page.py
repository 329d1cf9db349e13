"""The cohort page: one self-contained HTML file whose table is built in the browser from data it carries."""

from __future__ import annotations

from typing import Any

from boldmill import __version__
from boldmill.quality.cohort import Cohort, CohortScan, Rules, by_rule, by_site
from boldmill.quality.cohort_figures import distribution

HEADLINE = (
    *("mean_fd", "censored_share", "minutes_kept", "mean_dvars", "tsnr", "gcor", "residual_dof", "coverage", "efc"),
    *("coreg_dice", "t1w_template_mask_dice", "t1w_cnr"),
)
"""Figures shown first; the others on request."""


def render(cohort: Cohort, rules: Rules, project: str) -> str:
    """Return the page as HTML text.

    Parameters
    ----------
    cohort : Cohort
        The scans.
    rules : callable
        Inclusion rules of a data set.
    project : str
        Name of the project.
    """
    from tqdm import tqdm

    from boldmill.report.templating import load

    names = [measure.name for measure in cohort.measures]
    pictures = [
        (measure, distribution(cohort, measure, rules))
        for measure in tqdm(cohort.measures, desc="distributions", unit="figure", disable=None)
    ]
    html: str = load("boldmill.quality", "cohort.html").render(
        project=project,
        version=__version__,
        cohort=cohort,
        counts={
            "subjects": len({(scan.dataset, scan.subject) for scan in cohort.scans}),
            "scans": len(cohort.scans),
            "included": sum(scan.included for scan in cohort.scans),
            "excluded": sum(not scan.included for scan in cohort.scans),
            "with outliers": sum(bool(scan.outliers) for scan in cohort.scans),
            "quarantined": len(cohort.quarantine),
        },
        sites=by_site(cohort),
        rules=by_rule(cohort, rules),
        outlier_z=sorted({rules(scan.dataset).outlier_z for scan in cohort.scans}),
        first=[(m, picture) for m, picture in pictures if m.name in HEADLINE],
        more=[(m, picture) for m, picture in pictures if m.name not in HEADLINE],
        table={
            "measures": [
                {
                    **{key: getattr(m, key) for key in ("name", "label", "unit", "decimals", "words")},
                    "first": m.name in HEADLINE,
                }
                for m in cohort.measures
            ],
            "scans": [_row(scan, names) for scan in cohort.scans],
        },
    )
    return html


def _row(scan: CohortScan, names: list[str]) -> dict[str, Any]:
    """Return what the browser needs of one scan: figures in the order of the columns, outliers by column."""
    return {
        "id": scan.scan_id,
        "page": scan.page,
        "dataset": scan.dataset,
        "site": scan.site,
        "kind": scan.kind,
        "in": scan.included,
        "why": [*scan.reasons, *scan.unchecked],
        "flags": scan.flags,
        "q": [_figure(scan.figures.get(name)) for name in names],
        "z": {names.index(o.name): [round(o.z, 1), o.against] for o in scan.outliers},
    }


def _figure(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
