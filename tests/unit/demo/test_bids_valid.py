"""The demo's data sets under the official BIDS validator: no error but those of the runs broken on purpose."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path


def test_the_demo_is_valid_bids_but_for_its_bad_scans(cohort: Path, bids_issues: Callable[..., list[str]]) -> None:
    with open(cohort / "truth" / "bad_scans.tsv", encoding="utf-8", newline="") as handle:
        bad = {row["scan_id"].split("_", 1)[1] for row in csv.DictReader(handle, delimiter="\t")}
    found = bids_issues(cohort / "bids")
    assert all(any(name in line for name in bad) for line in found), found
