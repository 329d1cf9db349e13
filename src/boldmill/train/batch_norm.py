"""Batch normalisation over the global batch of all ranks; with one rank it is ``torch.nn.BatchNorm1d`` bit for bit.

Axes: B batch of this rank, D channels.

torch's SyncBatchNorm runs on GPUs alone. Gradients of weight and bias are those of this rank's rows: they are summed
with all others (:func:`boldmill.train.distributed.sum_over_ranks`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from boldmill.train.distributed import size


class BatchNorm(nn.BatchNorm1d):
    """``BatchNorm1d`` whose statistics in training are those of all ranks' rows together."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        if not self.training or size() == 1:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        y: Tensor
        y, mean, variance, count = _GlobalNorm.apply(x.to(self.weight.dtype), self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        return y.to(x.dtype)


class _GlobalNorm(torch.autograd.Function):
    """Normalise by mean and (biased) variance over all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = torch.cat([x.sum(0), x.new_tensor([len(x)])])
        dist.all_reduce(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        squares = (x - mean).square().sum(0)
        dist.all_reduce(squares)
        variance = squares / count
        scale = torch.rsqrt(variance + eps)
        normal = (x - mean) * scale
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normal * weight + bias, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        normal, weight, scale, count = ctx.saved_tensors
        d_bias, d_weight = grad.sum(0), (grad * normal).sum(0)
        sums = torch.stack([d_bias, d_weight])
        dist.all_reduce(sums)
        mean, along = sums / count
        return weight * scale * (grad - mean - normal * along), d_weight, d_bias, None
