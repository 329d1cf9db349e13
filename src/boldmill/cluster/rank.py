"""One rank under the launcher: the command itself, its process id, and a note where it was asked to stop.

torchrun ends all ranks as soon as one exits with anything but 0, so a rank that saved and stopped leaves a note in the
launcher's folder and exits with 0; the launcher reads the note.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from boldmill.cluster.signals import ignore_warning

FOLDER = "BOLDMILL_LAUNCH"
"""Environment variable with the launcher's folder."""
INTERRUPTED = "interrupted"
"""Its note that a rank saved and stopped."""


def main(words: Sequence[str]) -> int:
    """Run ``boldmill <words>`` and return its exit status, 0 for a rank that stopped on request."""
    ignore_warning()  # until the training loop listens
    from boldmill.cli import main as boldmill
    from boldmill.train.command import EXIT_INTERRUPTED

    folder = Path(os.environ[FOLDER])
    own = folder / f"{socket.gethostname()}-{os.getpid()}"
    own.touch()
    try:
        status = boldmill(words)
    finally:
        own.unlink(missing_ok=True)
    if status == EXIT_INTERRUPTED:
        (folder / INTERRUPTED).touch()
        return 0
    return status


def processes(folder: Path) -> list[int]:
    """Return the process ids of the ranks that run on this machine."""
    mine = f"{socket.gethostname()}-"
    return [int(path.name.removeprefix(mine)) for path in folder.glob(f"{mine}*")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
