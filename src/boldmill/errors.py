"""The one error family: every message says what failed, where, why, and how to fix it.

Two kinds matter to the workflow. A :class:`DataFault` is a fault of the data: the scan is quarantined
with its reason, the job succeeds, and everything else goes on. Any other error is a fault of the
configuration or of the machine: the job fails and may be retried.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3
"""Everything ran, but at least one scan is in the quarantine table (`boldmill status`)."""
EXIT_PIPE = 141
"""Whoever read the output went away; shells give this number to a program that SIGPIPE ended."""


class BoldmillError(Exception):
    """One line a person can act on.

    Parameters
    ----------
    what : str
        What could not be done, e.g. ``"cannot read BOLD image"``.
    where : str or Path
        The file, config key or scan it concerns.
    why : str
        The cause, as measured.
    fix : str
        What the reader should do next.
    """

    def __init__(self, what: str, where: str | Path, why: str, fix: str) -> None:
        self.what, self.where, self.why, self.fix = what, str(where), why, fix
        super().__init__(what, str(where), why, fix)

    def __str__(self) -> str:
        return " ".join(f"{self.what}: {self.where}: {self.why}. Fix: {self.fix}".split())


class ConfigError(BoldmillError):
    """The configuration is wrong; nothing was run."""


class DataFault(BoldmillError):
    """A fault of one scan or subject: it is quarantined and everything else goes on."""


class MachineFault(BoldmillError):
    """A fault of the machine (memory, disk, a missing tool): the job fails and is retried."""


class LeakageError(BoldmillError):
    """A test subject was seen in training: refused, never worked around."""


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Errors that are about the disk, not about what is written."""


def disk_fault(error: Exception, where: str | Path) -> MachineFault | None:
    """Return the fault of a full or failing disk in words, or None for any other error.

    Libraries that write by themselves (safetensors) raise errors of their own that only quote the system's.
    """
    if isinstance(error, OSError) and error.errno in DISK:
        why, where = error.strerror or str(error), error.filename or where
    elif any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
        why = " ".join(str(error).split())
    else:
        return None
    return MachineFault("cannot write", where, why, "free space there (`boldmill clean`), then rerun")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest valid name, or an empty string.

    >>> nearest("band_pas", ["band_pass", "order"])
    " (did you mean 'band_pass'?)"
    """
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
