"""How a verb ends: errors, signals and closed pipes -> messages and exit codes.

Ctrl-C and SIGTERM: once drops the unit in hand and leaves within seconds, twice leaves at once.

A signal becomes an exception, so that temporary files go and workers are ended. Python runs handlers between two
steps of its own only; a thread watches for the case that a library works on for longer than GRACE_S.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from packcli.errors import PackcliError, StorageError

GRACE_S = 4.0
"""From the signal to the end, whatever a library does meanwhile."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ExitCodes:
    """Turns deliberate errors and errors of the system into messages and exit codes; bugs keep their traceback."""

    def __init__(self, debug: bool, *, resumes: bool = False) -> None:
        self._debug, self._resumes = debug, resumes
        self._signals = caught(self._say_interrupted)

    @property
    def console(self) -> Any:
        """The console; made when it is needed."""
        from packcli.cli.views.console import make_console

        return make_console()

    def __enter__(self) -> ExitCodes:
        self._signals.__enter__()
        return self

    def _say_interrupted(self) -> None:
        from packcli.cli.views.console import show_interrupted

        show_interrupted(self.console, ["packcli", *sys.argv[1:]] if self._resumes else None)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._signals.__exit__(None, None, None)
        try:
            self._end(error)
        except BrokenPipeError:
            _leave_pipe()

    def _end(self, error: BaseException | None) -> None:
        """Says what ended the verb, and exits."""
        if isinstance(error, BrokenPipeError):
            raise error
        if isinstance(error, OSError):
            error = storage_error(error)
        if isinstance(error, PackcliError) and not self._debug:
            from packcli.cli.views.console import show_error

            show_error(self.console, error)
            raise SystemExit(error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            self._say_interrupted()
            raise SystemExit(getattr(error, "exit_code", 130))


def storage_error(error: OSError) -> StorageError:
    """An error of the system as one of ours."""
    place = f"{error.filename}: " if error.filename else ""
    hint = "committed units are kept: the same command resumes"
    if error.errno == errno.ENOSPC:
        hint = f"free some space, or use another -o; {hint}"
    return StorageError(f"{place}{error.strerror or error}", hint)


def _leave_pipe() -> NoReturn:
    """Leaves as a program that SIGPIPE kills: 141, no traceback, not even from the interpreter's last flush."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    raise SystemExit(141)


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
