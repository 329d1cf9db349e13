import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boldmill.errors import DataFault
from boldmill.represent.config import AugmentConfig
from boldmill.represent.pfc import (
    GENERATOR_VERSION,
    check_length,
    drop_smallest,
    dropped_points,
    n_dropped,
    pfc_views,
    view_masks,
    view_words,
)
from boldmill.rng import key128

SCATTERED = AugmentConfig()
BLOCK = AugmentConfig(mode="block")


@pytest.fixture
def series() -> np.ndarray:
    rng = np.random.default_rng(2)
    shared = rng.standard_normal((130, 3)) @ rng.standard_normal((3, 12))
    return (500 + shared + rng.standard_normal((130, 12))).astype(np.float32)


def reference(series: np.ndarray, masks: np.ndarray) -> np.ndarray:
    upper = np.triu_indices(series.shape[1], 1)
    with np.errstate(all="ignore"):
        return np.stack([np.corrcoef(series[m].astype(np.float64), rowvar=False)[upper] for m in masks])


def test_words_are_the_documented_stream() -> None:
    """Word t of view k is word t of a Philox counter that starts at k * ceil(T / 4)."""
    key = key128("pfc", GENERATOR_VERSION, "demo_sub-01_task-rest", 7)
    for view in (0, 1, 6):
        alone = np.random.Philox(key=key, counter=view * 33).random_raw(130)
        assert np.array_equal(view_words(130, "demo_sub-01_task-rest", [view], 7)[0], alone)


def test_known_answers() -> None:
    """Pinned: a change here changes every stored view, and needs a new GENERATOR_VERSION."""
    assert GENERATOR_VERSION == 1
    assert dropped_points(20, "demo_sub-01_task-rest", [0, 1, 5], 7, SCATTERED).tolist() == KNOWN
    assert dropped_points(20, "demo_sub-01_task-rest", [0, 1, 5], 7, BLOCK)[:, 0].tolist() == KNOWN_STARTS


KNOWN = [[8, 10, 16, 17], [2, 7, 13, 17], [1, 8, 13, 17]]
KNOWN_STARTS = [7, 9, 4]


@given(st.integers(3, 400), st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.text(max_size=8))
def test_a_view_depends_on_nothing_but_its_name(timepoints: int, views: list[int], scan_id: str) -> None:
    together = view_words(timepoints, scan_id, views, 3)
    for row, view in zip(together, views, strict=True):
        assert np.array_equal(row, view_words(timepoints, scan_id, [view], 3)[0])


def test_views_scans_and_seeds_differ() -> None:
    masks = [view_masks(100, scan, [view], seed, SCATTERED)[0] for scan in "ab" for view in (0, 1) for seed in (1, 2)]
    assert len({m.tobytes() for m in masks}) == 8


@given(st.integers(1, 60), st.data())
def test_the_smallest_words_are_dropped_and_equal_ones_by_index(timepoints: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(0, timepoints))
    words = data.draw(st.lists(st.integers(0, 5), min_size=timepoints, max_size=timepoints))
    expected = sorted(sorted(range(timepoints), key=lambda t: (words[t], t))[:m])
    assert drop_smallest(np.array([words, words], dtype=np.uint64), m).tolist() == [expected] * 2


@given(st.integers(1, 3000), st.integers(1, 99), st.sampled_from(["scattered", "block"]))
def test_every_mask_drops_the_floor_of_the_rate(timepoints: int, percent: int, mode: str) -> None:
    cfg = AugmentConfig(drop_rate=percent / 100, mode=mode)
    m = percent * timepoints // 100  # the official formula, in integers
    assert n_dropped(timepoints, cfg.drop_rate) == m
    masks = view_masks(timepoints, "s", range(3), 1, cfg)
    assert masks.shape == (3, timepoints)
    assert (~masks).sum(axis=1).tolist() == [m] * 3


def test_a_block_is_contiguous_and_reaches_both_ends() -> None:
    dropped = dropped_points(20, "s", range(400), 1, AugmentConfig(mode="block", drop_rate=0.5))
    assert np.all(np.diff(dropped, axis=1) == 1)
    assert set(dropped[:, 0]) == set(range(11))


def test_points_are_dropped_evenly() -> None:
    share = 1 - view_masks(50, "s", range(4000), 1, SCATTERED).mean(axis=0)
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 4000)


