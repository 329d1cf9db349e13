"""The warning before a time limit (SIGUSR1), and who must survive it.

SLURM sends the signal of ``--signal=USR1@N`` to every process of every job step: to the Snakemake that runs the rule,
to its shell, to the launcher, to torchrun and to the ranks. Its default action is death, so all but the ranks ignore
it; an ignored signal stays ignored in every child that does not ask for it.
"""

from __future__ import annotations

import signal
import threading

WARNING = signal.SIGUSR1
"""Save and stop: what the job's own SLURM sends before its limit, and the launcher to its ranks."""


def ignore_warning() -> None:
    """Ignore :data:`WARNING` from now on, here and in the processes started from here."""
    if threading.current_thread() is threading.main_thread():  # elsewhere Python cannot set it
        signal.signal(WARNING, signal.SIG_IGN)
