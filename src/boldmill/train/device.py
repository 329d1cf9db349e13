"""Where a model runs, and how to make two runs on it give the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boldmill.errors import MachineFault
from boldmill.rng import key128


def pick_device(name: str) -> str:
    """Return a torch device name; ``auto`` is the GPU where there is one.

    Raises
    ------
    MachineFault
        A GPU was named and there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MachineFault("no GPU", f"--device {name}", "torch sees no CUDA device", "use --device cpu, or a GPU node")
    return name


@contextmanager
def environment(device: str, threads: int) -> Iterator[None]:
    """Set threads and deterministic kernels for a run and restore both after it.

    A kernel that has no deterministic form only warns, so that a run never fails for it.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first call
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    debug: Any = torch.utils.deterministic  # a module that sets its attribute by a class of its own
    filled = debug.fill_uninitialized_memory
    torch.set_num_threads(max(1, threads))
    torch.use_deterministic_algorithms(True, warn_only=True)
    debug.fill_uninitialized_memory = False  # a help in debugging that writes every array twice
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        debug.fill_uninitialized_memory = filled


def seed_step(*parts: str | int) -> None:
    """Seed torch's generators by what the draw belongs to (model, seed, step): nothing to save for a resume."""
    import torch

    torch.manual_seed(key128("torch", *parts) & (2**63 - 1))
