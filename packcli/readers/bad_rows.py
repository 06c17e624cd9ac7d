"""Rows that cannot be used: the first one ends the run, or each is skipped and noted with its cause and content."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.config import commonest
from packcli.errors import BadRowError
from packcli.readers.chunks import RAW_BYTES, BytesChunk, ColumnChunk, LineChunk, LongChunk, LongRow, RawChunk
from packcli.readers.sources import Source

HINT = (
    "mend or remove the row, and run the same command again: committed units are kept; "
    "or pass over such rows with --on-error skip"
)
LENIENT_HINT = ", or read it with U+FFFD in its place with --lenient"
TOO_LONG_HINT = "--max-line-bytes allows more, and takes more memory"
EXCERPT = 80
"""How much of a row an error shows, in bytes."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was skipped."""

    source: int
    row: int
    cause: str
    """A key of bad_rows.CAUSES."""
    entry: bytes
    """Its line in rejected.jsonl: JSON, ASCII only."""


@dataclass(slots=True)
class BadRows:
    """Raises for a bad row, or notes it; and counts all rows."""

    sources: Sequence[Source]
    sink: Callable[[Rejected], None] | None = None
    """Gets the rejected rows in the order of the input, when `flush` is called; None: they are only counted."""
    num_rows: int = 0
    """Rows read, without blank lines."""
    num_repaired: int = 0
    """Rows in which U+FFFD replaced bytes that are not UTF-8, or half surrogate pairs."""
    by_cause: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    """Cause -> its first row: where it is, and what is wrong."""
    _waiting: list[Rejected] = field(default_factory=list)
    _starts: tuple[LineChunk, NDArray[np.int64]] | None = None

    def add(self, chunk: RawChunk, row: int, cause: str, what: str, *, place: str = "", hint: str = HINT) -> None:
        """Notes a row.

        Args:
            chunk: The chunk with the row.
            row: Its number in the source.
            cause: A key of CAUSES.
            what: What is wrong, for people.
            place: Where it is, if more is known than file and row.
            hint: What to do about it.

        Raises:
            BadRowError: the run stops at the first bad row.
        """
        source = self.sources[chunk.source]
        place = place or place_of(self.sources, chunk.source, row)
        if not source.skip_bad:
            shown = self._excerpt(chunk, row)
            hint += LENIENT_HINT if cause in ("not-utf8", "lone-surrogate") and hint == HINT else ""
            raise BadRowError(f"{place}: {what}{shown}", hint, cause=cause, what=what)
        self.by_cause[cause] = self.by_cause.get(cause, 0) + 1
        self.examples.setdefault(cause, f"{place}: {what}")
        if self.sink is not None:
            raw, num_bytes = raw_row(chunk, row)
            entry = {
                "source": source.name,
                "row": row,
                "place": place,
                "byte": self._first_byte(chunk, row),
                "cause": cause,
                "message": what,
                "num_bytes": num_bytes,
                **_shown(raw),
            }
            self._waiting.append(Rejected(chunk.source, row, cause, json.dumps(entry).encode() + b"\n"))

    @property
    def num_rejected(self) -> int:
        """Rows noted so far."""
        return sum(self.by_cause.values())

    @property
    def example(self) -> str:
        """The first row of the commonest cause: where it is, and what is wrong."""
        return self.examples[commonest(self.by_cause)]

    def flush(self) -> None:
        """Gives the sink the rows of a chunk that were noted, in their order, whichever stage noted them."""
        if self._waiting and self.sink is not None:
            for each in sorted(self._waiting, key=lambda rejected: rejected.row):
                self.sink(each)
        self._waiting = []

    def _first_byte(self, chunk: RawChunk, row: int) -> int | None:
        """Where a row begins in its file, after decompression; None when that is not known."""
        if isinstance(chunk, LineChunk):
            if self._starts is None or self._starts[0] is not chunk:
                self._starts = chunk, chunk.row_starts
            return chunk.first_byte + int(self._starts[1][row - chunk.first_row])
        return first_byte_of(chunk, row)

    def _excerpt(self, chunk: RawChunk, row: int) -> str:
        if isinstance(chunk, ColumnChunk):
            return ""
        raw, num_bytes = raw_row(chunk, row)
        text = raw[:EXCERPT].decode("utf-8", "backslashreplace") + ("..." if num_bytes > EXCERPT else "")
        at = self._first_byte(chunk, row)
        where = "" if at is None else f"from byte {at:,}: "
        return f"\n    {where}{text!a}"


