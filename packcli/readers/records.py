"""Units -> chunks of rows, cut into parts of unit_bytes.

Decoding is left to fields.TextExtractor, so that parts which are committed already cost no decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packcli.errors import BadRowError, FieldError, StorageError
from packcli.readers.chunks import BytesChunk, Chunk, ColumnChunk, Digest, LineChunk, RawChunk, cut_chunk
from packcli.readers.mixed import MixedReader, MixedUnit
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source
from packcli.readers.units import Span, Unit, begins_array, open_parquet

BLOCK_BYTES = 1 << 20
"""Bytes read at once: a block, its lines and its texts stay in the cache."""

BATCH_ROWS = 1024
"""Rows taken at once from Parquet and Arrow files."""

ARRAY_ROWS = 16
"""A compressed JSON array may hold this many times the longest row: 1 GiB."""

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends an Arrow IPC stream."""


@dataclass(slots=True)
class Meter:
    """How many bytes of the files have been read: progress only, nothing depends on it."""

    file_bytes: int = 0


class Part:
    """The rows of one shard. Exhaust `chunks` (or `skip`) before the next part is asked for."""

    def __init__(self, index: int, reader: _PartReader | MixedReader, hashed: bool) -> None:
        self.index = index
        self.is_last = False
        """Known once the chunks are exhausted."""
        self.num_bytes = 0
        self._digest = Digest() if hashed else None
        self._reader = reader

    @property
    def digest(self) -> str:
        """XXH3 of the rows, once the chunks are exhausted."""
        if self._digest is None:
            raise AssertionError("this part was read without a digest")
        return self._digest.hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """The chunks of this part, in order."""
        for chunk in self._reader.take():
            self.num_bytes += chunk.num_bytes
            if self._digest is not None:
                chunk.add_to(self._digest)
            yield chunk
        self.is_last = self._reader.pending is None

    def skip(self, *, hashed: bool = False) -> None:
        """Passes over the rows."""
        if not hashed:
            self._digest = None
        for _ in self.chunks():
            pass


class _PartReader:
    """Cuts a stream of chunks at the first row that starts at or after each multiple of unit_bytes."""

    def __init__(self, chunks: Iterable[Chunk], unit_bytes: int) -> None:
        self._chunks = iter(chunks)
        self._unit_bytes = unit_bytes
        self._offset = 0
        self.pending: Chunk | None = next(self._chunks, None)

    def take(self) -> Iterator[Chunk]:
        limit = (self._offset // self._unit_bytes + 1) * self._unit_bytes
        while self.pending is not None:
            chunk: Chunk = self.pending
            after: Chunk | None = None
            if self._offset + chunk.num_bytes > limit:
                head, after = cut_chunk(chunk, limit - self._offset)
                if head is None:
                    return
                chunk = head
            self._offset += chunk.num_bytes
            self.pending = after if after is not None else next(self._chunks, None)
            yield chunk
            if after is not None or self._offset >= limit:
                return


def read_parts(
    unit: Unit,
    sources: Sequence[Source],
    fields: Fields,
    *,
    unit_bytes: int,
    split_on: str | None = None,
    hashed: bool = True,
    meter: Meter | None = None,
) -> Iterator[Part]:
    """The parts of a unit, at least one.

    Args:
        unit: Which spans to read.
        sources: All sources of the run.
        fields: Which columns to read from Parquet and Arrow files.
        unit_bytes: A part ends with the row that crosses a multiple of this.
        split_on: Where .txt files are cut into documents.
        hashed: Whether parts have a digest.
        meter: Is kept up to date while the chunks are read.

    Raises:
        StorageError: a file is damaged or cannot be read.
    """
    metered = meter or Meter()
    reader: _PartReader | MixedReader
    if isinstance(unit, MixedUnit):
        reader = MixedReader(unit, lambda span: _read_unit(Unit(0, (span,)), sources, fields, split_on, metered))
    else:
        reader = _PartReader(_read_unit(unit, sources, fields, split_on, metered), unit_bytes)
    index = 0
    while index == 0 or reader.pending is not None:
        part = Part(index, reader, hashed)
        yield part
        index += 1


def digest_parts(
    unit: Unit, sources: Sequence[Source], fields: Fields, *, unit_bytes: int, split_on: str | None
) -> list[str]:
    """The digest of every part of a unit, without decoding a row."""
    digests = []
    for part in read_parts(unit, sources, fields, unit_bytes=unit_bytes, split_on=split_on):
        part.skip(hashed=True)
        digests.append(part.digest)
    return digests


def _read_unit(
    unit: Unit, sources: Sequence[Source], fields: Fields, split_on: str | None, meter: Meter
) -> Iterator[RawChunk]:
    for span in unit.spans:
        source = sources[span.source]
        for chunk in _read_span(span, source, fields, split_on, meter):
            _refuse_long(chunk, source)
            yield chunk


def _read_span(span: Span, source: Source, fields: Fields, split_on: str | None, meter: Meter) -> Iterator[RawChunk]:
    try:
        if source.format == "parquet":
            yield from _read_parquet(span, source, fields, meter)
        elif source.format == "arrow":
            yield from _read_arrow(span, source, fields)
            meter.file_bytes += source.num_bytes
        elif source.format == "txt":
            yield from _read_txt(span, source, split_on, meter)
        else:
            yield from _read_json(span, source, meter)
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise StorageError(
            f"{source.name}: the file is damaged or cannot be read: {reason}",
            "nothing was lost of what was committed; mend the file and run the same command again",
        ) from error


def _refuse_long(chunk: Chunk, source: Source) -> None:
    """Raises BadRowError for a row over the limit."""
    if chunk.num_bytes > source.max_row_bytes:
        long = np.flatnonzero(chunk.row_bytes > source.max_row_bytes)
        if len(long):
            raise _too_long(source, chunk.first_row + int(long[0]))


def _too_long(source: Source, row: int, what: str = "the row") -> BadRowError:
    place = f"{source.name}:{row + 1}" if source.format == "json" else f"{source.name}: row {row}"
    return BadRowError(
        f"{place}: {what} is longer than {source.max_row_bytes:,} bytes",
        "--max-line-bytes allows more, and takes more memory",
    )


def _whole(blocks: Iterable[bytes], source: Source, limit: int, what: str) -> bytes:
    """All blocks as one, up to a limit: a few bytes of .zst can be a terabyte."""
    kept: list[bytes] = []
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise _too_long(source, 0, what)
        kept.append(block)
    return b"".join(kept)


def _blocks(span: Span, source: Source, meter: Meter) -> Iterator[bytes]:
    """The bytes of a span after decompression, block by block."""
    if source.compression:
        # pyarrow notices a stream that is cut short; python-zstandard's streaming readers do not.
        before = meter.file_bytes
        with pa.OSFile(source.path) as file, pa.CompressedInputStream(file, source.compression) as stream:
            while block := stream.read(BLOCK_BYTES):
                meter.file_bytes = before + file.tell()
                yield block
        return
    with open(source.path, "rb", buffering=0) as file:
        file.seek(span.start)
        left = (source.num_bytes if span.stop is None else span.stop) - span.start
        while left > 0:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"it has become shorter than {source.num_bytes} bytes while it was read")
            left -= len(block)
            meter.file_bytes += len(block)
            yield block


