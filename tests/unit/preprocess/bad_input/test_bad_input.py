"""At least forty broken inputs in one tree: each ends as declared, in the words declared, and harms no neighbour.

Bad runs share one subject with a good run; bad T1w have a subject of their own. Whatever they break, their neighbours'
outputs are byte-identical to those of a tree without any bad input: the other subjects', and the good run among them.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.preprocess.images import read_volume

from .cases import CASES, Case
from .tree import Results, Tree

NEIGHBOURS = ("good", "many")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The healthy subjects, before anything bad came."""
    tree = Tree(tmp_path_factory.mktemp("bad"))
    for label in NEIGHBOURS:
        tree.subject(label)
    tree.participants()
    results = Results(tree, "alone")
    assert results.ingest() == 0
    for label in NEIGHBOURS:
        assert results.preprocess(label) == 0
    return results


@pytest.fixture(scope="module")
def mixed(alone: Results) -> Results:
    """The same tree after all bad cases were added, indexed and preprocessed into a results folder of its own."""
    tree = alone.tree
    for case in CASES:
        if case.subject:
            tree.subject(case.label)
        else:
            tree.run(case.label, case.run)
        case.damage(tree, case.label, case.run)
    tree.participants(without=("noparticipantsrow",))
    results = Results(tree, "mixed")
    assert results.ingest() == 0
    for label in tree.labels:
        assert results.preprocess(label) == 0, label
    return results


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def entry(results: Results, case: Case) -> dict[str, Any]:
    """What became of the case's scan: its row at ingest, overlaid by its entry in the subject's manifest."""
    from boldmill.index.read import read_index

    row = next((scan for scan in read_index(results.folder).scans if scan.scan_id == case.scan_id), None)
    if row is None:
        return {"status": "absent", "reason": "", "fix": "", "flags": []}
    found = {"status": row.status, "reason": row.reason, "fix": row.fix, "flags": [row.flags]}
    manifest = results.manifest(case.label)
    later = manifest["scans"].get(case.scan_id)
    if later is not None:
        anat = manifest["anat"].get("flags", [])
        found = {**found, **later, "flags": [*found["flags"], *later.get("flags", []), *anat]}
    return found


def test_there_are_at_least_forty_cases_with_names_of_their_own() -> None:
    assert len(CASES) >= 40 and len({case.name for case in CASES}) == len(CASES)
    assert all(case.words for case in CASES if case.outcome != "handled")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_ends_as_declared_and_says_why(mixed: Results, alone: Results, case: Case) -> None:
    found = entry(mixed, case)
    if case.outcome == "quarantined":
        assert found["status"] == "quarantined", found
        assert re.search(case.words, found["reason"]), found["reason"]
        assert found["fix"]
    elif case.outcome == "flagged":
        assert found["status"] == "ok", found
        assert re.search(case.words, "\n".join(found["flags"])), found["flags"]
    elif case.outcome == "handled":
        assert found["status"] == "ok", found
        plain = read_volume(
            alone.folder / alone.manifest("good")["scans"]["bad_sub-good_task-rest_acq-good"]["files"]["boldref"]
        )
        mean = read_volume(mixed.folder / found["files"]["boldref"])
        inside = (plain.data > 0) & (mean.data > 0)
        assert inside.sum() > 0.9 * (plain.data > 0).sum()
        assert np.corrcoef(plain.data[inside], mean.data[inside])[0, 1] > 0.95
    else:
        assert found["status"] == "absent"
        assert any(case.words in row["path"] for row in rows(mixed.folder / "index" / "ignored.tsv"))


def test_a_healthy_subject_has_the_same_bytes_as_without_any_bad_input(mixed: Results, alone: Results) -> None:
    assert len(alone.digests("good")) > 20
    assert mixed.digests("good") == alone.digests("good")


def test_the_good_run_among_the_bad_ones_has_the_same_bytes_and_so_has_its_head(mixed: Results, alone: Results) -> None:
    before, after = alone.digests("many"), mixed.digests("many")
    manifest = "preprocess/bad/sub-many.json"
    assert len(before) > 20
    assert {path: after[path] for path in before if path != manifest} == {
        path: digest for path, digest in before.items() if path != manifest
    }
    scan = "bad_sub-many_task-rest_acq-good"
    assert mixed.manifest("many")["scans"][scan] == alone.manifest("many")["scans"][scan]


def test_nothing_is_lost_every_bad_scan_is_in_a_table(mixed: Results) -> None:
    from boldmill.index.quarantine import collect_quarantine

    table = {row.scan_id: row for row in collect_quarantine(mixed.folder)}
    for case in CASES:
        assert (case.scan_id in table) == (case.outcome == "quarantined"), case.scan_id
