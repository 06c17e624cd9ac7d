"""What a run says while it works: it has begun, has come so far, has a warning."""

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
    """What is done, where it is not what the verb does."""


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
        """Both together: what travels from far away is added up first."""
        return Progress(self.file_bytes + other.file_bytes, self.num_documents + other.num_documents)
