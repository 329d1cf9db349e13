from __future__ import annotations

import pytest

from boldmill.config.load import parse
from boldmill.errors import ConfigError
from boldmill.spaces.names import atlas_label, configured_atlases, for_atlas, parse_atlas


def test_desc_may_be_written_as_a_pair() -> None:
    assert parse_atlas("HOCPA desc=th25") == parse_atlas("HOCPA th25")


@pytest.mark.parametrize("text", ["", " ", "A b c", "A b desc=c", "seg=7n", "A seg=", "A =7n", "A suffix=probseg"])
def test_what_is_no_atlas_is_refused_by_the_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME key=value"):
        parse({"spaces": {"further_atlases": [text]}})


def test_the_first_atlas_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="NAME key=value"):
        parse({"spaces": {"atlas_desc": "100Parcels7Networks second"}})


@pytest.mark.parametrize("twin", ["Schaefer2018 100Parcels7Networks", "Schaefer2018-100Parcels7Networks"])
def test_two_atlases_of_one_label_are_refused_and_none_is_dropped(twin: str) -> None:
    assert atlas_label(twin) == "Schaefer2018-100Parcels7Networks"
    with pytest.raises(ConfigError, match="share a label"):
        parse({"spaces": {"further_atlases": [twin]}})


def test_every_configured_atlas_can_be_made_alone() -> None:
    spaces = parse({"spaces": {"further_atlases": ["HOCPA th25", "Schaefer2018 seg=7n scale=400"]}}).spaces
    for label, name in configured_atlases(spaces).items():
        assert configured_atlases(for_atlas(spaces, label)) == {label: name}
