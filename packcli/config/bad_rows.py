"""Rows that cannot be used: their causes, and how many of them a run may skip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from packcli.errors import BadRowError, UsageError

ON_ERROR = ("stop", "skip")
"""What happens at a bad row: the run ends, or the row is left out, counted and kept in rejected.jsonl."""

CAUSES = {
    "not-json": "not valid JSON",
    "not-utf8": "bytes that are not UTF-8; --lenient mends them",
    "lone-surrogate": "half of a surrogate pair, which is no character; --lenient mends it",
    "too-deep": "nested too deeply",
    "too-long": "over --max-line-bytes",
    "not-object": "a record that is not an object",
    "missing-field": "a field is missing",
    "null": "a field is null",
    "wrong-type": "a field is of another type",
    "duplicate-field": "a record has a field twice",
    "wrong-content": "messages, roles or flags that packcli cannot use",
    "template": "the chat template refuses it",
    "wrong-tokens": "ids, labels or masks that cannot be used",
    "overlong": "over --max-len, with --overlong error",
}
"""Why a row is rejected: the cause, by which rows are counted and which rejected.jsonl names, and what it means."""

DEFAULT_MAX_BAD = "1%"
"""Default limit of --on-error skip: if more rows are bad, a setting is probably wrong."""


@dataclass(frozen=True, slots=True)
class MaxBad:
    """How many rows may be skipped: a number of them, or a share of those read."""

    text: str
    """As it was given."""
    rows: int | None
    percent: Fraction | None
    """Exact, so that no machine rounds it another way."""

    def most(self, num_rows: int | None) -> int | None:
        """The most of num_rows rows that may be skipped; None where the limit is a share and num_rows is not known."""
        if self.percent is None:
            return self.rows
        return None if num_rows is None else int(self.percent * num_rows / 100)

    def allows(self, num_bad: int, num_rows: int) -> bool:
        """Whether num_bad of num_rows rows may be skipped: at 1%, 3 of 300."""
        most = self.most(num_rows)
        return most is None or num_bad <= most

    def refusal(self, num_rows: int, by_cause: Mapping[str, int], example: str) -> BadRowError:
        """The error for a run that is over the limit.

        Args:
            num_rows: Rows read so far.
            by_cause: Cause -> rows rejected so far.
            example: The first row of the commonest cause: where it is, and what is wrong.
        """
        num_bad, cause = sum(by_cause.values()), commonest(by_cause)
        most = self.most(num_rows)
        meant = "" if self.percent is None else f", which is {most:,} here"
        return BadRowError(
            f"{num_bad:,} of {num_rows:,} rows cannot be used, over --max-bad {self.text}{meant}; "
            f"most often {cause} ({by_cause[cause]:,}): {example}",
            "mend the rows or the settings; or allow more with --max-bad N or P%: committed units are kept, and the "
            "same command resumes",
        )


def commonest(by_cause: Mapping[str, int]) -> str:
    """The cause of most rows; among equals the first in the alphabet."""
    return min(by_cause, key=lambda cause: (-by_cause[cause], cause))


def parse_max_bad(given: int | str) -> MaxBad:
    """'0.1%' or 1000 -> the limit. Raises UsageError."""
    text = str(given).strip()
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if share is not None and Fraction(share[1]) <= 100:
        return MaxBad(text, None, Fraction(share[1]))
    if isinstance(given, bool) or not re.fullmatch(r"\d+", text):
        raise UsageError(
            f"--max-bad {text!r} is neither a number of rows nor a share of them", "for example --max-bad 100 or 0.1%"
        )
    return MaxBad(text, int(text), None)
