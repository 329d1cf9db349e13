from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from boldmill.errors import DataFault
from boldmill.represent.operators import membership
from boldmill.represent.parallel import each, one_blas_thread, pieces, workers
from boldmill.represent.project import Projector, apply, columns_of, gather
from boldmill.represent.series import Series

RNG = np.random.default_rng(3)
THREADS = "OMP_NUM_THREADS"


def _operator(rows: int = 40, elements: int = 300, density: float = 0.05) -> csr_array:
    matrix = csr_array(random_array((rows, elements), density=density, rng=RNG, dtype=np.float32))
    matrix.sort_indices()
    return matrix


@given(st.integers(1, 50), st.integers(1, 300), st.integers(1, 90), st.booleans())
def test_same_as_a_dense_product(rows: int, elements: int, frames: int, exact: bool) -> None:
    operator = _operator(rows, elements, 0.1)
    block = RNG.standard_normal((elements, frames)).astype(np.float32)
    expected = operator.toarray().astype(np.float64) @ block
    for given_block in (block, np.asfortranarray(block)):
        found = apply(operator, given_block, exact=exact)
        assert found.dtype == (np.float64 if exact else np.float32) and found.shape == (rows, frames)
        np.testing.assert_allclose(found, expected, atol=1e-12 if exact else 2e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_bytes_do_not_depend_on_threads_blocks_or_order_of_memory(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = _operator(5000, 20000, 0.002)
    block = (1000 + RNG.standard_normal((20000, 130))).astype(np.float32)
    project = Projector(operator, exact=exact)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv(THREADS, threads)
        found += [project(block), project(np.asfortranarray(block))]
        found.append(np.concatenate([project(block[:, part]) for part in pieces(130, 17)], axis=1))
        found.append(np.concatenate([project(block[:, t : t + 1]) for t in range(130)], axis=1))
    assert len({np.ascontiguousarray(one).tobytes() for one in found}) == 1


def test_sums_of_a_large_parcel_keep_small_changes_on_a_large_mean() -> None:
    values = (1000 + RNG.standard_normal((4000, 50))).astype(np.float32)
    operator = membership(np.ones(4000, np.int64), [1])
    truth = values.astype(np.float64).sum(0)
    assert np.abs(apply(operator, values, exact=True)[0] - truth).max() < 1e-8 * truth.max()
    assert np.abs(apply(operator, values)[0] - truth).max() > 1e-8 * truth.max()  # why exact is there


def test_elements_without_data_do_not_count_and_their_values_are_not_read() -> None:
    operator = _operator()
    mask = RNG.random(300) > 0.4
    frames = RNG.standard_normal((20, 300)).astype(np.float32)
    frames[:, ~mask] = np.nan
    expected = operator.toarray().astype(np.float64)[:, mask] @ frames.T[mask]
    for by_row in (False, True):
        columns = columns_of(operator, mask, by_row=by_row)
        assert sorted(columns) == sorted(set(operator.indices) & set(np.flatnonzero(mask)))
        block = gather(frames, columns)
        assert block.flags.f_contiguous and np.array_equal(block, frames.T[columns])
        for exact in (False, True):
            np.testing.assert_allclose(Projector(operator, columns, exact=exact)(block), expected, atol=1e-5)


def test_elements_picked_on_the_way_give_the_same_bytes() -> None:
    operator = _operator(700, 9000, 0.01)
    mask = RNG.random(9000) > 0.4
    frames = (1000 + RNG.standard_normal((70, 9000))).astype(np.float32)
    frames[:, ~mask] = np.nan
    columns = columns_of(operator, mask)
    for exact in (False, True):
        expected = Projector(operator, columns, exact=exact)(gather(frames, columns))
        pick = Projector(operator, columns, exact=exact, pick=True)
        for whole in (frames.T, np.ascontiguousarray(frames.T)):
            assert np.array_equal(pick(whole), expected)
        np.testing.assert_allclose(pick(torch.from_numpy(frames).T).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_a_series_is_projected_the_same_whole_or_by_elements(exact: bool) -> None:
    operator, mask = _operator(), RNG.random(300) > 0.3
    frames = RNG.standard_normal((11, 300)).astype(np.float32)
    frames[:, ~mask] = np.inf
    shared = {"where": Path("run.nii"), "n_volumes": 11, "mask": mask}

    def whole() -> Iterator[np.ndarray]:
        yield from (frames[:4].T, frames[4:].T)

    by_element = Series(**shared, read=lambda c: iter([frames[:4].T[c], frames[4:].T[c]]))
    in_place = Series(**shared, read=by_element.read, whole=whole)
    found = by_element.through(operator, exact=exact)
    assert found.shape == (40, 11) and found.dtype == (np.float64 if exact else np.float32)
    assert np.array_equal(found, in_place.through(operator, exact=exact))
    np.testing.assert_allclose(found, operator.toarray()[:, mask] @ frames.T[mask], atol=1e-5)
    used = int(np.flatnonzero(mask & (np.asarray(operator.sum(0)) != 0))[0])
    for value in (np.nan, np.inf):
        frames[6, used] = value
        for series in (by_element, in_place):
            with pytest.raises(DataFault, match=r"volume 6 .*not finite"):
                series.through(operator, exact=exact)


def test_parcels_lie_side_by_side_by_row_and_the_order_of_columns_changes_no_byte() -> None:
    labels = RNG.integers(0, 6, 500)
    operator = membership(labels, [1, 2, 3, 4, 5])
    mask = RNG.random(500) > 0.2
    rising, by_row = columns_of(operator, mask), columns_of(operator, mask, by_row=True)
    assert (np.diff(rising) > 0).all() and (np.diff(labels[by_row]) >= 0).all()
    frames = (1000 + RNG.standard_normal((9, 500))).astype(np.float32)
    one, other = (Projector(operator, c, exact=True)(gather(frames, c)) for c in (rising, by_row))
    assert np.array_equal(one, other)


def test_rows_without_elements_are_zero() -> None:
    operator = csr_array(np.array([[0, 0, 0], [1, 2, 0], [0, 0, 0], [0, 0, 3], [0, 0, 0]], np.float32))
    block = np.array([[1.0, 2], [3, 4], [5, 6]], np.float32)
    for exact in (False, True):
        assert apply(operator, block, exact=exact).tolist() == [[0, 0], [7, 10], [0, 0], [15, 18], [0, 0]]
        assert apply(csr_array((4, 3), dtype=np.float32), block, exact=exact).tolist() == [[0, 0]] * 4


def test_a_view_of_a_larger_array_is_filled() -> None:
    operator = _operator()
    block = RNG.standard_normal((300, 12)).astype(np.float32)
    for exact in (False, True):
        whole = np.full((40, 30), np.nan, np.float32)
        returned = apply(operator, block, out=whole[:, 5:17], exact=exact)
        assert np.shares_memory(returned, whole) and np.isnan(whole[:, [4, 17]]).all()
        np.testing.assert_allclose(whole[:, 5:17], operator @ block, atol=1e-5)


def test_a_torch_device_gives_the_same_and_a_tensor_stays_a_tensor() -> None:
    operator = _operator()
    block = RNG.standard_normal((300, 12)).astype(np.float32)
    for exact in (False, True):
        expected = apply(operator, block, exact=exact)
        tensor = apply(operator, torch.from_numpy(block), exact=exact)
        assert isinstance(tensor, torch.Tensor) and tensor.dtype == (torch.float64 if exact else torch.float32)
        np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-5)
        whole = np.zeros((40, 20), np.float32)
        assert np.shares_memory(apply(operator, block, out=whole[:, 3:15], exact=exact, device="cpu:0"), whole)
        np.testing.assert_allclose(whole[:, 3:15], expected, atol=1e-5)


def test_threads_are_those_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "3")
    assert workers() == 3
    seen: set[str] = set()
    barrier = threading.Barrier(3, timeout=20)  # passes only if three calls run at once

    def work(item: int) -> None:
        barrier.wait()
        seen.add(threading.current_thread().name)

    each(work, range(3))
    assert len(seen) == 3
    monkeypatch.setenv(THREADS, "1")
    each(lambda item: seen.add(threading.current_thread().name), range(3))
    assert threading.main_thread().name in seen
    for odd in ("", "x", "0"):
        monkeypatch.setenv(THREADS, odd)
        assert workers() >= 1


def test_an_error_of_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "2")

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("piece 3")

    with pytest.raises(ValueError, match="piece 3"):
        each(work, range(5))


def test_blas_is_held_to_one_thread_until_the_last_caller_is_out() -> None:
    from threadpoolctl import threadpool_info

    def count() -> int:
        return max(item["num_threads"] for item in threadpool_info() if item["user_api"] == "blas")

    before = count()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    assert count() == 1
    second.__enter__()
    first.__exit__(None, None, None)
    assert count() == 1
    second.__exit__(None, None, None)
    assert count() == before