@pytest.mark.parametrize("cfg", [SCATTERED, BLOCK], ids=["scattered", "block"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_views_are_the_correlation_of_the_kept_points(series: np.ndarray, cfg: AugmentConfig, kind: str) -> None:
    views = [4, 0, 1, 2, 90]
    given_series = series if kind == "numpy" else torch.from_numpy(series)
    found = pfc_views(given_series, "s", views, 9, cfg)
    assert type(found) is type(given_series)
    masks = view_masks(len(series), "s", views, 9, cfg)
    np.testing.assert_allclose(np.asarray(found), reference(series, masks), atol=2e-6)


def test_numpy_and_torch_agree(series: np.ndarray) -> None:
    found = pfc_views(series, "s", range(40), 9, SCATTERED)
    other = pfc_views(torch.from_numpy(series), "s", range(40), 9, SCATTERED)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, other.numpy(), atol=2e-6)


def test_blocks_of_views_change_nothing(series: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pfc_views(series, "s", range(7), 9, SCATTERED)
    monkeypatch.setattr("boldmill.represent.pfc.BLOCK_BYTES", 2 * 4 * 12 * 12)
    np.testing.assert_allclose(pfc_views(series, "s", range(7), 9, SCATTERED), whole, atol=1e-6)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_damaged_parcels_spoil_no_other_edge(series: np.ndarray, kind: str) -> None:
    series[:, 3] = np.nan
    series[:, 5] = 0.1
    masks = view_masks(len(series), "s", range(30), 9, SCATTERED)
    spike = int(np.argmin(masks.sum(axis=0)))  # dropped by many views
    series[:, 7] = 1e-4 * series[:, 7]
    series[spike, 7] = 1e6  # all its variance is in one point: the difference of sums has no digits left
    series[:, 9] = 0
    series[spike, 9] = 1  # constant in the views that drop the spike
    found = np.asarray(pfc_views(series if kind == "numpy" else torch.from_numpy(series), "s", range(30), 9, SCATTERED))
    expected = reference(series, masks)
    upper = np.stack(np.triu_indices(12, 1))
    dead = np.isin(upper, [3, 5]).any(axis=0)
    assert np.isnan(found[:, dead]).all()
    gone = ~masks[:, spike]
    assert 0 < gone.sum() < 30
    nine = (upper == 9).any(axis=0) & ~dead
    assert np.isnan(found[gone][:, nine]).all()
    assert np.isfinite(found[~gone][:, nine]).all()
    rest = ~dead & ~nine
    np.testing.assert_allclose(found[:, rest], expected[:, rest], atol=5e-6)


def test_nothing_dropped_is_the_whole_scan(series: np.ndarray) -> None:
    cfg = AugmentConfig(drop_rate=0.001)
    whole = reference(series, np.ones((1, len(series)), dtype=bool))
    np.testing.assert_allclose(pfc_views(series, "s", [0], 9, cfg), whole, atol=1e-6)


def test_a_short_scan_is_a_fault_of_the_data(series: np.ndarray) -> None:
    cfg = AugmentConfig(min_timepoints=30)
    check_length(37, cfg, "s")  # keeps 30
    with pytest.raises(DataFault, match=r"demo_sub-9.*keep 29 of 36.*min_timepoints"):
        pfc_views(series[:36], "demo_sub-9", [0], 1, cfg)


def test_negative_views_are_refused() -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        view_words(10, "s", [-1], 1)


def test_bytes_do_not_depend_on_threads(series: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boldmill.represent.pfc.BLOCK_BYTES", 3 * 4 * 12 * 12)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(pfc_views(series, "s", range(40), 9, SCATTERED))
    assert len({one.tobytes() for one in found}) == 1
    masks = view_masks(len(series), "s", range(40), 9, SCATTERED)
    np.testing.assert_allclose(found[0], reference(series, masks), atol=2e-6)


def test_large_blocks_of_a_gpu_change_nothing(series: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    small = pfc_views(torch.from_numpy(series), "s", range(40), 9, SCATTERED)
    monkeypatch.setattr("boldmill.represent.pfc.BLOCK_BYTES", 1 << 28)
    np.testing.assert_allclose(pfc_views(torch.from_numpy(series), "s", range(40), 9, SCATTERED), small, atol=1e-6)
