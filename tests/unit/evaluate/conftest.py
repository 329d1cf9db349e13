"""Small cohorts in memory, and one snapshot written by the real shard commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldmill.evaluate.cohort import Cohort

EDGES = 4950


def make_cohort(
    n: int = 16, *, effect: float = 0.0, edges: int = EDGES, seed: int = 0, heldout: int = 5, two_scans: int = 0
) -> Cohort:
    """Two groups of equal size; ``effect`` SD on 20 edges in the second group; the first subjects have two scans."""
    rng = np.random.default_rng(seed)
    people = [f"toy/{i:02d}" for i in range(n)]
    group = np.arange(n) % 2
    scans = [(i, run) for i in range(n) for run in range(2 if i < two_scans else 1)]
    own = rng.standard_normal((n, edges)) * 0.13
    fc = np.stack([own[i] + 0.03 * rng.standard_normal(edges) for i, _ in scans])
    fc[:, :20] += effect * 0.15 * group[[i for i, _ in scans], None]
    ids = tuple(f"toy_sub-{i:02d}_run-{run}" for i, run in scans)
    table = pd.DataFrame(
        {
            "group": ["patient" if group[i] else "control" for i, _ in scans],
            "age": [20.0 + i for i, _ in scans],
            "score": [float(fc[next(k for k, (j, _) in enumerate(scans) if j == i), :20].sum()) for i, _ in scans],
        },
        index=ids,
    )
    return Cohort(
        scan_ids=ids,
        datasets=tuple("toy" for _ in scans),
        subjects=tuple(people[i] for i, _ in scans),
        groups=tuple(people[i] for i, _ in scans),
        splits=tuple("heldout" if i < heldout else "train" for i, _ in scans),
        sites=tuple("A" if i % 3 else "B" for i, _ in scans),
        mean_fd=np.full(len(scans), 0.1),
        fc=fc,
        phenotypes=table,
    )


@pytest.fixture
def cohort() -> Callable[..., Cohort]:
    return make_cohort


@pytest.fixture(scope="session")
def config(synth: ModuleType) -> Any:
    """Small models, two tasks, few draws."""
    tasks = [{"name": "group", "column": "group"}, {"name": "score", "column": "score", "kind": "regression"}]
    return synth.config(
        models={
            "brainmass": {"epochs": 2, "batch": 4},
            "fmri_mae": {"steps": 2, "batch": 2},
            "fm_app": {"epochs_fmri": 3, "epochs_t1w": 3, "batch": 4, "unseen": ["score"]},
        },
        evaluate={"tasks": tasks, "repeats": 2, "bootstrap": 100, "permutations": 99},
    )


@pytest.fixture(scope="session")
def manifest(synth: ModuleType, config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshot of 12 subjects, 20 parcels."""
    return Path(synth.snapshot(tmp_path_factory.mktemp("results"), config, n_subjects=12))
