"""The committed schema is the one the code gives; the tracked configuration holds known keys only."""

import json
from pathlib import Path

from boldmill.cli import main
from boldmill.config.command import schema_text
from boldmill.config.load import load

PROJECT = Path(__file__).resolve().parents[3]


def test_committed_schema_is_current():
    committed = (PROJECT / "workflow/schemas/config.schema.json").read_text()
    assert committed == schema_text(), "run: boldmill schema --out workflow/schemas/config.schema.json"


def test_printed_and_written_schema_are_the_same(tmp_path, capsys):
    assert main(["schema"]) == 0
    assert main(["schema", "--out", str(tmp_path / "s.json")]) == 0
    assert capsys.readouterr().out == (tmp_path / "s.json").read_text()
    assert json.loads((tmp_path / "s.json").read_text())["additionalProperties"] is False


def test_every_key_of_the_tracked_configuration_is_known():
    load(PROJECT / "config.yaml")


def test_every_option_says_what_it_means():
    schema = json.loads(schema_text())
    for name, definition in {"Config": schema, **schema["$defs"]}.items():
        for key, field in definition["properties"].items():
            assert "description" in field or "$ref" in field or "allOf" in field, f"{name}.{key}"
