"""Slices of a batch, and batch statistics of one rank (of several: ``tests/unit/train/test_same_training.py``)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boldmill.errors import ConfigError
from boldmill.train import distributed
from boldmill.train.batch_norm import BatchNorm


def test_slices_cover_the_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 3)
    found = []
    for number in range(3):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        found.append(distributed.own(range(8)))
    assert [list(one) for one in found] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    with pytest.raises(ConfigError, match="2 scans, 3 ranks"):
        distributed.own([1, 2])


def test_one_rank_is_plain_batch_norm_bit_for_bit() -> None:
    torch.manual_seed(0)
    x, (ours, plain) = torch.randn(6, 4, requires_grad=True), (BatchNorm(4), nn.BatchNorm1d(4))
    for training in (True, False):
        found, expected = ours.train(training)(x), plain.train(training)(x)
        assert torch.equal(found, expected)
        assert torch.equal(*(torch.autograd.grad((y**3).sum(), x)[0] for y in (found, expected)))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), plain.buffers(), strict=True))
    assert ours.state_dict().keys() == plain.state_dict().keys()
