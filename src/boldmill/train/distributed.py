"""Training on several ranks (``torchrun``): the same steps as on one rank with the same global batch.

Axes: B samples of the global batch, b of one rank.

Each rank takes a slice of every global batch; views and masks are keyed by scan, so they do not change. A rank gives
its share of the losses (:mod:`boldmill.train.shares`), gradients and losses are then summed over the ranks in one flat
all-reduce, and batch statistics are those of the global batch (:mod:`boldmill.train.batch_norm`). Every rank then does
the same optimiser step on the same numbers.

DistributedDataParallel is not used. It divides by the number of ranks, which is wrong for unequal slices and for means
over labels or pixels; it knows nothing of batch statistics; and it could hide little: the backward pass of BrainMass's
blocks is one operation, whose gradients arrive together. Sharding of weights (FSDP) is not built: no model here needs
it. Weights, gradients and both moments of the largest, fMRI-MAE B (99.7 million parameters), are 1.6 GB on each rank.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from boldmill.errors import BoldmillError, ConfigError, MachineFault

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


class Elsewhere(BoldmillError):
    """An error of all ranks, which the first one tells: the others end with it in silence."""


def launched() -> int:
    """Return the number of ranks that ``torchrun`` started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def ranks(device: str) -> Iterator[str]:
    """Join the other ranks and leave them at the end; yields this rank's device.

    Parameters
    ----------
    device : str
        Torch device; ``cuda`` becomes ``cuda:<local rank>``.

    Raises
    ------
    MachineFault
        The ranks cannot reach each other, or a node has fewer GPUs than ranks.
    """
    if launched() == 1:
        yield device
        return
    import torch
    import torch.distributed as dist

    cuda = device.startswith("cuda")
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise MachineFault("too few GPUs", f"local rank {local}", f"torch sees {torch.cuda.device_count()}",
                               "start one rank per GPU: torchrun --nproc-per-node <GPUs>")  # fmt: skip
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise MachineFault(
            "ranks cannot reach each other", "torchrun", why, "check MASTER_ADDR and MASTER_PORT"
        ) from error
    try:
        yield device
    except RuntimeError as error:
        if not _is_of_peers(error):
            raise
        why = " ".join(str(error).split())[:200]
        raise MachineFault("lost another rank", f"rank {rank()} of {size()}", why, "look for the first error of a rank "
                           "in the log; the same command goes on from the last saved state") from error  # fmt: skip
    finally:
        dist.destroy_process_group()


def _is_of_peers(error: RuntimeError) -> bool:
    """Whether an error says that another rank cannot be reached: a type of its own (NCCL), or words (gloo)."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def rank() -> int:
    """Return this rank's number, 0 where there is one rank."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """Return the number of ranks."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this rank writes files and shows progress."""
    return rank() == 0


def own(items: Sequence[T]) -> Sequence[T]:
    """Return this rank's slice of a global batch; slices differ by one item at most.

    Raises
    ------
    ConfigError
        There are fewer items than ranks.
    """
    number, count = rank(), size()
    if len(items) < count:
        raise ConfigError("fewer scans in a step than ranks", "torchrun", f"{len(items)} scans, {count} ranks",
                          "start fewer ranks, or raise the batch")  # fmt: skip
    whole, rest = divmod(len(items), count)
    start = number * whole + min(number, rest)
    return items[start : start + whole + (number < rest)]


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Sum tensors over the ranks in place, in one message; nothing with one rank."""
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([one.detach().reshape(-1) for one in tensors])
    dist.all_reduce(flat)
    for one, total in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
        one.copy_(total.view(one.shape))


def any_rank(*flags: bool) -> list[bool]:
    """Return which flags are set on any rank: the same on all, in one message. Host memory only: no GPU waits."""
    if size() == 1:
        return list(flags)
    import torch
    import torch.distributed as dist

    found = torch.tensor([float(flag) for flag in flags])
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [bool(value) for value in found.tolist()]


def count_over_ranks(number: int) -> int:
    """Return the sum of a count over the ranks; host memory only."""
    if size() == 1:
        return number
    import torch
    import torch.distributed as dist

    total = torch.tensor([number], dtype=torch.int64)
    dist.all_reduce(total)
    return int(total.item())


def from_first(value: Any) -> Any:
    """Return what the first rank gives: any JSON-like value."""
    if size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, device=_host())
    return box[0]


def told_once(error: BoldmillError) -> BoldmillError:
    """Return an error that all ranks raise: itself on the first, which tells it; :class:`Elsewhere` on the others."""
    return error if is_first() else Elsewhere(error.what, error.where, error.why, error.fix)


def on_first(do: Callable[[], object]) -> None:
    """Do something on the first rank while the others wait; where it fails all ranks fail, and the first tells why."""
    fault: BaseException | None = None
    if is_first():
        try:
            do()
        except (BoldmillError, OSError) as error:
            fault = error
    if any_rank(fault is not None)[0]:
        raise fault or Elsewhere("the first rank failed", f"rank {rank()}", "it says why", "see its message")


def _host() -> torch.device:
    import torch

    return torch.device("cpu")
