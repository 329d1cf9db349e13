"""Toy subjects and one trained model for the FM-APP tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boldmill_fm_app_toy", Path(__file__).with_name("toy.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def trained(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(linked: bool) -> (snapshot, predictor, result): trained once each."""
    from boldmill.models.fm_app.train import load, train

    done: dict[bool, Any] = {}

    def get(linked: bool) -> Any:
        if linked not in done:
            out = tmp_path_factory.mktemp("fm_app")
            snapshot = toy.ToySnapshot(linked=linked, seed=1)
            chosen = toy.settings(unseen=["memory3", "strength3"], epochs_fmri=25, epochs_t1w=15)
            result = train(snapshot, chosen, out, "cpu", 1, False)
            done[linked] = (snapshot, load(out / "model.safetensors"), result)
        return done[linked]

    return get
