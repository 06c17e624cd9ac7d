"""Events that a run emits while it works: that it has begun, how far it has come, and warnings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """Event: the work begins."""

    total_bytes: int
    done_bytes: int
    """Of units that an earlier run committed."""
    workers: int
    doing: str = ""
    """What the progress bar calls the work; empty for the word of the verb, such as packing."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Event: something that the user should know, and that is no error."""

    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Event: so much more has been read and tokenized."""

    file_bytes: int
    num_documents: int

    def __add__(self, other: Progress) -> Progress:
        """Both together: workers on other machines add events up before they send them."""
        return Progress(self.file_bytes + other.file_bytes, self.num_documents + other.num_documents)
