"""Chunks: some whole rows of one source, still as raw bytes or Arrow columns.

They are cheap to hash, to skip and to cut. Every kind has

    source, first_row, num_bytes
    row_bytes         bytes of each row, int64[D]
    split_at(at)      the rows that start before byte `at` of the chunk, and the others
    rows(first, stop) some of the rows
    add_to(digest)    adds the rows to a digest
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from packcli.packing import offsets
from packcli.seeds import row_hashes


class Digest:
    """XXH3 over the content of rows, to tell whether they have changed; the same however they are cut into chunks.

    Nobody gains by forging a collision here, and XXH3 takes a tenth of the time of SHA-256.
    """

    def __init__(self) -> None:
        self._columns = [(xxhash.xxh3_128(), xxhash.xxh3_128())]
        """For each column one hash of the lengths and one of the data."""

    def update(self, data: bytes | memoryview, lengths: bytes = b"", column: int = 0) -> None:
        """Adds the bytes of some rows and, where the bytes do not show where a row ends, the lengths of the rows."""
        while column >= len(self._columns):
            self._columns.append((xxhash.xxh3_128(), xxhash.xxh3_128()))
        self._columns[column][1].update(data)
        if lengths:
            self._columns[column][0].update(lengths)

    def hexdigest(self) -> str:
        """One digest of all columns."""
        digests = (part.digest() for column in self._columns for part in column)
        return xxhash.xxh3_128(b"".join(digests)).hexdigest()


@dataclass(slots=True)
class LineChunk:
    """Lines of JSON, each with its newline."""

    source: int
    first_row: int
    data: bytes
    first_byte: int = 0
    """Where the data begins in the file, after decompression."""
    _lines: list[bytes] | None = None

    @property
    def num_bytes(self) -> int:
        return len(self.data)

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        return np.array([len(line) for line in self.lines], dtype=np.int64)

    @property
    def lines(self) -> list[bytes]:
        """The lines without their newlines, blank ones included; split once, since several readers need them."""
        if self._lines is None:
            self._lines = self.data.split(b"\n")
            if not self._lines[-1]:
                self._lines.pop()
        return self._lines

    def split_at(self, at: int) -> tuple[LineChunk | None, LineChunk | None]:
        newline = self.data.find(b"\n", max(at - 1, 0))
        place = 0 if at <= 0 else newline + 1 if newline >= 0 else len(self.data)
        left, right = self.data[:place], self.data[place:]
        rows = self.first_row + left.count(b"\n")
        return (
            LineChunk(self.source, self.first_row, left, self.first_byte) if left else None,
            LineChunk(self.source, rows, right, self.first_byte + place) if right else None,
        )

    @property
    def row_starts(self) -> NDArray[np.int64]:
        """Where each line begins in the data, int64[D + 1]."""
        return offsets(self.row_bytes + 1)

    def rows(self, first: int, stop: int) -> LineChunk:
        begin, end = self.row_starts[[first, stop]].tolist()
        return LineChunk(self.source, self.first_row + first, self.data[begin:end], self.first_byte + begin)

    def add_to(self, digest: Digest) -> None:
        digest.update(self.data)


@dataclass(slots=True)
class BytesChunk:
    """Records without a separator: elements of a JSON array, or texts of a .txt file."""

    source: int
    first_row: int
    records: list[Any]
    """bytes or msgspec.Raw, one a row."""
    starts: list[int] | None = None
    """Where each record begins in the file, after decompression; None when that is not known."""

    @property
    def num_bytes(self) -> int:
        return int(self.row_bytes.sum())

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        return np.array([len(memoryview(record)) for record in self.records], dtype=np.int64)

    def split_at(self, at: int) -> tuple[BytesChunk | None, BytesChunk | None]:
        lengths = self.row_bytes
        count = int(np.searchsorted(np.cumsum(lengths) - lengths, at))
        total = len(self.records)
        return (self.rows(0, count) if count else None, self.rows(count, total) if count < total else None)

    def rows(self, first: int, stop: int) -> BytesChunk:
        starts = None if self.starts is None else self.starts[first:stop]
        return BytesChunk(self.source, self.first_row + first, self.records[first:stop], starts)

    def add_to(self, digest: Digest) -> None:
        for record in self.records:
            view = memoryview(record)
            digest.update(view, len(view).to_bytes(8, "little"))


@dataclass(slots=True)
class ColumnChunk:
    """Rows of Arrow columns, each a large_string array or a large_list of int64."""

    source: int
    first_row: int
    columns: list[pa.LargeStringArray | pa.LargeListArray]
    encoded: tuple[bool, ...] = ()
    """Which columns hold JSON, made of nested values; empty: none of them."""
    names: tuple[str, ...] = ()
    """Names of the columns."""

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        return sum((_row_lengths(column) for column in self.columns), np.zeros(len(self.columns[0]), dtype=np.int64))

    @property
    def num_bytes(self) -> int:
        return int(self.row_bytes.sum())

    def split_at(self, at: int) -> tuple[ColumnChunk | None, ColumnChunk | None]:
        lengths = self.row_bytes
        count = int(np.searchsorted(np.cumsum(lengths) - lengths, at))
        total = len(self.columns[0])
        return (self.rows(0, count) if count else None, self.rows(count, total) if count < total else None)

    def rows(self, first: int, stop: int) -> ColumnChunk:
        columns = [column[first:stop] for column in self.columns]
        return ColumnChunk(self.source, self.first_row + first, columns, self.encoded, self.names)

    def add_to(self, digest: Digest) -> None:
        for index, column in enumerate(self.columns):
            offsets, data = _flat(column)
            lengths = np.where(np.asarray(column.is_valid()), np.diff(offsets), -1)
            digest.update(data, lengths.tobytes(), index)


@dataclass(slots=True)
class LongChunk:
    """One row that is too long to be kept in memory: its beginning, and a hash of all of it."""

    source: int
    first_row: int
    head: bytes
    """Its first bytes, RAW_BYTES at most."""
    num_bytes: int
    first_byte: int | None
    xxh3: bytes
    """Hash of the whole row."""

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        return np.array([self.num_bytes], dtype=np.int64)

    def split_at(self, at: int) -> tuple[LongChunk | None, LongChunk | None]:
        return (self, None) if at > 0 else (None, self)

    def rows(self, first: int, stop: int) -> LongChunk:
        return self

    def add_to(self, digest: Digest) -> None:
        digest.update(self.xxh3, self.num_bytes.to_bytes(8, "little"))


class LongRow:
    """Takes the blocks of a row that is too long, and keeps the first bytes and a hash."""

    def __init__(self, source: int, row: int, first_byte: int | None) -> None:
        self._source, self._row, self._first_byte = source, row, first_byte
        self._head = bytearray()
        self._num_bytes = 0
        self._digest = xxhash.xxh3_128()

    def add(self, block: bytes | memoryview) -> None:
        """Takes the next block."""
        self._head += block[: max(RAW_BYTES - len(self._head), 0)]
        self._num_bytes += len(block)
        self._digest.update(block)

    def chunk(self) -> LongChunk:
        """What is kept of the row."""
        return LongChunk(
            self._source, self._row, bytes(self._head), self._num_bytes, self._first_byte, self._digest.digest()
        )


RAW_BYTES = 1 << 20
"""How much of a row that cannot be used is kept, in bytes."""

RawChunk: TypeAlias = LineChunk | BytesChunk | ColumnChunk | LongChunk


@dataclass(slots=True)
class ThinnedChunk:
    """A chunk of a mixture of which only some rows are taken: those whose hash is below a threshold.

    The others are dropped before they are decoded: they neither count as read nor can they be rejected.
    """

    chunk: RawChunk
    threshold: int
    seed: int

    @property
    def source(self) -> int:
        return self.chunk.source

    @property
    def first_row(self) -> int:
        return self.chunk.first_row

    @property
    def num_bytes(self) -> int:
        return self.chunk.num_bytes

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        return self.chunk.row_bytes

    def taken(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of the rows, given by their numbers, that are taken: int64."""
        return np.flatnonzero(row_hashes(rows, self.seed) < self.threshold)

    def split_at(self, at: int) -> tuple[ThinnedChunk | None, ThinnedChunk | None]:
        left, right = self.chunk.split_at(at)
        return (
            None if left is None else ThinnedChunk(left, self.threshold, self.seed),
            None if right is None else ThinnedChunk(right, self.threshold, self.seed),
        )

    def add_to(self, digest: Digest) -> None:
        """All rows, taken or not."""
        self.chunk.add_to(digest)


