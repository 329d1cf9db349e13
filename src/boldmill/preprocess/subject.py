"""What a step of one subject's preprocessing is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.derivatives import Derivatives
from boldmill.preprocess.images import Grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What all steps of one subject share.

    Parameters
    ----------
    derivatives : Derivatives
        Where and under which names files are written.
    space : str
        Name of the template space.
    grid : Grid
        The output grid.
    template : dict
        Template files: ``head``, ``brain_mask``, ``gm``, ``wm``, ``csf``.
    settings, clean
        The sections of the configuration, with the data set's overrides.
    seed, threads : int
        Base seed; most threads a library may use.
    others : dict
        Files ``brain`` and ``brain_mask`` of further templates, by space.
    """

    derivatives: Derivatives
    space: str
    grid: Grid
    template: dict[str, Path]
    settings: PreprocessConfig
    clean: CleanConfig
    seed: int
    threads: int = 1
    others: dict[str, dict[str, Path]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step gives back.

    Parameters
    ----------
    files : dict
        Absolute paths by the manifest's keys.
    qc : dict
        Quality figures by name.
    flags : list of str
        What a person should look at, ``name: text``.
    extra : list of Path
        Further files the step wrote, which the manifest does not name.
    facts : dict
        Further keys of the manifest entry (``tr`` in s, ``n_volumes``, ``space``).
    """

    files: dict[str, Path]
    qc: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    extra: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
