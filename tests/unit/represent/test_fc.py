import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.covariance import LedoitWolf

from boldmill.errors import DataFault
from boldmill.represent.fc import Estimator, correlation, fisher_z, n_edges, n_parcels, unvectorise, vectorise

ESTIMATORS = ("pearson", "ledoit_wolf", "partial")


@pytest.fixture
def series() -> np.ndarray:
    rng = np.random.default_rng(1)
    return 1000 + rng.standard_normal((60, 3)) @ rng.standard_normal((3, 8)) + rng.standard_normal((60, 8))


def test_pearson_is_that_of_numpy(series: np.ndarray) -> None:
    np.testing.assert_allclose(correlation(series), np.corrcoef(series, rowvar=False), atol=1e-13)


def test_float32_input_is_accumulated_in_float64(series: np.ndarray) -> None:
    single = series.astype(np.float32)  # a mean of 1000 costs float32 sums four digits
    expected = np.corrcoef(single.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(correlation(single), expected, atol=1e-13)


def test_batches_are_the_single_ones(series: np.ndarray) -> None:
    batch = np.stack([series[:40], series[20:]])
    for estimator in ESTIMATORS:
        both = correlation(batch, estimator=estimator)
        for one, alone in zip(both, batch, strict=True):
            np.testing.assert_allclose(one, correlation(alone, estimator=estimator), atol=1e-14)


def test_ledoit_wolf_is_that_of_sklearn(series: np.ndarray) -> None:
    z = (series - series.mean(0)) / series.std(0)
    covariance = LedoitWolf(store_precision=False).fit(z).covariance_
    scale = 1 / np.sqrt(np.diag(covariance))
    found = correlation(series, estimator="ledoit_wolf")
    np.testing.assert_allclose(found, covariance * scale[:, None] * scale, atol=1e-13)
    assert np.all(np.diag(found) == 1)


@pytest.mark.parametrize(("estimator", "kind"), [("ledoit_wolf", "correlation"), ("partial", "partial correlation")])
@pytest.mark.parametrize("volumes", [60, 7])
def test_shrunk_and_partial_are_those_of_nilearn(
    series: np.ndarray, estimator: Estimator, kind: str, volumes: int
) -> None:
    """7 volumes of 8 parcels: only the shrunk estimate has an inverse."""
    from nilearn.connectome import ConnectivityMeasure

    z = (series[:volumes] - series[:volumes].mean(0)) / series[:volumes].std(0)  # its own zscore takes the sample SD
    measure = ConnectivityMeasure(cov_estimator=LedoitWolf(store_precision=False), kind=kind, standardize=False)
    (expected,) = measure.fit_transform([z])
    found = correlation(series[:volumes], estimator=estimator)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(found - correlation(series[:volumes])).max() > 0.05  # and no plain correlation


def test_partial_regresses_the_other_parcels_out() -> None:
    """Closed form: in a chain a -> b -> c, a and c correlate, but not once b is known."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal(200_000)
    b = a + rng.standard_normal(len(a))
    chain = np.stack([a, b, b + rng.standard_normal(len(a))], axis=1)
    assert correlation(chain)[0, 2] == pytest.approx(1 / np.sqrt(3), abs=0.01)
    partial = correlation(chain, estimator="partial")
    assert partial[0, 2] == pytest.approx(0, abs=0.01)
    assert partial[0, 1] == pytest.approx(1 / 2, abs=0.01)  # the precision is [[2, -1, 0], [-1, 2, -1], [0, -1, 1]]
    assert partial[1, 2] == pytest.approx(1 / np.sqrt(2), abs=0.01)


def test_fisher_z_is_undone_by_tanh_and_stays_finite() -> None:
    r = np.array([-1.0, -0.5, 0.0, 0.98, 1.0, np.nan])
    z = fisher_z(r)
    np.testing.assert_allclose(np.tanh(z), [-0.999, -0.5, 0, 0.98, 0.999, np.nan], atol=1e-15)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_nan_and_constant_parcels_are_nan_and_spoil_no_other(series: np.ndarray, estimator: str) -> None:
    damaged = series.copy()
    damaged[5, 2] = np.nan
    damaged[:, 6] = 0.1  # its float64 variance is not exactly zero
    found = correlation(damaged, estimator=estimator)
    good = [0, 1, 3, 4, 5, 7]
    assert np.isnan(found[[2, 6]]).all()
    assert np.isnan(found[:, [2, 6]]).all()
    np.testing.assert_allclose(
        found[np.ix_(good, good)], correlation(damaged[:, good], estimator=estimator), atol=1e-13
    )


def test_identical_parcels_stay_within_one() -> None:
    series = np.random.default_rng(0).standard_normal((50, 1)).repeat(4, axis=1) * [1, 2, -3, 1e-5]
    found = correlation(series)
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(np.abs(found), 1, atol=1e-12)


def test_too_few_points_are_a_fault_of_the_data() -> None:
    with pytest.raises(DataFault, match=r"sub-7.*fewer than 3"):
        correlation(np.zeros((2, 4)), where="sub-7")


@given(
    st.integers(2, 9).flatmap(lambda p: arrays(np.float32, (3, p * (p - 1) // 2), elements=st.floats(-1, 1, width=32)))
)
def test_vectorise_inverts_unvectorise(edges: np.ndarray) -> None:
    matrix = unvectorise(edges)
    assert np.array_equal(matrix, matrix.mT)
    assert np.all(np.einsum("bii->bi", matrix) == 1)
    assert np.array_equal(vectorise(matrix), edges)
    assert matrix.dtype == edges.dtype


def test_order_of_edges_is_row_by_row() -> None:
    assert vectorise(np.arange(16.0).reshape(4, 4)).tolist() == [1, 2, 3, 6, 7, 11]


def test_unvectorise_keeps_missing_parcels_missing(series: np.ndarray) -> None:
    series[:, 3] = np.nan
    found = correlation(series)
    assert np.array_equal(unvectorise(vectorise(found)), found, equal_nan=True)


@given(st.integers(1, 2000))
def test_numbers_of_edges_and_parcels(parcels: int) -> None:
    assert n_edges(parcels) == len(np.triu_indices(parcels, 1)[0]) if parcels < 50 else n_edges(parcels) > parcels
    assert parcels < 2 or n_parcels(n_edges(parcels)) == parcels


def test_no_triangle_is_refused() -> None:
    with pytest.raises(ValueError, match="7 values"):
        n_parcels(7)
