"""Tables made only where the configuration asks for them: the workflow, the report and `status` read this list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.paths import Layout

if TYPE_CHECKING:
    from boldmill.config.model import Config


def optional_outputs(config: Config) -> dict[str, list[Path]]:
    """Return the tables by what they hold; what is not configured has none."""
    layout = Layout.at(config.results)
    models, asked = config.models.train, config.interpret
    explained = bool(asked.tasks) or any(task.kind == "classification" for task in config.evaluate.tasks)
    return {
        "interpret": [layout.interpretation(m) for m in models if m in asked.models] if explained else [],
        "few-shot": [layout.few_shot(model) for model in models] if config.evaluate.few_shot.shots else [],
        "zero-shot": [layout.zero_shot(model) for model in models] if config.evaluate.transfers else [],
        "ablation": [layout.ablation] if config.ablation.variants else [],
    }
