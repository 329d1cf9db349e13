"""Which settings an output is held against: those of its place below the results folder."""

from pathlib import Path

import pytest

from boldmill.config.load import parse
from boldmill.provenance.current import Current
from boldmill.stages import stage_json


@pytest.mark.parametrize("results", ["results", "{}/ablation/old/results", "{}/models/brainmass/atlas/results"])
def test_folders_above_the_results_choose_no_settings(results: str, tmp_path: Path) -> None:
    results = results.format(tmp_path)
    config = parse({"datasets": [{"name": "demo", "root": "raw"}], "models": {"train": ["fm_app"]}, "results": results})
    current = Current(config)

    def reasons(stage: str, name: str) -> tuple[str, ...]:
        path = f"{results}/{name}"
        return current.reasons(stage, path, stage_json(config, stage), f"{path}.prov.json")

    assert reasons("shards", "shards/fc/A/bucket-000.parquet") == ()
    assert reasons("train_brainmass", "models/brainmass/model.safetensors") == (
        "models/brainmass is no longer in the configuration",
    )
    assert reasons("evaluate", "ablation/gone/metrics.tsv") == ("ablation/gone is no longer in the configuration",)
