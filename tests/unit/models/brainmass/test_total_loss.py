"""The total loss of the module against plain loops in float64, in every form the configuration has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boldmill.models.brainmass.architecture import Architecture
from boldmill.models.brainmass.losses import Weights, draw_masks, total
from boldmill.models.brainmass.model import BrainMass

SPEC = importlib.util.spec_from_file_location("brainmass_reference", Path(__file__).with_name("reference.py"))
assert SPEC is not None and SPEC.loader is not None
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)

FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"style": "paper"},
    "columns": {"mask_columns": True},
    "three layers": {"rec_layers": 3},
    "projection, columns": {"rois": 13, "mask_columns": True},
}


def module(form: str) -> BrainMass:
    """A module whose target, vectors and norms are not those of a fresh one, without dropout."""
    values = {"rois": 12, "width": 12, "depth": 2, "heads": 3, "ffn": 16, "latent": 9, "hidden": 20, "dropout": 0.0}
    torch.manual_seed(4)
    model = BrainMass(Architecture(**{**values, **FORMS[form]})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()


@pytest.mark.parametrize("form", FORMS)
def test_total_loss_equals_plain_loops(form: str) -> None:
    model, weights = module(form), (0.7, 0.1, 2.0)
    n = model.arch.rois
    rng = np.random.default_rng(0)
    views = [np.stack([np.corrcoef(rng.standard_normal((15, n)).T) for _ in range(4)]) for _ in range(2)]
    scans = ["a", "b", "c", "d"]
    clf, rec = (draw_masks(scans, purpose, 0, 7, n, count) for purpose, count in (("clf", 4), ("rec", 3)))
    found = total(
        model,
        (torch.from_numpy(views[0]), torch.from_numpy(views[1])),
        torch.from_numpy(clf),
        torch.from_numpy(rec),
        Weights(*weights),
    )
    arch = model.arch
    reference = MODULE.Reference(
        model.state_dict(), heads=arch.heads, depth=arch.depth, style=arch.style, mask_columns=arch.mask_columns
    )
    expected = reference.total((views[0], views[1]), clf, rec, weights)
    for name, value in zip(("loss", "lra", "clf", "rec"), expected, strict=True):
        assert float(found[name].detach()) == pytest.approx(value, abs=1e-6), name
    assert min(expected) > 1e-3
    single = total(  # in single precision, as it is trained
        model.float(),
        (torch.from_numpy(views[0]).float(), torch.from_numpy(views[1]).float()),
        torch.from_numpy(clf),
        torch.from_numpy(rec),
        Weights(*weights),
    )
    assert float(single["loss"].detach()) == pytest.approx(expected[0], rel=1e-4)
