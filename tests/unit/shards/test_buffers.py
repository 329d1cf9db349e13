"""Memory of batches is used again, but never while a tensor refers to it."""

import numpy as np
import torch

from boldmill.shards import buffers
from boldmill.shards.buffers import KEEP, Pool, batch_buffer

MIB = 1 << 20


def test_a_buffer_in_use_is_not_given_out() -> None:
    pool = Pool()
    first = torch.from_numpy(pool.take(64)).view(torch.float16).view(4, 8)
    place, row = first.data_ptr(), first[2]
    del first  # a row still refers to the memory
    second = torch.from_numpy(pool.take(64))
    assert second.data_ptr() != place
    second.fill_(7)
    row.fill_(1)
    assert (second == 7).all() and (row == 1).all()


def test_a_buffer_nobody_refers_to_is_used_again() -> None:
    pool = Pool()
    tensor = torch.from_numpy(pool.take(64))
    place = tensor.data_ptr()
    del tensor
    assert torch.from_numpy(pool.take(64)).data_ptr() == place
    assert len(pool.take(128)) == 128  # another size


def test_no_more_buffers_than_that_are_kept() -> None:
    pool = Pool()
    held = [pool.take(64) for _ in range(3 * KEEP)]
    assert len({buffer.ctypes.data for buffer in held}) == 3 * KEEP
    assert len(pool._kept) == KEEP


def test_batches_of_any_dtype(monkeypatch) -> None:
    monkeypatch.setattr(buffers, "POOL", Pool())
    for dtype, kind in (("<f2", torch.float16), ("|i1", torch.int8), ("<f4", torch.float32)):
        for rows in (1, 2 * MIB // np.dtype(dtype).itemsize):
            tensor = batch_buffer((rows, 3), dtype, pin=False)
            assert (tensor.dtype, tuple(tensor.shape)) == (kind, (rows, 3))
            assert tensor.is_contiguous()
