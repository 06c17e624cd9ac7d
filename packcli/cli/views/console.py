"""Where messages go. Everything for people goes to stderr; stdout holds results for machines only (`print_json`)."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from packcli.errors import PackcliError, printable

PLAIN_WIDTH = 200
"""Columns of a log file; a terminal knows its own."""


class PipedConsole(Console):
    """A console that leaves the end of a pipe to the command line; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        """A pager that was left, or head."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def make_console() -> Console:
    """A console on stderr that honours NO_COLOR and never fails on a character that the terminal lacks."""
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="backslashreplace")
    return PipedConsole(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PLAIN_WIDTH)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, indent=1) + "\n")
    sys.stdout.flush()  # a closed pipe is noticed here, not at exit


def show_result(result: Any, show: Callable[[Console, Any], None], *, json_: bool, quiet: bool = False) -> None:
    """The end of a verb: its result for machines where asked for, and for people unless quiet."""
    if json_:
        print_json(result.as_dict())
    if not quiet:
        show(make_console(), result)


def show_error(console: Console, error: PackcliError) -> None:
    """What is wrong, and what to do about it."""
    console.print(f"[bold red]error:[/] {escape(clean(error.message))}")
    if error.hint:
        console.print(f"  {escape(clean(error.hint))}")


def show_interrupted(console: Console, command: list[str] | None) -> None:
    """One line, with the command that resumes, to be copied; None where nothing is to be resumed."""
    resume = "" if command is None else f": committed units are kept, resume with: {shlex.join(command)}"
    console.print(f"interrupted{escape(clean(resume))}", soft_wrap=True)


def show_warning(console: Console, message: str) -> None:
    """Something that the user should know, and that is no error."""
    console.print(f"[yellow]warning:[/] {escape(clean(message))}")


def clean(text: str) -> str:
    """Control characters of names and of text from strangers, made visible.

    Only a new line with our own indent is one: a name that holds a newline cannot begin a line.
    """
    lines = text.split("\n    ")
    return "\n    ".join(map(printable, lines))
