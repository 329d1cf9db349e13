"""Presets are laid under what the user sets; combinations that cannot be are refused when the file is read."""

from __future__ import annotations

from typing import Any

import pytest

from boldmill.config.load import load, parse
from boldmill.errors import ConfigError
from boldmill.models.brainmass.config import BrainMassConfig
from boldmill.stages import Settings, stage_json


def brainmass(**values: Any) -> BrainMassConfig:
    """What the training command is given by the workflow."""
    return Settings(stage_json(parse({"models": {"brainmass": values}}), "train_brainmass")).section(
        "models.brainmass", BrainMassConfig
    )


@pytest.mark.parametrize("size", ["tiny", "S", "B", "L"])
def test_paper_is_the_published_forward_and_estimator_at_any_size(size: str) -> None:
    paper, plain = brainmass(preset="paper", size=size), brainmass(size=size)
    assert (paper.forward_style, paper.estimator) == ("paper", "ledoit_wolf")
    assert (plain.forward_style, plain.estimator) == ("uniform", "pearson")
    changed = {"preset": "boldmill", "forward_style": "uniform", "estimator": "pearson"}
    assert paper.model_copy(update=changed) == plain  # nothing else: heads are trained, no legacy switch


def test_keys_that_are_set_win() -> None:
    mixed = brainmass(preset="paper", estimator="pearson")
    assert (mixed.forward_style, mixed.estimator) == ("paper", "pearson")


def test_a_preset_reaches_through_the_shipped_configuration(tmp_path: Any) -> None:
    """Keys of a preset that config.yaml wrote out would win over it."""
    from pathlib import Path

    own = tmp_path / "own.yaml"
    own.write_text("models: {brainmass: {preset: paper, size: L}}\n")
    config = load(Path(__file__).parents[4] / "config.yaml", own).models.brainmass
    assert (config.size, config.forward_style, config.estimator) == ("L", "paper", "ledoit_wolf")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "S"}, "'S' is a size, not a preset: write `size: S`"),
        ({"preset": "papr"}, "models.brainmass.preset"),
        ({"weight_lra": 0, "weight_clf": 0, "weight_rec": 0}, "nothing would be learned"),
        ({"epochs": 0}, "set init, or epochs above 0"),
        ({"rec_layers": 4}, "models.brainmass.rec_layers"),
        ({"estimator": "partial"}, "models.brainmass.estimator"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"models": {"brainmass": values}})
    assert words in str(caught.value)
