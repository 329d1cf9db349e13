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
    shards = stage_json(config, "shards")
    assert current.reasons("shards", f"{results}/shards/fc/A/bucket-000.parquet", shards) == ()
    trained = stage_json(config, "train_brainmass")
    (why,) = current.reasons("train_brainmass", f"{results}/models/brainmass/model.safetensors", trained)
    assert why == "models/brainmass is no longer in the configuration"
    (why,) = current.reasons("evaluate", f"{results}/ablation/gone/metrics.tsv", stage_json(config, "evaluate"))
    assert why == "ablation/gone is no longer in the configuration"
