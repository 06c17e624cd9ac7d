"""How a verb ends: errors, signals and closed pipes -> messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, NoReturn

from packcli import signals
from packcli.errors import PackcliError, StorageError


class Ending:
    """Turns deliberate errors and errors of the system into messages and exit codes; bugs keep their traceback."""

    def __init__(self, debug: bool, *, resumes: bool = False) -> None:
        self._debug, self._resumes = debug, resumes
        self._signals = signals.caught(self._say_interrupted)

    @property
    def console(self) -> Any:
        """The console; made when it is needed."""
        from packcli import console

        return console.make_console()

    def __enter__(self) -> Ending:
        self._signals.__enter__()
        return self

    def _say_interrupted(self) -> None:
        from packcli import console

        console.show_interrupted(self.console, ["packcli", *sys.argv[1:]] if self._resumes else None)

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
            from packcli import console

            console.show_error(self.console, error)
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
