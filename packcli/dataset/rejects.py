"""Rows that were rejected: a file for each part that has any, committed before its sidecar; all in one; their limit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from packcli.config import DEFAULT_MAX_BAD, MaxBad, PackConfig, RunOptions, commonest, parse_max_bad
from packcli.dataset.paths import REJECTED, rejects_file
from packcli.dataset.shards import ShardInfo
from packcli.dataset.stats import Stats
from packcli.readers import BadRows, Rejected, Source, most_rows
from packcli.storage import Location, names_in
from packcli.storage.files import committed, open_plain

COPY_BYTES = 1 << 20

_NAME = re.compile(r"(\d{5,})-(\d{3,})\.rejected\.jsonl")


@dataclass(frozen=True, slots=True)
class Limit:
    """How many rows a run may skip."""

    max_bad: MaxBad | None
    """As the user gave it; None when no row may be skipped."""
    most: int | None
    """More rejected rows than this exceed the limit whatever the remaining parts hold; None: only the end can tell."""

    def check_part(self, bad_rows: BadRows) -> None:
        """Raises BadRowError when a part alone has too many."""
        if self.max_bad is not None and self.most is not None and bad_rows.num_rejected > self.most:
            raise self.max_bad.refusal(bad_rows.num_rows, bad_rows.by_cause, bad_rows.example)

    def check(self, root: Location, stats: Stats, *, is_all: bool) -> None:
        """Raises BadRowError when parts have too many, before all are done only where the rest cannot change it.

        Args:
            root: The output, where the rejected rows of these parts are.
            stats: Sum over the parts.
            is_all: Whether these are all parts of the run.
        """
        if self.max_bad is None:
            return
        by_cause = stats.rejected_by_cause
        num_rows, num_bad = stats.num_rows_read, sum(by_cause.values())
        is_exceeded = self.most is not None and num_bad > self.most
        if is_exceeded or (is_all and not self.max_bad.allows(num_bad, num_rows)):
            raise self.max_bad.refusal(num_rows, by_cause, _first_of(root, commonest(by_cause)))


NO_LIMIT = Limit(None, None)


def make_limit(config: PackConfig, options: RunOptions, sources: Sequence[Source]) -> Limit:
    """The limit of a run."""
    if config.on_error != "skip":
        return NO_LIMIT
    max_bad = parse_max_bad(DEFAULT_MAX_BAD if options.max_bad is None else options.max_bad)
    # A mixture may read rows more than once, so the number of rows in its inputs is no bound.
    most = None if max_bad.percent is None or config.mix else most_rows(sources)
    return Limit(max_bad, max_bad.most(most))


class RejectsFile:
    """Where the rejected rows of one part go. The file is begun with the first of them, and committed at the end."""

    def __init__(self, root: Location, unit: int, part: int) -> None:
        self._root = root
        self._name = rejects_file(unit, part)
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes] | None = None
        self._sha256 = hashlib.sha256()
        self._num_rows = self._num_bytes = 0

    def __enter__(self) -> RejectsFile:
        """Nothing is written before the first row."""
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Commits the file; after an error it is removed."""
        self._stack.__exit__(*error)

    def __call__(self, rejected: Rejected) -> None:
        """The next row."""
        if self._file is None:
            self._file = self._stack.enter_context(committed(self._root / self._name))
        self._file.write(rejected.entry)
        self._sha256.update(rejected.entry)
        self._num_rows += 1
        self._num_bytes += len(rejected.entry)

    @property
    def info(self) -> ShardInfo | None:
        """The file, once it is committed; None when no row was rejected."""
        if self._file is None:
            return None
        return ShardInfo(self._name, self._num_rows, self._num_bytes, self._sha256.hexdigest())


def join_rejects(root: Location, names: Sequence[str]) -> list[str]:
    """Writes rejected.jsonl from the files of the parts, in their order; gives its name, if there is one."""
    if not names:
        (root / REJECTED).unlink(missing_ok=True)
        return []
    with committed(root / REJECTED) as joined:
        for block in read_all(root, names):
            joined.write(block)
    return [REJECTED]


def read_all(root: Location, names: Iterable[str]) -> Iterator[bytes]:
    """The bytes of some files, one after the other."""
    for name in names:
        with open_plain(root / name) as file:
            while block := file.read(COPY_BYTES):
                yield block


def _first_of(root: Location, cause: str) -> str:
    """The first rejected row of a cause: where it is, and what is wrong with it."""
    names = {
        tuple(map(int, match.groups())): match[0] for match in map(_NAME.fullmatch, names_in(root / "units")) if match
    }
    for number in sorted(names):
        for line in (root / "units" / names[number]).read_text(encoding="ascii").splitlines():
            entry = json.loads(line)
            if entry["cause"] == cause:
                return f"{entry['place']}: {entry['message']}"
    raise AssertionError(f"no row was rejected for {cause}")


def count_causes(path: Location) -> dict[str, int]:
    """Cause -> rows of a file of rejected rows. Raises ValueError, KeyError or TypeError for any other file."""
    counts: dict[str, int] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        cause = json.loads(line)["cause"]
        counts[cause] = counts.get(cause, 0) + 1
    return counts