def _read_json(span: Span, source: Source, meter: Meter) -> Iterator[RawChunk]:
    pending: list[bytes] = []
    num_pending = 0
    row = span.first_row
    at_start = span.start == 0
    for block in _blocks(span, source, meter):
        if at_start:
            if begins_array(block):
                yield from _read_array(span, source, meter)
                return
            block = block.removeprefix(b"\xef\xbb\xbf")
            at_start = False
        end = block.rfind(b"\n") + 1
        if not end:
            pending.append(block)
            num_pending += len(block)
            if num_pending > source.max_row_bytes:
                raise _too_long(source, row)
            continue
        chunk = LineChunk(span.source, row, b"".join((*pending, block[:end])))
        row += len(chunk.lines)
        pending = [block[end:]] if end < len(block) else []
        num_pending = len(block) - end
        yield chunk
    if pending:
        yield LineChunk(span.source, row, b"".join(pending))


def _read_array(span: Span, source: Source, meter: Meter) -> Iterator[RawChunk]:
    """The elements of one JSON array: the only format besides whole .txt files that is held in memory."""
    from packcli.readers.fields import split_array

    limit = ARRAY_ROWS * source.max_row_bytes if source.compression else 1 << 62  # the size of a plain file is known
    elements = split_array(_whole(_blocks(span, source, meter), source, limit, "the array"), source)
    for first in range(0, len(elements), BATCH_ROWS):
        yield BytesChunk(span.source, first, elements[first : first + BATCH_ROWS])


def _read_txt(span: Span, source: Source, split_on: str | None, meter: Meter) -> Iterator[RawChunk]:
    blocks = _blocks(span, source, meter)
    if split_on is None:
        yield BytesChunk(span.source, 0, [_whole(blocks, source, source.max_row_bytes, "the document")])
        return
    separator = split_on.encode()
    row = 0
    tail = b""
    for block in blocks:
        *records, tail = (tail + block).split(separator)
        if len(tail) > source.max_row_bytes:
            raise _too_long(source, row + len(records))
        if records:
            yield BytesChunk(span.source, row, records)
            row += len(records)
    if tail:
        yield BytesChunk(span.source, row, [tail])


