"""What changed between two settings, in words."""

from boldmill.config.load import parse
from boldmill.plan.words import settings_changes, shown
from boldmill.stages import STAGES, stage_json

RAW = {"datasets": [{"name": "alpha", "root": "a"}, {"name": "beta", "root": "b"}]}


def changes(stage: str, change: dict, base: dict = RAW) -> list[str]:
    return settings_changes(stage_json(parse(base), stage), stage_json(parse({**base, **change}), stage))


def test_a_changed_number_names_its_key_and_both_values() -> None:
    assert changes("preprocess", {"clean": {"band_high": 0.08}}) == ["clean.band_high changed 0.1 -> 0.08"]


def test_null_strings_and_lists_read_as_in_the_configuration() -> None:
    found = changes("preprocess", {"clean": {"censor_dvars": 1.5, "strategy": "24P"}})
    assert "clean.censor_dvars changed null -> 1.5" in found and 'clean.strategy changed "" -> 24P' in found
    assert changes("preprocess", {"preprocess": {"keep": ["clean"]}}) == ['preprocess.keep changed [] -> ["clean"]']


def test_the_seed_and_the_version_are_named() -> None:
    assert changes("preprocess", {"seed": 7}) == [f"seed changed {parse(RAW).seed} -> 7"]
    text = stage_json(parse(RAW), "flatmap")
    version = STAGES["flatmap"].version
    raised = text.replace(f'"version":{version}', f'"version":{version + 1}')
    assert settings_changes(text, raised) == [f"stage version {version} -> {version + 1}"]


def test_overrides_name_their_data_set() -> None:
    datasets = [RAW["datasets"][0], {**RAW["datasets"][1], "overrides": {"clean": {"compcor": 2}}}]
    assert changes("preprocess", {"datasets": datasets}) == ["for data set beta, clean.compcor is set to 2"]
    back = settings_changes(
        stage_json(parse({"datasets": datasets}), "preprocess"), stage_json(parse(RAW), "preprocess")
    )
    assert back == ["for data set beta, clean.compcor is no longer set (was 2)"]


def test_entries_of_lists_are_told_by_name() -> None:
    base = {**RAW, "evaluate": {"tasks": [{"name": "age", "column": "age", "kind": "regression"}]}}
    more = [*base["evaluate"]["tasks"], {"name": "sex", "column": "sex"}]
    assert changes("evaluate", {"evaluate": {"tasks": more}}, base) == ["evaluate.tasks has a new entry sex"]
    other = [{"name": "age", "column": "years", "kind": "regression"}]
    assert changes("evaluate", {"evaluate": {"tasks": other}}, base) == [
        "evaluate.tasks[age].column changed age -> years"
    ]


def test_equal_settings_differ_in_nothing() -> None:
    assert changes("preprocess", {}) == []


def test_long_values_are_cut() -> None:
    assert len(shown(list(range(100)))) == 60
