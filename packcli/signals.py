"""Ctrl-C and SIGTERM: once drops the unit in hand and leaves within seconds, twice leaves at once.

A signal becomes an exception, so that temporary files go and workers are ended. Python runs handlers between two
steps of its own only; a thread watches for the case that a library works on for longer than GRACE_S.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GRACE_S = 4.0
"""From the signal to the end, whatever a library does meanwhile."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(KeyboardInterrupt):
    """A signal asked the run to end; `exit_code` is what a shell expects."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextlib.contextmanager
def caught(last_words: Callable[[], None]) -> Iterator[None]:
    """Raises InterruptedRunError in the main thread at the first signal; a second one ends the process.

    Args:
        last_words: Called by the watching thread before it ends a process that does not end itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # as when a test calls the command line from a thread: handlers belong to the main one
        return
    taken = False

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal taken
        if taken:
            os._exit(128 + number)
        taken = True
        raise InterruptedRunError(number)

    reading, writing = socket.socketpair()  # as Windows wants it, where a pipe always blocks
    writing.setblocking(False)
    before = {number: signal.signal(number, take) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reading, done, last_words), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        done.set()
        writing.close()  # wakes the watcher, which closes the other end
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(reading: socket.socket, done: threading.Event, last_words: Callable[[], None]) -> None:
    """Waits for the number of a signal, then GRACE_S for the end or another signal."""
    try:
        while True:
            numbers = reading.recv(1)
            if not numbers:
                return
            if numbers[0] in SIGNALS:
                break
        if not done.wait(GRACE_S):
            last_words()
            os._exit(128 + numbers[0])
    finally:
        reading.close()
