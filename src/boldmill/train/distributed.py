"""Training on several ranks (``torchrun``): the same steps as on one rank with the same global batch.

Axes: B scans of the global batch, b of one rank.

Each rank takes a slice of every global batch; views and masks are keyed by scan, so they do not change. A rank weighs
its losses with b / B, gradients and losses are then summed over the ranks in one flat all-reduce, and batch statistics
are those of the global batch (:mod:`boldmill.train.batch_norm`). A wrapper such as DistributedDataParallel would divide
by the number of ranks, which is wrong for unequal slices, and could not overlap much: the gradients of all blocks
arrive together. Every rank then does the same optimiser step on the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from boldmill.errors import ConfigError, MachineFault

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


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
    finally:
        dist.destroy_process_group()


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


def any_rank(flag: bool) -> bool:
    """Whether a flag is set on any rank; the answer is the same on all. Host memory only: no GPU waits for it."""
    if size() == 1:
        return flag
    import torch
    import torch.distributed as dist

    found = torch.tensor([float(flag)])
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found.item())


def from_first(value: Any) -> Any:
    """Return what the first rank gives: any JSON-like value."""
    if size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, device=_host())
    return box[0]


def same_on_all(value: int, what: str) -> None:
    """Raise :class:`MachineFault` where ranks differ in ``value``."""
    if any_rank(from_first(value) != value):
        raise MachineFault("ranks disagree", what, f"rank {rank()} of {size()} has {value}",
                           "give all ranks the same files (a shared file system)")  # fmt: skip


def wait_for_all() -> None:
    """Return when every rank has come here."""
    any_rank(False)


def _host() -> torch.device:
    import torch

    return torch.device("cpu")
