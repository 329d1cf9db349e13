"""Counter-based randomness keyed by what it belongs to (scan id, view, seed), never by worker or order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def key128(*parts: str | int) -> int:
    """Return a stable 128-bit key of a sequence of strings and integers.

    Parts are length-prefixed and typed, so ``("a", "bc")`` and ``("ab", "c")``, or ``1`` and ``"1"``,
    never collide.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = f"{type(part).__name__[0]}{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little")


def generator(*parts: str | int) -> np.random.Generator:
    """Return a Philox generator (counter-based) keyed by ``parts``.

    >>> a = generator("sub-01", 3, 7).random(2); b = generator("sub-01", 3, 7).random(2)
    >>> bool((a == b).all())
    True
    """
    import numpy as np

    return np.random.Generator(np.random.Philox(key=key128(*parts)))


def bucket_of(dataset: str, subject: str, n_buckets: int) -> int:
    """Return the shard bucket of a subject: a stable hash, so adding a subject changes one bucket only."""
    return key128("bucket", dataset, subject) % n_buckets
