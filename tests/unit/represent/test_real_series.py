"""FC and pFC on real series: another pipeline's own Pearson matrix, and ABIDE with its missing regions."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from boldmill.errors import DataFault
from boldmill.represent.config import AugmentConfig
from boldmill.represent.fc import correlation
from boldmill.represent.pfc import pfc_views, view_masks

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def data() -> Path:
    default = Path(__file__).parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("BOLDMILL_TEST_DATA", default))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real test data are missing: {folder}")
        pytest.skip(f"real test data are missing: {folder} (set BOLDMILL_TEST_DATA)")
    return folder


def test_pearson_is_that_of_halfpipe(data: Path) -> None:
    (matrix,) = (data / "derivatives" / "ds000030_halfpipe").rglob("*_desc-correlation_matrix.tsv")
    series = matrix.with_name(matrix.name.replace("desc-correlation_matrix", "timeseries"))
    expected = np.genfromtxt(matrix)
    found = correlation(np.genfromtxt(series))
    missing = np.isnan(found).all(axis=0)
    assert 12 <= missing.sum() <= 28
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_views_of_real_series(data: Path) -> None:
    """Real series: strong autocorrelation, 111 regions, one of them all zero in many people, 78 to 316 volumes."""
    cfg = AugmentConfig(min_timepoints=60)
    lengths = set()
    empty = 0
    with np.load(data / "timeseries" / "abide_ho111_cpac_filt_noglobal.npz") as archive:
        names = [name for name in archive.files if not name.startswith("__")]
        for name in names[::35]:
            series = archive[name].astype(np.float32)
            if len(series) not in lengths:
                lengths.add(len(series))
                masks = view_masks(len(series), name, range(4), 3, cfg)
                found = pfc_views(series, name, range(4), 3, cfg)
                upper = np.triu_indices(series.shape[1], 1)
                with np.errstate(all="ignore"):
                    kept = [np.corrcoef(series[m].astype(np.float64), rowvar=False)[upper] for m in masks]
                np.testing.assert_allclose(found, np.stack(kept), atol=5e-6)
                np.testing.assert_allclose(
                    pfc_views(torch.from_numpy(series), name, range(4), 3, cfg), found, atol=5e-6
                )
                empty += bool(np.isnan(found).any())
    assert len(lengths) > 5
    assert empty
    with pytest.raises(DataFault, match="too short"):
        pfc_views(series[:70], name, [0], 3, cfg)
