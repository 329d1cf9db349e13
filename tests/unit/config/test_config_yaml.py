"""config.yaml: complete, commented, and known."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from boldmill.config.base import Section
from boldmill.config.governed import governed
from boldmill.config.load import load, merge, parse
from boldmill.config.model import SECTIONS, Config
from boldmill.errors import ConfigError
from boldmill.stages import STAGES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "config.yaml").read_text()


def keys(value: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, inner in value.items():
        found |= keys(inner, f"{prefix}{key}.") if isinstance(inner, dict) and inner else {f"{prefix}{key}"}
    return found


def test_it_loads_and_names_the_offline_sources() -> None:
    config = load(ROOT / "config.yaml")
    assert (config.spaces.template_source, config.spaces.atlas_source) == ("demo", "embedded")
    assert [dataset.name for dataset in config.datasets] == ["demo", "lemon"]


def test_every_key_of_the_configuration_is_there() -> None:
    written = yaml.safe_load(TEXT)
    # Keys a preset sets stand there commented out, with their defaults: written, they would win over every preset.
    left_open = {
        key for key in governed() if re.search(rf"^ {{{2 * key.count('.')}}}# {key.split('.')[-1]}: ", TEXT, re.M)
    }
    assert len(left_open) == len(governed())
    for name in SECTIONS:
        own = {key.split(".", 1)[1] for key in governed() if key.startswith(f"{name}.")}
        assert not own & keys(written[name]), name
        assert keys(written[name]) | own == keys(SECTIONS[name]().model_dump(mode="json") | {}), name
    assert set(written) == set(Config.model_fields)


def test_every_key_has_a_comment_above_it() -> None:
    lines = TEXT.splitlines()
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith(("#", "- {")) or ":" not in stripped:
            continue
        if "name: lemon" in line or lines[number - 1].strip().startswith("- name: lemon"):
            continue
        if stripped.split(":")[0] in ("root", "kind", "site") and "lemon" in "".join(
            lines[max(0, number - 3) : number]
        ):
            continue
        assert lines[number - 1].strip().startswith("#"), f"line {number + 1} has no comment: {line}"


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ({"clean": {"band_hihg": 0.1}}, "band_high"),
        ({"models": {"brainmass": {"epoch": 3}}}, "epochs"),
        ({"datasets": [{"name": "a", "root": "x", "filter": {}}]}, "filters"),
        ({"datasets": [{"name": "a", "root": "x", "overrides": {"clean": {"compcorr": 1}}}]}, "compcor"),
        ({"preproces": {}}, "preprocess"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(raw: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{hint}'"):
        parse(raw)


def test_a_value_out_of_range_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"snapshot\.heldout"):
        parse({"snapshot": {"heldout": 1.5}})


def test_lists_replace_and_mappings_merge() -> None:
    base = {"datasets": [1, 2], "clean": {"compcor": 5, "motion": "24"}}
    assert merge(base, {"datasets": [3], "clean": {"compcor": 2}}) == {
        "datasets": [3],
        "clean": {"compcor": 2, "motion": "24"},
    }


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"clean": {"motion": "99"}}, r"datasets\[a\]\.overrides\.clean\.motion"),
        ({"clean": {"compcor": -3}}, r"datasets\[a\]\.overrides\.clean\.compcor"),
        ({"flatmap": {"depths": 3}}, "set `flatmap.depths` for all data sets"),
        ({"augment": {"dtype": "float32"}}, "set `augment.dtype` for all data sets"),
        ({"shards": {"clip_frames": 8}}, "holds for all data sets"),
        ({"clean": [1]}, r"datasets\.0\.overrides\.clean"),
    ],
)
def test_an_override_that_could_not_hold_is_refused_before_anything_runs(overrides: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse({"datasets": [{"name": "a", "root": "x", "overrides": overrides}]})


def _leaves(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_is_read_by_a_stage_and_every_key_read_is_there() -> None:
    """A key that no stage tracks would change nothing, or change results without a rerun."""
    keys = set(_leaves(Config))
    read = {key for stage in STAGES.values() for key in stage.reads}
    assert all(any(k == key or k.startswith(f"{key}.") for k in keys) for key in read)
    untracked = {k for k in keys if not any(k == key or k.startswith(f"{key}.") for key in read)}
    # a place, part of every seeded stage, two that set which jobs there are, and one that sets what stays of them
    assert untracked == {"results", "seed", "models.train", "spaces.further_atlases", "flatmap.keep"}


def test_columns_of_a_filter_are_the_users_own_and_its_limits_are_checked() -> None:
    task = {"name": "t", "column": "dx", "include": {"age": {"min": 8}, "eyes": ["open", 1]}}
    found = parse(merge(yaml.safe_load(TEXT), {"evaluate": {"tasks": [task], "transfers": []}})).evaluate.tasks[0]
    assert found.include["age"].min == 8  # type: ignore[union-attr]
    assert found.include["eyes"] == ["open", 1]
    wrong = task | {"include": {"age": {"mim": 8}}}
    with pytest.raises(ConfigError, match=r"include\.age\.mim` is not known \(did you mean 'min'"):
        parse(merge(yaml.safe_load(TEXT), {"evaluate": {"tasks": [wrong], "transfers": []}}))
