"""Participants tables: types, missing values and rows, sites, families, conflicting rows."""

import json

from boldmill.index.participants import read_participants


def entry(tree, subject, **given):
    words = {"site": "", "site_column": "site", "family_column": "", "fallback": "ds"} | given
    return read_participants(tree.root).entry(subject, **words)


def test_columns_become_numbers_only_if_all_values_are(tree):
    tree.participants(
        "participant_id age score code mixed sex\n"
        "sub-01 30 1.5 007 1 f\n"
        "sub-02 n/a 2e1 008 two m\n"
        "sub-03 41 n/a 009 3 n/a"
    )
    rows = read_participants(tree.root).rows
    assert rows["01"] == {"age": 30, "score": 1.5, "code": "007", "mixed": "1", "sex": "f"}
    assert rows["02"] == {"age": None, "score": 20.0, "code": "008", "mixed": "two", "sex": "m"}
    assert rows["03"] == {"age": 41, "score": None, "code": "009", "mixed": "3", "sex": None}


def test_missing_row_is_flagged_site_falls_back_and_phenotypes_are_null(tree):
    tree.participants("participant_id age site\nsub-01 30 A\nsub-02 31 n/a")
    assert entry(tree, "01")["site"] == "A"
    assert entry(tree, "02")["site"] == "ds"
    assert entry(tree, "01", site="B")["site"] == "B"
    missing = entry(tree, "09")
    assert missing["phenotypes"] == {"age": None, "site": None}
    assert (missing["site"], missing["flags"]) == ("ds", ["no row in participants.tsv"])


def test_family_column_and_plain_labels(tree):
    tree.participants("participant_id fam\n01 7\nsub-02 n/a")
    assert entry(tree, "01", family_column="fam")["family"] == "7"
    assert entry(tree, "02", family_column="fam")["family"] is None
    assert entry(tree, "01")["family"] is None


def test_two_rows_of_one_subject_keep_what_they_agree_on(tree):
    tree.participants("participant_id sex age\nsub-01 f 30\nsub-01 f 31")
    found = entry(tree, "01")
    assert found["phenotypes"] == {"sex": "f", "age": None}
    assert found["flags"] == ["participants.tsv gives several values of age; none is used"]


def test_table_without_identity_or_with_a_short_line_is_reported(tree):
    tree.write("participants.tsv", "name\tage\nx\t3\n")
    assert read_participants(tree.root).warnings == [
        "participants.tsv has no participant_id column: phenotypes are empty"
    ]
    tree.write("participants.tsv", "participant_id\tage\tsex\nsub-01\t3\n")
    found = read_participants(tree.root)
    assert found.warnings == ["participants.tsv line 2 has 2 of 3 columns"]
    assert found.rows["01"] == {"age": 3, "sex": None}


def test_descriptions_go_into_the_bucket_file_of_the_subject(tree):
    about = {"group": {"Description": "diagnosis", "Levels": {"p": "patient", "c": "control"}, "Other": 1}, "x": {}}
    tree.good("01")
    tree.participants("participant_id group\nsub-01 p", about)
    row = tree.ingest()[0]
    value = json.loads((tree.results / f"index/participants/bucket-{row.bucket:03d}.json").read_text())
    assert value["subjects"] == {"ds/01": {"site": "ds", "family": None, "phenotypes": {"group": "p"}, "flags": []}}
    assert value["descriptions"]["ds"]["group"] == {
        "Description": "diagnosis",
        "Levels": {"p": "patient", "c": "control"},
    }


def test_changed_phenotype_changes_no_ticket(tree):
    tree.good("01")
    tree.participants("participant_id age\nsub-01 30")
    tree.ingest()
    before = tree.snapshot()
    tree.participants("participant_id age\nsub-01 31")
    row = tree.ingest()[0]
    after = tree.snapshot()
    assert {name for name in after if after[name] != before[name]} == {f"participants/bucket-{row.bucket:03d}.json"}


def test_broken_descriptions_are_reported_and_the_rest_goes_on(tree, capsys):
    tree.good("01")
    tree.participants("participant_id age\nsub-01 30")
    tree.write("participants.json", "{")
    assert tree.ingest()[0].status == "ok"
    assert "participants.json is not valid JSON" in capsys.readouterr().out
