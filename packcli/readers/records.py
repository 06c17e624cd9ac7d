"""Units -> chunks of rows, cut into parts of unit_bytes.

Decoding is left to fields.TextExtractor, so that parts which are committed already cost no decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from packcli import stores
from packcli.errors import StorageError
from packcli.readers.arrays import split_array
from packcli.readers.chunks import BytesChunk, Chunk, ColumnChunk, Digest, LineChunk, LongRow, RawChunk, cut_chunk
from packcli.readers.columns import check_columns, read_column
from packcli.readers.mixed import MixedReader, MixedUnit
from packcli.readers.rejecting import too_long, without_long
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source
from packcli.readers.units import Span, Unit, begins_array, first_line, open_parquet, open_source

BLOCK_BYTES = 1 << 20
"""Bytes read at once: a block, its lines and its texts stay in the cache."""

BOM = b"\xef\xbb\xbf"

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
            yield from without_long(chunk, source)


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
        _refuse_changed(source)
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(
            f"{source.name}: the file is damaged or cannot be read: {reason}",
            "nothing was lost of what was committed; mend the file and run the same command again",
        ) from error


def _refuse_changed(source: Source) -> None:
    """Raises OSError when an object is not the one that was found: its ranges may be of two."""
    if source.version and stores.RemotePath(source.path).stat().version != source.version:
        raise OSError("it has changed while it was read")


def _whole(blocks: Iterable[bytes], source: Source, limit: int, what: str) -> bytes:
    """All blocks as one, up to a limit: a few bytes of .zst can be a terabyte."""
    kept: list[bytes] = []
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise too_long(source, 0, what)
        kept.append(block)
    return b"".join(kept)


def _blocks(span: Span, source: Source, meter: Meter) -> Iterator[bytes]:
    """The bytes of a span after decompression, block by block."""
    if source.compression:
        # pyarrow notices a stream that is cut short; python-zstandard's streaming readers do not.
        before = meter.file_bytes
        with _open_plain(source) as file, pa.CompressedInputStream(file, source.compression) as stream:
            while block := stream.read(BLOCK_BYTES):
                meter.file_bytes = before + file.tell()
                yield block
        return
    with open_source(source, span.start, span.stop) as file:
        left = (source.num_bytes if span.stop is None else span.stop) - span.start
        while left > 0:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"it has become shorter than {source.num_bytes} bytes while it was read")
            left -= len(block)
            meter.file_bytes += len(block)
            yield block


def _open_plain(source: Source) -> pa.NativeFile:
    """A file as pyarrow reads it."""
    if stores.is_remote(source.path):
        return pa.PythonFile(open_source(source), mode="r")
    return pa.OSFile(source.path)


def _read_json(span: Span, source: Source, meter: Meter) -> Iterator[RawChunk]:
    pending: list[bytes] = []
    num_pending = 0
    row = span.first_row
    at = span.start  # byte of the file, after decompression, where `pending` begins
    at_start = span.start == 0
    long: LongRow | None = None
    for block in _blocks(span, source, meter):
        if at_start:
            if begins_array(block):
                yield from _read_array(span, source, meter)
                return
            at += len(BOM) if block.startswith(BOM) else 0
            block = block.removeprefix(BOM)
            at_start = False
        if long is not None:
            end = block.find(b"\n")
            long.add(block if end < 0 else block[:end])
            if end < 0:
                continue
            chunk = long.chunk()
            yield chunk
            at += chunk.num_bytes + 1
            row += 1
            block = block[end + 1 :]
            long = None
            if not block:
                continue
        end = block.rfind(b"\n") + 1
        if not end:
            pending.append(block)
            num_pending += len(block)
            if num_pending > source.max_row_bytes:
                if not source.skip_bad:
                    raise too_long(source, row)
                long = LongRow(span.source, row, at)
                for piece in pending:
                    long.add(piece)
                pending, num_pending = [], 0
            continue
        lines = LineChunk(span.source, row, b"".join((*pending, block[:end])), at)
        row += len(lines.lines)
        at += len(lines.data)
        pending = [block[end:]] if end < len(block) else []
        num_pending = len(block) - end
        yield lines
    if long is not None:
        yield long.chunk()
    if pending:
        yield LineChunk(span.source, row, b"".join(pending), at)


def _read_array(span: Span, source: Source, meter: Meter) -> Iterator[RawChunk]:
    """The elements of one JSON array: the only format besides whole .txt files that is held in memory."""
    limit = ARRAY_ROWS * source.max_row_bytes if source.compression else 1 << 62  # the size of a plain file is known
    elements, starts = split_array(_whole(_blocks(span, source, meter), source, limit, "the array"), source)
    whole = BytesChunk(span.source, 0, elements, starts)
    for first in range(0, len(elements), BATCH_ROWS):
        yield whole.rows(first, min(first + BATCH_ROWS, len(elements)))


def _read_txt(span: Span, source: Source, split_on: str | None, meter: Meter) -> Iterator[RawChunk]:
    """Documents between separators, of which a file without one has none."""
    separator = b"" if split_on is None else split_on.encode()
    row = at = 0
    pending: list[bytes] = []
    num_pending = 0
    long: LongRow | None = None
    for block in _blocks(span, source, meter):
        if not separator:
            records, tail = [], block
        else:  # a separator may lie across two blocks
            *records, tail = b"".join((*pending, block)).split(separator)
            pending, num_pending = [], 0
        if long is not None and records:
            long.add(records.pop(0))
            at += (chunk := long.chunk()).num_bytes + len(separator)
            row += 1
            long = None
            yield chunk
        if records:
            starts = (at + np.cumsum([0, *(len(each) + len(separator) for each in records)])).tolist()
            yield BytesChunk(span.source, row, records, starts[:-1])
            row += len(records)
            at = starts[-1]
        pending.append(tail)
        num_pending += len(tail)
        if long is None and num_pending > source.max_row_bytes:
            if not source.skip_bad:
                raise too_long(source, row, "the row" if separator else "the document")
            long = LongRow(span.source, row, at)
        if long is not None:  # all but what may be the beginning of a separator
            held = b"".join(pending)
            keep = max(len(separator) - 1, 0)
            long.add(held[: len(held) - keep])
            pending = [held[len(held) - keep :]] if keep else []
            num_pending = keep
    if long is not None:
        for piece in pending:
            long.add(piece)
        yield long.chunk()
    elif num_pending or not separator:
        yield BytesChunk(span.source, row, [b"".join(pending)], [at])


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
        yield from _column_chunks(span, _arrow_batches(reader, fields), fields)
        if isinstance(reader, pa.ipc.RecordBatchStreamReader):
            _check_end(mapped)


def _check_end(mapped: pa.NativeFile) -> None:
    """Raises OSError when a stream stops between two batches, or goes on after its end: Arrow is silent about both."""
    end = mapped.tell()
    if end != mapped.size():
        raise OSError("there is more after the end of the Arrow stream")
    mapped.seek(max(end - len(END_OF_STREAM), 0))
    if mapped.read() != END_OF_STREAM:
        raise OSError("the Arrow stream is cut short: it has no end mark")


def open_arrow(
    source: Source,
) -> tuple[pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader, pa.NativeFile]:
    """Opens an Arrow IPC file or stream, mapped where it is a file; raises StorageError when it is neither."""
    mapped = _open_plain(source) if stores.is_remote(source.path) else pa.memory_map(source.path)
    try:  # Arrow calls a damaged schema an OSError
        if mapped.read(6) == b"ARROW1":
            return pa.ipc.open_file(mapped), mapped
        mapped.seek(0)
        return pa.ipc.open_stream(mapped), mapped
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{source.path}: not a readable Arrow file ({first_line(error)})") from None


def _arrow_batches(
    reader: pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader, fields: Fields
) -> Iterator[pa.RecordBatch]:
    """The batches, of the fields only; raises ArrowInvalid where lengths or offsets lead out of a column.

    Arrow believes them as they stand in the file. That strings are UTF-8 is not looked at here: it is a matter of rows.
    """
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        batches: Iterable[pa.RecordBatch] = (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        batches = reader
    names = [name for name in fields.names if reader.schema.get_field_index(name) >= 0]
    for batch in batches:
        batch.validate()
        rows = batch.select(names)
        for column in rows.columns:
            _as_bytes(column).validate(full=True)
        yield rows


def _as_bytes(column: pa.Array) -> pa.Array:
    """A column of strings as one of bytes, not copied; any other as it is."""
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary))
    kinds = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return column.view(kinds[column.type]) if column.type in kinds else column


def _column_chunks(span: Span, batches: Iterable[pa.RecordBatch], fields: Fields) -> Iterator[ColumnChunk]:
    row = span.first_row
    for batch in batches:
        for first in range(0, batch.num_rows, BATCH_ROWS):
            rows = batch.slice(first, BATCH_ROWS)
            columns, encoded = zip(*(read_column(rows, name) for name in fields.names), strict=True)
            yield ColumnChunk(span.source, row, list(columns), encoded if any(encoded) else (), fields.names)
            row += rows.num_rows
