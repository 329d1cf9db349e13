"""Requests to stop: SIGTERM, or SIGUSR1, which a scheduler sends some time before its limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class _Listener:
    """A signal handler that only notes that it was called."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that a stop signal sets; the handlers of before are restored at the end.

    Inside another ``stop_signals`` it yields that one's event: the command listens from its start, so that a signal
    during its imports, or between two stages of a model, is not lost.
    """
    current = signal.getsignal(SIGNALS[0])
    if isinstance(current, _Listener):
        yield current.asked
        return
    listener = _Listener()
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread listen
        yield listener.asked
        return
    before = {number: signal.signal(number, listener) for number in SIGNALS}
    try:
        yield listener.asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