def _read_parquet(span: Span, source: Source, fields: Fields, meter: Meter) -> Iterator[RawChunk]:
    file = open_parquet(source)
    check_columns(source, file.schema_arrow, fields)
    present = [name for name in fields.names if file.schema_arrow.get_field_index(name) >= 0]
    groups = range(span.start, file.metadata.num_row_groups if span.stop is None else span.stop)
    batches = file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=present, use_threads=False)
    for chunk in _column_chunks(span, batches, fields):
        meter.file_bytes += source.num_bytes * len(chunk.columns[0]) // max(file.metadata.num_rows, 1)
        yield chunk


def _read_arrow(span: Span, source: Source, fields: Fields) -> Iterator[RawChunk]:
    reader, mapped = open_arrow(source)
    with reader:
        check_columns(source, reader.schema, fields)
        yield from _column_chunks(span, _arrow_batches(reader), fields)
        if isinstance(reader, pa.ipc.RecordBatchStreamReader):
            _check_end(mapped)


def _check_end(mapped: pa.MemoryMappedFile) -> None:
    """Raises OSError when a stream stops between two batches, or goes on after its end: Arrow is silent about both."""
    end = mapped.tell()
    if end != mapped.size():
        raise OSError("there is more after the end of the Arrow stream")
    mapped.seek(max(end - len(END_OF_STREAM), 0))
    if mapped.read() != END_OF_STREAM:
        raise OSError("the Arrow stream is cut short: it has no end mark")


def open_arrow(
    source: Source,
) -> tuple[pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader, pa.MemoryMappedFile]:
    """Opens an Arrow IPC file or stream, mapped; raises StorageError when it is neither."""
    mapped = pa.memory_map(source.path)
    try:
        if mapped.read(6) == b"ARROW1":
            return pa.ipc.open_file(mapped), mapped
        mapped.seek(0)
        return pa.ipc.open_stream(mapped), mapped
    except pa.ArrowException as error:
        raise StorageError(f"{source.path}: not a readable Arrow file ({str(error).splitlines()[0]})") from None


def _arrow_batches(
    reader: pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader,
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
    else:
        yield from reader


def _column_chunks(span: Span, batches: Iterable[pa.RecordBatch], fields: Fields) -> Iterator[ColumnChunk]:
    row = span.first_row
    for batch in batches:
        for first in range(0, batch.num_rows, BATCH_ROWS):
            rows = batch.slice(first, BATCH_ROWS)
            columns, encoded = zip(*(_column(rows, name) for name in fields.names), strict=True)
            yield ColumnChunk(span.source, row, list(columns), encoded if any(encoded) else ())
            row += rows.num_rows


def _column(rows: pa.RecordBatch, name: str) -> tuple[pa.LargeStringArray | pa.LargeListArray, bool]:
    """A column as strings or as lists of int64, and whether the strings are JSON of what was nested."""
    index = rows.schema.get_field_index(name)
    if index < 0:  # an optional one
        return pa.nulls(rows.num_rows, pa.large_string()), False
    column = rows.column(index)
    if is_text(column.type):
        return pc.cast(column, pa.large_string()), False
    if is_integers(column.type):
        if pa.types.is_boolean(column.type.value_type):
            column = pc.cast(column, pa.large_list(pa.int8()))
        return pc.cast(column, pa.large_list(pa.int64())), False
    values = (_without_nulls(value) for value in column.to_pylist(maps_as_pydicts="strict"))
    encoded = [None if value is None else msgspec.json.encode(value).decode() for value in values]
    return pa.array(encoded, pa.large_string()), True


def _without_nulls(value: Any) -> Any:
    """A nested value without the keys that are null: Arrow gives every struct the keys of all of them."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text: any of the string types, also behind a dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_integers(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of integers or booleans."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return bool(pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type))


def check_columns(source: Source, schema: pa.Schema, fields: Fields) -> None:
    """Raises FieldError when a field is missing from the schema, or is not of the kind that the format takes."""
    found = ", ".join(f"{column.name} ({column.type})" for column in schema)
    option = "--text-field" if fields.format == "text" else "--field"
    for name in fields.names:
        if schema.get_field_index(name) < 0:
            if name in fields.optional:
                continue
            raise FieldError(f"{source.name}: no column {name!r}; it has {found}", f"choose one with {option}")
        kind = schema.field(name).type
        if fields.format == "text" and not is_text(kind):
            raise FieldError(
                f"{source.name}: column {name!r} is {kind}, not text; it has {found}", f"choose one with {option}"
            )
        if is_integers(kind) != (fields.format == "tokenized") and not pa.types.is_null(kind):
            wanted = "a list of integers" if fields.format == "tokenized" else "text or messages"
            raise FieldError(
                f"{source.name}: column {name!r} is {kind}, not {wanted}; it has {found}", f"choose one with {option}"
            )
