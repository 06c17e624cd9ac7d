"""Rows that were rejected: a file for each part that has any, committed before its sidecar; all in one; their limit."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from packcli.bad_rows import DEFAULT_MAX_BAD, MaxBad, commonest, parse_max_bad
from packcli.config import PackConfig, RunOptions
from packcli.errors import UsageError
from packcli.readers import BadRows, Rejected, Source, most_rows
from packcli.shards import ShardInfo, committed
from packcli.sidecars import Sidecar

REJECTED = "rejected.jsonl"
"""All of a run, in the order of the input."""

COPY_BYTES = 1 << 20


def reading_rules(config: PackConfig, options: RunOptions) -> dict[str, Any]:
    """How the sources of a run are read, for readers.find_sources; raises UsageError for a limit without a use."""
    skips = config.on_error == "skip"
    if options.max_bad is not None and not skips:
        raise UsageError("--max-bad says how many rows may be skipped, and none is skipped", "add --on-error skip")
    return {"max_row_bytes": options.max_line_bytes, "skip_bad": skips, "lenient": config.lenient}


@dataclass(frozen=True, slots=True)
class Limit:
    """How many rows a run may skip."""

    max_bad: MaxBad | None
    """None: it skips none."""
    most: int | None
    """With more than these the limit is surely exceeded, whatever comes; None: nobody knows before the end."""

    def check_part(self, bad_rows: BadRows) -> None:
        """Raises BadRowError when a part alone has too many."""
        if self.max_bad is not None and self.most is not None and bad_rows.num_rejected > self.most:
            raise self.max_bad.refusal(bad_rows.num_rows, bad_rows.by_cause, bad_rows.example)

    def check(self, root: Path, sidecars: Sequence[Sidecar], *, is_all: bool) -> None:
        """Raises BadRowError when the parts have too many; before all of them are done only where that is sure."""
        if self.max_bad is None:
            return
        by_cause: dict[str, int] = {}
        for each in sidecars:
            for cause, count in each.stats.rejected_by_cause.items():
                by_cause[cause] = by_cause.get(cause, 0) + count
        num_rows, num_bad = sum(each.stats.num_rows_read for each in sidecars), sum(by_cause.values())
        is_sure = self.most is not None and num_bad > self.most
        if is_sure or (is_all and not self.max_bad.allows(num_bad, num_rows)):
            first = first_of(root, sidecars, commonest(by_cause))
            raise self.max_bad.refusal(num_rows, by_cause, first)


NO_LIMIT = Limit(None, None)


def make_limit(config: PackConfig, options: RunOptions, sources: Sequence[Source]) -> Limit:
    """The limit of a run."""
    if config.on_error != "skip":
        return NO_LIMIT
    max_bad = parse_max_bad(DEFAULT_MAX_BAD if options.max_bad is None else options.max_bad)
    return Limit(max_bad, max_bad.most(None if max_bad.percent is None else most_rows(sources)))


class RejectsFile:
    """Where the rejected rows of one part go. The file is begun with the first of them, and committed at the end."""

    def __init__(self, root: Path, unit: int, part: int) -> None:
        self._root = root
        self._name = f"units/{unit:05d}-{part:03d}.rejected.jsonl"
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


def join_rejects(root: Path, sidecars: Sequence[Sidecar]) -> list[str]:
    """Writes rejected.jsonl; returns the names of all files that hold rejected rows, none when there are none."""
    names = [each.rejected.file for each in sidecars if each.rejected is not None]
    if not names:
        (root / REJECTED).unlink(missing_ok=True)
        return []
    with committed(root / REJECTED) as joined:
        for block in read_all(root, names):
            joined.write(block)
    return [REJECTED, *names]


def read_all(root: Path, names: Iterable[str]) -> Iterator[bytes]:
    """The bytes of some files, one after the other."""
    for name in names:
        with open(root / name, "rb") as file:
            while block := file.read(COPY_BYTES):
                yield block


def first_of(root: Path, sidecars: Sequence[Sidecar], cause: str) -> str:
    """The first rejected row of a cause: where it is, and what is wrong with it."""
    for each in sidecars:
        if each.rejected is None or cause not in each.stats.rejected_by_cause:
            continue
        with open(root / each.rejected.file, encoding="ascii") as file:
            for line in file:
                entry = json.loads(line)
                if entry["cause"] == cause:
                    return f"{entry['place']}: {entry['message']}"
    raise AssertionError(f"no row was rejected for {cause}")


def count_causes(path: Path) -> dict[str, int]:
    """Cause -> rows of a file of rejected rows. Raises ValueError, KeyError or TypeError for any other file."""
    found: dict[str, int] = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            cause = json.loads(line)["cause"]
            found[cause] = found.get(cause, 0) + 1
    return found