def place_of(sources: Sequence[Source], source: int, row: int) -> str:
    """Where a row is, for messages: file:line where a file has lines."""
    name = sources[source].name
    return f"{name}:{row + 1}" if sources[source].format == "json" else f"{name}: row {row}"


def first_byte_of(chunk: RawChunk, row: int) -> int | None:
    """Where a row begins in its file, after decompression; None when that is not known."""
    if isinstance(chunk, LongChunk):
        return chunk.first_byte
    if isinstance(chunk, LineChunk):
        return chunk.first_byte + int(chunk.row_starts[row - chunk.first_row])
    if isinstance(chunk, BytesChunk) and chunk.starts is not None:
        return chunk.starts[row - chunk.first_row]
    return None


def raw_row(chunk: RawChunk, row: int) -> tuple[bytes, int]:
    """The bytes of a row, RAW_BYTES of them at most, and how many there are."""
    if isinstance(chunk, LongChunk):
        return chunk.head, chunk.num_bytes
    raw = whole_row(chunk, row)
    return raw[:RAW_BYTES], len(raw)


def whole_row(chunk: LineChunk | BytesChunk | ColumnChunk, row: int) -> bytes:
    """The bytes of a row; of columns, one JSON object with all of them."""
    index = row - chunk.first_row
    if isinstance(chunk, LineChunk):
        return chunk.lines[index]
    if isinstance(chunk, BytesChunk):
        return bytes(chunk.records[index])
    parts = []
    for number, (name, column) in enumerate(zip(chunk.names, chunk.columns, strict=True)):
        is_json = number < len(chunk.encoded) and chunk.encoded[number]
        parts.append(json.dumps(name).encode() + b": " + _value(column, index, is_json))
    return b"{" + b", ".join(parts) + b"}"


def without_long(chunk: RawChunk, source: Source) -> Iterator[RawChunk]:
    """The chunk cut into several, so that every row over the limit is a LongChunk of its own.

    Raises:
        BadRowError: there is such a row, and the run stops at bad rows.
    """
    if isinstance(chunk, LongChunk) or chunk.num_bytes <= source.max_row_bytes:
        yield chunk
        return
    lengths = chunk.row_bytes
    first = 0
    for row in np.flatnonzero(lengths > source.max_row_bytes).tolist():
        if not source.skip_bad:
            raise too_long(source, chunk.first_row + row)
        if first < row:
            yield chunk.rows(first, row)
        number = chunk.first_row + row
        long = LongRow(chunk.source, number, first_byte_of(chunk, number))
        long.add(whole_row(chunk, number))
        yield long.chunk()
        first = row + 1
    if first < len(lengths):
        yield chunk.rows(first, len(lengths)) if first else chunk


def too_long(source: Source, row: int, what: str = "the row") -> BadRowError:
    """The error for a row over the limit."""
    place = f"{source.name}:{row + 1}" if source.format == "json" else f"{source.name}: row {row}"
    message = f"{what} is longer than {source.max_row_bytes:,} bytes"
    return BadRowError(f"{place}: {message}", TOO_LONG_HINT, cause="too-long", what=message)


def _value(column: pa.LargeStringArray | pa.LargeListArray, index: int, is_json: bool) -> bytes:
    """A value as JSON; bytes that are not UTF-8 are kept."""
    scalar = column[index]
    if not scalar.is_valid:
        return b"null"
    if isinstance(column, pa.LargeListArray):
        return json.dumps(scalar.as_py()).encode()
    data: bytes = scalar.as_buffer().to_pybytes()
    if is_json:
        return data
    return json.dumps(data.decode("utf-8", "surrogateescape"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def _shown(raw: bytes) -> dict[str, str]:
    """The content of a row for rejected.jsonl: as text if it is UTF-8, else in base64."""
    for cut in range(4):  # the last character may be incomplete, where RAW_BYTES cut it
        try:
            return {"raw": raw[: len(raw) - cut].decode()}
        except UnicodeDecodeError as error:
            if error.start < len(raw) - 4 or len(raw) < RAW_BYTES:
                break
    return {"raw_base64": base64.b64encode(raw).decode()}
