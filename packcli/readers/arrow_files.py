"""Parquet and Arrow files as chunks, and the check that their columns fit the fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from packcli import storage
from packcli.errors import FieldError, StorageError
from packcli.readers.chunks import ColumnChunk, RawChunk
from packcli.readers.files import ReadProgress, first_line, open_parquet, open_plain
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source, Span

BATCH_ROWS = 1024
"""Rows taken at once from Parquet and Arrow files."""

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""The mark at the end of an Arrow IPC stream."""


def read_column(rows: pa.RecordBatch, name: str) -> tuple[pa.LargeStringArray | pa.LargeListArray, bool]:
    """A column as strings or as lists of int64, and whether the strings are JSON of nested values."""
    index = rows.schema.get_field_index(name)
    if index < 0:  # an optional field that this file lacks
        return pa.nulls(rows.num_rows, pa.large_string()), False
    column = rows.column(index)
    if is_text(column.type):
        return column.cast(pa.large_string()), False
    if is_integers(column.type):
        if pa.types.is_boolean(column.type.value_type):
            column = column.cast(pa.large_list(pa.int8()))
        return column.cast(pa.large_list(pa.int64())), False
    try:
        values = column.to_pylist(maps_as_pydicts="strict")
    except (ValueError, KeyError):
        return _odd_column(column), True
    encoded = [None if value is None else msgspec.json.encode(_without_nulls(value)).decode() for value in values]
    return pa.array(encoded, pa.large_string()), True


def _odd_column(column: pa.Array) -> pa.LargeStringArray:
    """A nested column as JSON, where a row has bytes that are not UTF-8 (they are kept) or a map with a key twice."""
    try:
        encoded = [None if each is None else _json_of(each) for each in map(_value, column)]
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"the name of a nested field is not UTF-8: {error}") from None
    return pa.array(encoded, pa.large_binary()).view(pa.large_string())  # a view: Arrow does not check for UTF-8


def _json_of(value: Any) -> bytes:
    value = _without_nulls(value)
    try:
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, ValueError):  # it has bytes that are not UTF-8
        return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")


def _value(scalar: pa.Scalar) -> Any:
    """A value as a Python object; where a map has a key twice, the last value counts."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StringScalar):  # base of every string type
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    if isinstance(scalar, pa.DictionaryScalar):
        return _value(scalar.value)
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(scalar[name]) for name in scalar}
    if isinstance(scalar, pa.MapScalar):
        return {_value(each["key"]): _value(each["value"]) for each in scalar.values}
    if isinstance(scalar, pa.ListScalar):
        return [_value(each) for each in scalar.values]
    return scalar.as_py()


def _without_nulls(value: Any) -> Any:
    """A nested value without keys that are null: in Arrow every struct has the keys of all structs of its column."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text: any of the string types, also dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_integers(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of integers or booleans."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return bool(pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type))


def check_columns(source: Source, schema: pa.Schema, fields: Fields) -> None:
    """Raises FieldError when a field is missing from the schema, or has a type that the format does not take."""
    listed = ", ".join(f"{column.name} ({column.type})" for column in schema)
    option = "--text-field" if fields.format == "text" else "--field"
    for name in fields.names:
        if schema.get_field_index(name) < 0:
            if name in fields.optional:
                continue
            raise FieldError(f"{source.name}: no column {name!r}; it has {listed}", f"choose one with {option}")
        kind = schema.field(name).type
        if fields.format == "text" and not is_text(kind):
            raise FieldError(
                f"{source.name}: column {name!r} is {kind}, not text; it has {listed}", f"choose one with {option}"
            )
        if is_integers(kind) != (fields.format == "tokenized") and not pa.types.is_null(kind):
            wanted = "a list of integers" if fields.format == "tokenized" else "text or messages"
            raise FieldError(
                f"{source.name}: column {name!r} is {kind}, not {wanted}; it has {listed}", f"choose one with {option}"
            )


def read_parquet(span: Span, source: Source, fields: Fields, progress: ReadProgress) -> Iterator[RawChunk]:
    """The row groups of a span as chunks."""
    file = open_parquet(source)
    check_columns(source, file.schema_arrow, fields)
    present = [name for name in fields.names if file.schema_arrow.get_field_index(name) >= 0]
    groups = range(span.start, file.metadata.num_row_groups if span.stop is None else span.stop)
    batches = file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=present, use_threads=False)
    for chunk in _column_chunks(span, batches, fields):
        progress.file_bytes += source.num_bytes * len(chunk.columns[0]) // max(file.metadata.num_rows, 1)
        yield chunk


def read_arrow(span: Span, source: Source, fields: Fields) -> Iterator[RawChunk]:
    """The batches of a file as chunks."""
    reader, mapped = open_arrow(source)
    with reader:
        check_columns(source, reader.schema, fields)
        yield from _column_chunks(span, _arrow_batches(reader, fields), fields)
        if isinstance(reader, pa.ipc.RecordBatchStreamReader):
            _check_end(mapped)


def _check_end(mapped: pa.NativeFile) -> None:
    """Raises OSError when a stream stops between two batches or goes on after its end, since Arrow ignores both."""
    end = mapped.tell()
    if end != mapped.size():
        raise OSError("there is more after the end of the Arrow stream")
    mapped.seek(max(end - len(END_OF_STREAM), 0))
    if mapped.read() != END_OF_STREAM:
        raise OSError("the Arrow stream is cut short: it has no end mark")


def open_arrow(
    source: Source,
) -> tuple[pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader, pa.NativeFile]:
    """Opens an Arrow IPC file or stream, memory-mapped if it is local; raises StorageError when it is neither."""
    mapped = open_plain(source) if storage.is_remote(source.path) else pa.memory_map(source.path)
    try:  # for a damaged schema Arrow raises OSError
        if mapped.read(6) == b"ARROW1":
            return pa.ipc.open_file(mapped), mapped
        mapped.seek(0)
        return pa.ipc.open_stream(mapped), mapped
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{source.path}: not a readable Arrow file ({first_line(error)})") from None


def _arrow_batches(
    reader: pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader, fields: Fields
) -> Iterator[pa.RecordBatch]:
    """The batches with only the columns of the fields; raises ArrowInvalid for an offset that points out of its buffer.

    Arrow itself does not check the offsets in a file. Whether strings are UTF-8 is checked later, row by row, so that
    one bad row does not condemn its file.
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
    """A column of strings as one of bytes, without a copy; any other column as it is."""
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
