"""Every error that packcli raises on purpose, with its exit code.

    PackcliError                     1   (the base: never raised itself)
      UsageError                     2   an option, a name or a combination is wrong
        UnknownNameError             2   a strategy, column, ... that is not known; names the nearest
        NoInputError                 2   nothing to read: no file, no match, no document
        FieldError                   2   the text field is missing, ambiguous or of the wrong type
        TokenizerError               2   not a tokenizer, or one that lacks what the run needs
        OutputError                  2   the output directory holds files of others
      MismatchError                  3   an unfinished or finished output belongs to another run
      UnfinishedError                3   units of the output are not done yet
      BadRowError                    4   a row of the input cannot be used
      LockedError                    5   another packcli writes to this output now
      StorageError                   6   a file is damaged, the disk is full, permission is denied
      EngineError                    1   the fast tokenizer engine gave other ids than the reference

130, 143 and 141 are the signals INT, TERM and PIPE. Any other exception is a bug and keeps its traceback. A message
says what is wrong and where; its `hint` says which option helps.

Also here: the nearest of several names, and text of unknown origin made safe to print.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PackcliError(Exception):
    """Base of all deliberate errors.

    Args:
        message: What is wrong, and where (`file:line` for a row).
        hint: What to do about it, with the name of the option.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(PackcliError):
    """An option, a name or a combination of them is wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not known, such as that of a strategy; see `unknown_name`."""


class NoInputError(UsageError):
    """Nothing to read: no such file, no match, or no document in any of them."""


class FieldError(UsageError):
    """The field that holds the text is missing, ambiguous, or not text."""


class TokenizerError(UsageError):
    """Not a tokenizer, or a tokenizer that lacks what the run needs."""


class OutputError(UsageError):
    """The output directory holds something that packcli did not write."""


class MismatchError(PackcliError):
    """The output belongs to a run with another fingerprint."""

    exit_code = 3


class UnfinishedError(PackcliError):
    """Units of the output are not done: it cannot be finished."""

    exit_code = 3


class BadRowError(PackcliError):
    """A row of the input cannot be read or holds no text; or too many of them were skipped.

    Args:
        message: What is wrong, and where.
        hint: What to do about it.
        cause: A key of bad_rows.CAUSES.
        what: What is wrong, without where.
    """

    exit_code = 4

    def __init__(self, message: str, hint: str = "", *, cause: str = "", what: str = "") -> None:
        super().__init__(message, hint)
        self.cause = cause
        self.what = what or message


class LockedError(PackcliError):
    """Another process writes to this output."""

    exit_code = 5


class StorageError(PackcliError):
    """A damaged file, a full disk, or a missing permission."""

    exit_code = 6


class EngineError(PackcliError):
    """The fast engine gave other ids than `tokenizers`: the output would be wrong."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not known: lists the known ones and names the nearest."""
    names = sorted(known)
    close = nearest(name, names)
    meant = f"; did you mean {close!r}?" if close else ""
    return UnknownNameError(f"{kind} {name!r} is not known{meant}", f"known: {', '.join(names)}")


def printable(text: str, keep: str = "") -> str:
    r"""The text with an escape in place of every character that does not print: ESC -> \x1b, U+202E -> \u202e.

    Args:
        text: Of any origin, such as a document or a file name.
        keep: Characters that stay as they are, such as a newline.
    """
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)
