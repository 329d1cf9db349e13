"""Keys that a preset or a strategy may set: configuration files leave them commented out, or they would win over it."""

from __future__ import annotations

from boldmill.models.brainmass.architecture import PRESETS
from boldmill.preprocess import strategies


def governed() -> set[str]:
    """Return the dotted keys of all presets and strategies.

    >>> {"clean.strategy", "models.brainmass.estimator"} & governed()
    {'models.brainmass.estimator'}
    """
    return strategies.governed() | {f"models.brainmass.{key}" for values in PRESETS.values() for key in values}
