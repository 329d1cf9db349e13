"""The end of a run names nobody."""

from __future__ import annotations

import pytest

from boldmill.cli import main
from boldmill.index.quarantine import QuarantineRow, collect_quarantine
from boldmill.setup.nameless import Refusal, nameless


def row_of(
    reason: str, fix: str = "", subject: str = "04", file: str = "raw/sub-04/func/sub-04_bold.nii.gz"
) -> QuarantineRow:
    return QuarantineRow(f"ds_sub-{subject}_task-rest", "ds", subject, "ingest", reason, fix, file)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (row_of("the gzip stream ends early: it is truncated"), "the gzip stream ends early: it is truncated"),
        (row_of("cannot read raw/sub-04/func/sub-04_bold.nii.gz at all"), "cannot read (..) at all"),
        (row_of("row '04' has no age; see ds/04.csv, not 1045"), "row (..) has no age; see (..) not 1045"),
        (row_of("member Pitt_0050003_ts.1D is short", subject="0050003", file=""), "member (..) is short"),
        (row_of("ds_sub-04_task-rest is listed twice", file=""), "(..) is listed twice"),
        (row_of("scans.tsv: no row", file="raw/scans.tsv"), "(..) no row"),
        (QuarantineRow("", "ds", "", "ingest", "broken: two words", "", ""), "broken: two words"),
    ],
)
def test_words_that_name_somebody_are_gone(row: QuarantineRow, said: str) -> None:
    assert nameless([row]) == [Refusal(1, "ingest", said, "")]


def test_reasons_are_counted_the_most_frequent_first() -> None:
    rows = [row_of("short"), row_of("no TR in sub-04.json", "add it"), row_of("no TR in sub-5.json", "add it", "5")]
    assert nameless(rows) == [Refusal(2, "ingest", "no TR in (..)", "add it"), Refusal(1, "ingest", "short", "")]


def test_a_run_ends_with_reasons_and_names_no_scan(tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.good("01", "02", "03")
    for label in ("01", "02"):
        tree.bold(label).write_bytes(b"")
    tree.ingest()
    (fix,) = {row.fix for row in collect_quarantine(tree.results)}
    assert main(["status", "--unquoted", "--results", str(tree.results)]) == 3
    text = capsys.readouterr().out
    assert "2 quarantined" in text and "2 ingest      the file is empty" in text and f"fix: {fix}" in text
    assert "sub-" not in text and str(tree.results / "quarantine.tsv") in text
