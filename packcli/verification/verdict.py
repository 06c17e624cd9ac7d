"""What is on the disk against what was written: is an output whole, is every row right, and where not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from packcli.dataset import Problem, check_output, check_same
from packcli.errors import MismatchError
from packcli.results import Shown
from packcli.storage import Location
from packcli.verification.deep import Absent, check_inputs
from packcli.verification.restore import Restored, restore

SHOWN = 5
"""Problems that the short text has; `problems` has them all."""


@dataclass(slots=True, repr=False)
class Verdict(Shown):
    """What `verify` found."""

    output: Location
    problems: list[Problem] = field(default_factory=list)
    num_shards: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    """Real tokens; positions where no column tells padding."""
    num_bytes: int = 0
    """Of shards, hashed."""
    num_documents_compared: int = 0
    """Tokenized again and compared."""
    absent: list[Absent] = field(default_factory=list)
    """Documents of the inputs that are in no pack; known with `against` only."""
    same_as: Location | None = None
    restored: Restored | None = None
    """The row that was made again, where one was asked for."""
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def facts(self) -> list[tuple[str, str]]:
        """Whether it is sound, what was looked at, and the first problems."""
        looked = f"{self.num_shards:,} shards, {self.num_rows:,} rows, {self.num_tokens:,} tokens"
        if self.num_documents_compared:
            looked += f"; {self.num_documents_compared:,} documents tokenized again"
        problems = [("wrong", f"{each.file}: {each.what}" if each.file else each.what) for each in self.problems]
        more = [("wrong", f"and {len(problems) - SHOWN:,} more")] if len(problems) > SHOWN else []
        state = "sound" if self.is_sound else f"{len(problems):,} problems"
        return [("output", f"{self.output}: {state}"), ("looked at", looked), *problems[:SHOWN], *more]

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {
            "output": str(self.output),
            "sound": self.is_sound,
            "problems": [asdict(each) for each in self.problems],
            "num_shards": self.num_shards,
            "num_rows": self.num_rows,
            "num_tokens": self.num_tokens,
            "num_bytes": self.num_bytes,
            "num_documents_compared": self.num_documents_compared,
            "absent": [asdict(each) for each in self.absent],
            "same_as": None if self.same_as is None else str(self.same_as),
            "restored": None if self.restored is None else self.restored.as_dict(),
            "seconds": round(self.seconds, 3),
        }


def verify(
    output: Location,
    *,
    deep: bool = False,
    sample: tuple[int, int] = (1, 1),
    against: Sequence[str] = (),
    same_as: Location | None = None,
    tokenizer_engine: str = "auto",
    warn: Callable[[str], None] = lambda message: None,
) -> Verdict:
    """Checks an output of packcli.

    Args:
        output: A packed directory.
        deep: Tokenize the inputs again and compare; they must be where they were, or `against` says where.
        sample: (n, t): only every t-th part of the output, beginning with the n-th, for `deep`.
        against: The inputs, where they are now. Implies `deep`, and lists the documents that are in no pack.
        same_as: Another output, whose rows must be the same.
        tokenizer_engine: For `deep`: auto, fastokens or tokenizers.
        warn: Gets what the user should know, and is no problem.

    Raises:
        OutputError: not an output of packcli.
        UsageError: a sample without parts, or `deep` without the column `sources`.
    """
    began = time.perf_counter()
    verdict = Verdict(output)
    _check(verdict, output)
    if (deep or against) and verdict.is_sound:
        compared = check_inputs(output, sample=sample, against=against, tokenizer_engine=tokenizer_engine, warn=warn)
        verdict.problems += compared.problems
        verdict.num_documents_compared = compared.num_documents
        verdict.absent = compared.absent
    elif deep or against:
        warn("the inputs were not compared: the output is not sound")
    if same_as is not None:
        other = Verdict(same_as)
        _check(other, same_as)
        verdict.same_as = same_as
        verdict.problems += other.problems
        if verdict.is_sound:
            verdict.problems += check_same(output, same_as)
        else:
            warn("the rows were not compared: an output is not sound")
    verdict.seconds = time.perf_counter() - began
    return verdict


def verify_row(output: Location, row: int, **settings: Any) -> Verdict:
    """Makes one row again and compares it, and looks at nothing else but the manifest and its shard.

    Args:
        output: A packed directory.
        row: Counted from 0 in its split.
        settings: As of `restore`. What it raises because inputs have changed is a problem here.
    """
    began = time.perf_counter()
    verdict = Verdict(output)
    try:
        verdict.restored = restored = restore(output, row, **settings)
    except MismatchError as error:
        verdict.problems.append(Problem("", error.message))
    else:
        verdict.problems += restored.problems
        verdict.num_rows, verdict.num_documents_compared = 1, len(restored.get("sources", ()))
    verdict.seconds = time.perf_counter() - began
    return verdict


def _check(verdict: Verdict, output: Location) -> None:
    checked = check_output(output)
    verdict.problems += checked.problems
    verdict.num_shards, verdict.num_rows = checked.num_shards, checked.num_rows
    verdict.num_tokens, verdict.num_bytes = checked.num_tokens, checked.num_bytes
