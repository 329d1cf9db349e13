"""Further output spaces: their names, grids and values, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from boldmill.atomic import read_json
from boldmill.config.load import parse
from boldmill.errors import ConfigError
from boldmill.preprocess.derivatives import sidecar_of
from boldmill.preprocess.images import read_volume
from boldmill.preprocess.outputs import on_fsaverage5, spaces_of
from boldmill.preprocess.series_io import read_surface
from boldmill.preprocess.space_names import Space, parse_space
from boldmill.spaces.moves import NLIN6

from .bold_phantom import tissues
from .test_apply import COUNT, FUNC, OUT, SHIFT, kept, raw  # noqa: F401 (fixtures)


@pytest.mark.parametrize(("text", "space"), [
    ("T1w", Space("T1w", None)), ("T1w:res-3", Space("T1w", 3)), ("MNI152NLin6Asym:res-2", Space(NLIN6, 2)),
])  # fmt: skip
def test_entries_are_read(text: str, space: Space) -> None:
    assert parse_space(text) == space


@pytest.mark.parametrize("text", ["", "T1w:2", "T1w:res-", "T1w:res-0", "a b", "boldref:res-2", "fsaverage5:res-3"])
def test_a_bad_entry_is_refused_when_the_configuration_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="output space"):
        parse_space(text)
    with pytest.raises(ConfigError, match=r"output_spaces.*SPACE|leave out"):
        parse({"preprocess": {"output_spaces": [text]}})


def test_an_unknown_space_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'boldref'"):
        spaces_of(["bolderf"], NLIN6, [])
    with pytest.raises(ConfigError, match="did you mean 'MNI152NLin2009cAsym'"):
        spaces_of(["MNI152NLin2009aAsym"], NLIN6, ["MNI152NLin2009cAsym"])
    assert spaces_of(["T1w", "T1w"], NLIN6, []) == [Space("T1w", None)]


def test_every_space_has_series_mask_reference_and_sidecars(kept: Any) -> None:  # noqa: F811
    files = kept[1].files
    shapes = {}
    for label in (f"{NLIN6}_res-9", "T1w_res-8", "boldref", "PhantomB_res-8"):
        image = nibabel.load(files[f"preproc_{label}"])
        mask = read_volume(files[f"mask_{label}"])
        data = np.asarray(image.dataobj)
        assert data.shape == (*mask.data.shape, COUNT) and data.dtype == np.float32
        assert np.allclose(image.affine, mask.affine, atol=1e-4) and not data[mask.data < 0.5].any()
        assert (np.ptp(data[mask.data > 0.5], axis=1) > 0).all()
        shapes[label] = (mask.data.shape, np.round(np.abs(np.diag(image.affine)[:3]), 3).tolist())
        own = [files[name] for key in ("preproc", "mask", "boldref") if (name := f"{key}_{label}") in files]
        code = 1 if label in ("T1w_res-8", "boldref") else 4  # scanner, or a template
        assert {int(nibabel.load(path).header["sform_code"]) for path in own} == {code}, label
        side = read_json(sidecar_of(files[f"preproc_{label}"]))
        assert side["Interpolations"] == ["one cubic interpolation from the raw grid"] and side["RepetitionTime"] == 2.0
        assert side["SliceTimingCorrected"] is True and side["Sources"]
    assert shapes["boldref"][0] == FUNC.shape
    assert [shapes[k][1] for k in (f"{NLIN6}_res-9", "T1w_res-8", "PhantomB_res-8")] == [
        [9.0] * 3,
        [8.0] * 3,
        [8.0] * 3,
    ]
    assert files[f"preproc_{NLIN6}_res-9"].name == f"sub-1_task-rest_space-{NLIN6}_res-9_desc-preproc_bold.nii.gz"
    assert "boldref_T1w_res-8" in files and "boldref_boldref" not in files


def test_the_head_lies_where_each_space_has_it(kept: Any) -> None:  # noqa: F811
    """The same head: moved by the field in a template space, at its own place in T1w space."""
    files = kept[1].files
    for label, shift in ((f"{NLIN6}_res-9", SHIFT), ("T1w_res-8", 0 * SHIFT), ("PhantomB_res-8", -SHIFT)):
        mask = read_volume(files[f"mask_{label}"])
        truth = tissues(mask.grid.points() + shift)["brain"].reshape(mask.data.shape) > 0.5
        found = mask.data > 0.5
        dice = 2 * (truth & found).sum() / (truth.sum() + found.sum())
        assert dice > 0.93, (label, dice)
        centre = mask.grid.points()[found.ravel()].mean(axis=0) + shift
        expected = mask.grid.points()[truth.ravel()].mean(axis=0) + shift
        assert np.linalg.norm(centre - expected) < 2.0  # SHIFT is 5.4 mm long, voxels 8


def test_a_space_at_the_output_resolution_agrees_with_the_template_series(kept: Any) -> None:  # noqa: F811
    """All spaces share one scale: the mean over the brain is the same wherever it is taken."""
    files = kept[1].files
    means = []
    for key in ("preproc", f"preproc_{NLIN6}_res-9", "preproc_T1w_res-8", "preproc_boldref"):
        data = np.asarray(nibabel.load(files[key]).dataobj)
        means.append(float(np.median(data.mean(axis=3)[data.any(axis=3)])))
    assert means[0] == pytest.approx(10000, rel=1e-3)
    assert np.ptp(means) < 400


def test_the_surface_pair_follows_the_template_series_and_says_how_it_was_made(kept: Any) -> None:  # noqa: F811
    files = kept[1].files
    left = read_surface(files["preproc_fsaverage5_L"])
    side = read_json(sidecar_of(files["preproc_fsaverage5_L"]))
    assert left.shape == (COUNT, 10242) and "preproc_fsaverage5_R" in files
    assert len(side["Interpolations"]) == 2 and 0.2 < side["CoveredVertices"] <= 1
    live = np.ptp(left, axis=0) > 0
    assert np.median(left[:, live].mean(axis=0)) == pytest.approx(10000, rel=0.15)  # the scale of the run


def test_surface_samples_are_those_of_a_linear_image(tmp_path: Path) -> None:
    """Trilinear sampling of an image linear in x gives x at the vertex; what the mask cuts off is not counted."""
    from boldmill.spaces.ribbon import ribbon_points

    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = [-88, -124, -72]
    shape = (45, 54, 45)
    index = np.indices(shape).astype(np.float64)
    x = affine[0, 0] * index[0] + affine[0, 3]
    mask = np.ones(shape, dtype=bool)
    rows = [(x + 100)[mask].astype(np.float32), (2 * x)[mask].astype(np.float32)]
    series, covered = on_fsaverage5(iter(rows), mask, affine, NLIN6)
    truth = ribbon_points(NLIN6, 5)[..., 0].mean(axis=0)
    assert covered.all() and series.shape == (2, 20484)
    assert np.abs(series[0] - (truth + 100)).max() < 1e-3 and np.abs(series[1] - 2 * truth).max() < 1e-3
    half = mask & (x < 0)
    rows = [np.full(int(half.sum()), 7.0, dtype=np.float32)]
    series, covered = on_fsaverage5(rows, half, affine, NLIN6)
    assert not covered[truth > 8].any() and covered[truth < -8].all()
    assert np.allclose(series[0][covered], 7.0) and not series[0][~covered].any()