Chunk: TypeAlias = RawChunk | ThinnedChunk


def raw_of(chunk: Chunk) -> RawChunk:
    """The chunk with all of its rows, taken or not."""
    return chunk.chunk if isinstance(chunk, ThinnedChunk) else chunk


def taken_of(chunk: Chunk, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Indices of the rows, given by their numbers, that are taken: int64; None for all of them."""
    return chunk.taken(rows) if isinstance(chunk, ThinnedChunk) else None


def cut_chunk(chunk: Chunk, at: int) -> tuple[Chunk | None, Chunk | None]:
    """The rows that start before byte `at` of a chunk, and the others."""
    return chunk.split_at(at)


def _flat(column: pa.LargeStringArray | pa.LargeListArray) -> tuple[NDArray[np.int64], memoryview]:
    """Where each row begins in the data of a column, in bytes, and that data."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64, count=len(column) + 1, offset=8 * column.offset)
    if isinstance(column, pa.LargeListArray):
        values = column.values
        data = values.buffers()[1]
        offsets = (offsets + values.offset) * 8
    else:
        data = column.buffers()[2]
    return offsets, memoryview(data)[offsets[0] : offsets[-1]] if data is not None else memoryview(b"")


def _row_lengths(column: pa.LargeStringArray | pa.LargeListArray) -> NDArray[np.int64]:
    return np.diff(_flat(column)[0])
