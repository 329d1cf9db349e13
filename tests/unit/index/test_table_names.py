"""Names of ready-made series, patterns, and the keys of a data set of tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.config.load import parse
from boldmill.errors import ConfigError, DataFault
from boldmill.index.table_names import compile_pattern, entities_of, plain_label

HCP = {"sub": "100307", "task": "REST", "run": "1"}


def test_keys_of_tables_are_for_tables():
    for key, value in (("atlas", "x"), ("pattern", "{sub}"), ("tr", 2.0), ("files", ["a"]), ("labels", "x")):
        with pytest.raises(ConfigError, match=f"`{key}` is not for a data set of kind raw"):
            parse({"datasets": [{"name": "a", "root": "x", key: value}]})
    with pytest.raises(ConfigError, match="`pick` is not for a data set of kind tables"):
        parse({"datasets": [{"name": "a", "root": "x", "kind": "tables", "pick": {"atlas": "y"}}]})


@pytest.mark.parametrize(
    ("pattern", "why"), [("{ses}", "write {sub}"), ("{sub}{site}", "names site"), ("(?P<sub>", "is no pattern")]
)
def test_a_pattern_that_cannot_be_is_refused(pattern, why):
    with pytest.raises(ConfigError, match=why):
        parse({"datasets": [{"name": "a", "root": "x", "kind": "tables", "pattern": pattern}]})


@pytest.mark.parametrize(
    ("name", "pattern", "found"),
    [
        ("sub-01_ses-2_task-rest_run-1_timeseries", "", {"sub": "01", "ses": "2", "task": "rest", "run": "1"}),
        ("sub-01", "", {"sub": "01"}),
        ("MaxMun_a_0051606", "", {"sub": "MaxMuna0051606"}),
        ("Pitt_0050003_rois_ho", "{sub}_rois_*", {"sub": "Pitt0050003"}),
        ("s01/rest_2", "{sub}/{task}_{run}", {"sub": "s01", "task": "rest", "run": "2"}),
        ("100307_REST1_LR", r"(?P<sub>\d{6})_(?P<task>[A-Z]+)(?P<run>\d)_.*", HCP),
    ],
)
def test_names_give_entities(name, pattern, found):
    assert entities_of(name, pattern)[0] == found


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="/"), min_size=1, max_size=30))
def test_a_label_is_always_bids_and_a_pattern_finds_what_was_put_in(text):
    label = plain_label(text)
    assert label == "" or label.isalnum()
    found = compile_pattern("pre_{sub}_post").fullmatch(f"pre_{text}_post")
    assert (found is not None and found["sub"] == text) or "\n" in text


@pytest.mark.parametrize(
    ("name", "pattern", "why"),
    [
        ("sub-001-LSD", "", "no BIDS name"),
        ("__", "", "no letter or digit"),
        ("a_x", "{sub}_{run}", "run-x of 'a_x' is not a number"),
        ("a", "{sub}_{ses}", "does not fit the pattern"),
    ],
)
def test_names_that_say_no_scan_are_refused(name, pattern, why):
    with pytest.raises(DataFault, match=why):
        entities_of(name, pattern)
