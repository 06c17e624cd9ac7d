"""Chunks -> the texts of their documents, or rows of values where a document is made of several parts."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.config import is_template, template_fields
from packcli.readers.bad_rows import TOO_LONG_HINT, BadRows
from packcli.readers.chunks import BytesChunk, Chunk, ColumnChunk, LineChunk, LongChunk, RawChunk, raw_of, taken_of
from packcli.readers.faults import RefusalError, judge_value
from packcli.readers.json_decoder import DECODE_ERRORS, RecordDecoder, repaired
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source

Column: TypeAlias = pa.LargeStringArray | pa.LargeListArray

Row = tuple[Any, ...]
"""The parts of one record, in the order of Fields.parts; None for a part that the record lacks."""

_MESSAGES: Any = list[dict[str, Any]] | str
_TYPES: dict[str, Any] = {
    "prompt": _MESSAGES,
    "completion": _MESSAGES,
    "messages": _MESSAGES,
    "conversations": _MESSAGES,
    "tools": list[Any] | str,
    "chat_template_kwargs": dict[str, Any] | str,
    "instruction": str,
    "input": str,
    "output": str,
    "system": str,
}
"""Part -> its type in JSON; a part that is not listed is a list of integers."""


class TextExtractor:
    """Decodes chunks into texts, one a row, as the fields say."""

    def __init__(self, fields: Fields, sources: Sequence[Source], bad_rows: BadRows | None = None) -> None:
        self._sources = sources
        self._fields = fields
        self._bad_rows = bad_rows or BadRows(sources)
        self._join = _joiner(fields)
        holds_json = any(source.format == "json" for source in sources)
        self._decode = RecordDecoder(dict.fromkeys(fields.names, str) if holds_json else {})

    def __call__(self, chunk: Chunk) -> tuple[list[str], NDArray[np.int64]]:
        """The texts of a chunk and the row number of each, int64[D].

        Raises:
            BadRowError: a row is not JSON, not UTF-8, or has no text in the field, and the run stops at bad rows; the
                message names file and line.
        """
        source = self._sources[chunk.source]
        raw = raw_of(chunk)
        if isinstance(raw, LongChunk):
            return refuse_long(raw, chunk, source, self._bad_rows)
        if isinstance(raw, ColumnChunk):
            return self._from_columns(raw, chunk, source)
        records, rows = taken_records(raw, chunk)
        self._bad_rows.num_rows += len(records)
        if source.format == "txt":
            return self._from_text(raw, records, rows, source)
        objects = self._decode.all(records)
        if objects is None:
            objects, rows = decode_singly(self._decode, raw, records, rows, source, self._bad_rows)
        if self._join is None:
            return [each.f0 for each in objects], rows
        join = self._join
        return [join(*msgspec.structs.astuple(each)) for each in objects], rows

    def _from_text(
        self, chunk: RawChunk, records: list[Any], rows: NDArray[np.int64], source: Source
    ) -> tuple[list[str], NDArray[np.int64]]:
        texts, kept = [], []
        for index, (record, row) in enumerate(zip(records, rows.tolist(), strict=True)):
            try:
                text = record.decode()
            except UnicodeDecodeError as error:
                if not source.lenient:
                    place = f"{source.name}: document {row}, byte {error.start}"
                    self._bad_rows.add(chunk, row, "not-utf8", f"not UTF-8: {error.reason}", place=place)
                    continue
                text = record.decode("utf-8", "replace")
                self._bad_rows.num_repaired += 1
            texts.append(text.removeprefix("\ufeff") if row == 0 else text)
            kept.append(index)
        return texts, rows if len(kept) == len(rows) else rows[kept]

    def _from_columns(self, raw: ColumnChunk, chunk: Chunk, source: Source) -> tuple[list[str], NDArray[np.int64]]:
        columns, rows = taken_columns(raw, chunk)
        self._bad_rows.num_rows += len(rows)
        try:
            if any(column.null_count for column in columns):
                raise ValueError("a null")
            values = [column.to_pylist() for column in columns]
        except ValueError:  # a null, or bytes that are not UTF-8: find the rows that are bad
            values, rows = self._columns_singly(raw, columns, rows, source)
        if self._join is None:
            return values[0], rows
        return list(map(self._join, *values)), rows

    def _columns_singly(
        self, chunk: ColumnChunk, columns: list[Column], rows: NDArray[np.int64], source: Source
    ) -> tuple[list[list[str]], NDArray[np.int64]]:
        by_column: list[list[str]] = [[] for _ in columns]
        kept = []
        for index, row in enumerate(rows.tolist()):
            repairs = 0
            texts = []
            for name, column in zip(self._fields.names, columns, strict=True):
                try:
                    text, is_repaired = text_of(name, column[index], source)
                except RefusalError as refusal:
                    self._bad_rows.add(chunk, row, *refusal.verdict)
                    break
                repairs += is_repaired
                texts.append(text)
            else:
                kept.append(index)
                self._bad_rows.num_repaired += bool(repairs)
                for each, text in zip(by_column, texts, strict=True):
                    each.append(text)
        return by_column, rows[kept]


def refuse_long(raw: LongChunk, chunk: Chunk, source: Source, bad_rows: BadRows) -> tuple[list[Any], NDArray[np.int64]]:
    """Notes a row that is too long as bad, if it is taken, and gives no document."""
    nothing = np.empty(0, dtype=np.int64)
    taken = taken_of(chunk, np.array([raw.first_row]))
    if taken is not None and not len(taken):
        return [], nothing
    bad_rows.num_rows += 1
    what = f"the row is longer than {source.max_row_bytes:,} bytes"
    bad_rows.add(raw, raw.first_row, "too-long", what, hint=TOO_LONG_HINT)
    return [], nothing


def decode_singly(
    decode: RecordDecoder,
    chunk: LineChunk | BytesChunk,
    records: list[Any],
    rows: NDArray[np.int64],
    source: Source,
    bad_rows: BadRows,
) -> tuple[list[Any], NDArray[np.int64]]:
    """Decodes records one by one: skips lines of white space, repairs what may be repaired, and notes bad rows."""
    objects, kept = [], []
    for index, record in enumerate(records):
        decoded = decode.one(record)
        if decoded is None:
            raw = bytes(record)
            if raw.isspace() and isinstance(chunk, LineChunk):
                bad_rows.num_rows -= 1
                continue
            decoded = decode.one(repaired(raw)) if source.lenient else None
            if decoded is None:
                bad_rows.add(chunk, int(rows[index]), *decode.judge(raw, mended=source.lenient))
                continue
            bad_rows.num_repaired += 1
        objects.append(decoded)
        kept.append(index)
    return objects, rows if len(kept) == len(rows) else rows[kept]


def text_of(name: str, value: pa.LargeStringScalar, source: Source, of: str = "value") -> tuple[str, bool]:
    """The text of a field, and whether it was repaired; `of` is what the message calls the place of a bad byte.

    Raises:
        RefusalError: the field is null, or not UTF-8 where that is not to be repaired.
    """
    if not value.is_valid:
        raise RefusalError("null", f"{name!r} is null")
    data: bytes = value.as_buffer().to_pybytes()
    try:
        return data.decode(), False
    except UnicodeDecodeError as error:
        if not source.lenient:
            words = f"{name!r} is not UTF-8: {error.reason} at byte {error.start} of the {of}"
            raise RefusalError("not-utf8", words) from None
        return data.decode("utf-8", "replace"), True


def _joiner(fields: Fields) -> Callable[..., str] | None:
    """The template as a function of the field values, by position. A brace inside a value stays as it is."""
    if fields.template is None:
        return None
    parts = []
    for literal, name, _, _ in string.Formatter().parse(fields.template):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            parts.append("{" + str(fields.names.index(name)) + "}")
    return "".join(parts).format


def records_of(chunk: LineChunk | BytesChunk) -> tuple[list[Any], NDArray[np.int64]]:
    """The undecoded records of a chunk, empty lines left out, and the row number of each."""
    if isinstance(chunk, BytesChunk):
        records = chunk.records
        return records, np.arange(chunk.first_row, chunk.first_row + len(records), dtype=np.int64)
    lines = chunk.lines
    rows = np.arange(chunk.first_row, chunk.first_row + len(lines), dtype=np.int64)
    if not all(lines):
        full = [index for index, line in enumerate(lines) if line]
        return [lines[index] for index in full], rows[full]
    return lines, rows


def taken_records(raw: LineChunk | BytesChunk, chunk: Chunk) -> tuple[list[Any], NDArray[np.int64]]:
    """As records_of, but only the records that are taken."""
    records, rows = records_of(raw)
    taken = taken_of(chunk, rows)
    return (records, rows) if taken is None else ([records[index] for index in taken.tolist()], rows[taken])


def taken_columns(raw: ColumnChunk, chunk: Chunk) -> tuple[list[Column], NDArray[np.int64]]:
    """The columns of the rows that are taken, and the number of each row."""
    rows = np.arange(raw.first_row, raw.first_row + len(raw.columns[0]), dtype=np.int64)
    taken = taken_of(chunk, rows)
    if taken is None:
        return raw.columns, rows
    # Made from the buffer, since pa.array would import pandas first, which takes half a second.
    indices = pa.Array.from_buffers(pa.int64(), len(taken), [None, pa.py_buffer(taken)])
    return [column.take(indices) for column in raw.columns], rows[taken]


class RowExtractor:
    """Decodes chunks into rows, as the fields say."""

    def __init__(self, fields: Fields, sources: Sequence[Source], bad_rows: BadRows | None = None) -> None:
        self._sources = sources
        self._fields = fields
        self._bad_rows = bad_rows or BadRows(sources)
        self._types = {}
        for part, source in fields.parts:
            used = template_fields(source) if is_template(source) else (source,)
            for name in used:
                self._types[name] = str if is_template(source) else _TYPES.get(part, list[int | bool])
        self._decode = RecordDecoder(self._types, fields.optional)
        self._decode_value = {
            name: msgspec.json.Decoder(kind | None if name in fields.optional else kind, strict=True).decode
            for name, kind in self._types.items()
        }
        self._pick = [_picker(source, fields.names) for _, source in fields.parts]
        self._mostly_plain = True
        self._is_plain = tuple(source for _, source in fields.parts) == fields.names

    def __call__(self, chunk: Chunk) -> tuple[list[Row], NDArray[np.int64]]:
        """The rows of a chunk and the number of each, int64[D].

        Raises:
            BadRowError: a row is not JSON, lacks a part, or has one of the wrong type, and the run stops at bad rows.
        """
        source = self._sources[chunk.source]
        raw = raw_of(chunk)
        if isinstance(raw, LongChunk):
            return refuse_long(raw, chunk, source, self._bad_rows)
        if isinstance(raw, ColumnChunk):
            return self._from_columns(raw, chunk, source)
        records, numbers = taken_records(raw, chunk)
        self._bad_rows.num_rows += len(records)
        objects = self._decode.all(records) if self._mostly_plain else None
        if objects is None:
            self._mostly_plain = False  # optional fields or bad rows: decoding all at once would fail again
            objects, numbers = decode_singly(self._decode, raw, records, numbers, source, self._bad_rows)
        return [self._row(msgspec.structs.astuple(each)) for each in objects], numbers

    def _from_columns(self, raw: ColumnChunk, chunk: Chunk, source: Source) -> tuple[list[Row], NDArray[np.int64]]:
        taken, numbers = taken_columns(raw, chunk)
        self._bad_rows.num_rows += len(numbers)
        bad: dict[int, tuple[str, str]] = {}
        repaired: set[int] = set()
        columns = [
            list(self._values(column, index, index < len(raw.encoded) and raw.encoded[index], source, bad, repaired))
            for index, column in enumerate(taken)
        ]
        for index in sorted(bad):
            self._bad_rows.add(raw, int(numbers[index]), *bad[index])
        self._bad_rows.num_repaired += len(repaired.difference(bad))
        rows = [self._row(values) for index, values in enumerate(zip(*columns, strict=True)) if index not in bad]
        return rows, np.delete(numbers, list(bad)) if bad else numbers

    def _row(self, values: Sequence[Any]) -> Row:
        return tuple(values) if self._is_plain else tuple(pick(values) for pick in self._pick)

    def _values(
        self,
        column: Column,
        index: int,
        is_json: bool,
        source: Source,
        bad: dict[int, tuple[str, str]],
        repaired: set[int],
    ) -> Iterator[Any]:
        """The values of a column, decoded where it is JSON, and checked; None for rows that it adds to `bad`."""
        name = self._fields.names[index]
        for row in range(len(column)):
            value = None
            try:
                value, is_repaired = self._value(name, column[row], is_json, source)
                if is_repaired:
                    repaired.add(row)
            except RefusalError as refusal:
                bad.setdefault(row, refusal.verdict)
            yield value

    def _value(self, name: str, scalar: pa.Scalar, is_json: bool, source: Source) -> tuple[Any, bool]:
        """A value, and whether it was repaired; raises RefusalError."""
        if not scalar.is_valid:
            if name in self._fields.optional:
                return None, False
            raise RefusalError("null", f"{name!r} is null")
        if isinstance(scalar, pa.LargeListScalar):
            if scalar.values.null_count:
                raise RefusalError("null", f"{name!r} holds a null")
            return scalar.values.to_numpy(), False
        text, is_repaired = text_of(name, scalar, source, "JSON of it" if is_json else "value")
        if not is_json:
            return text, is_repaired
        try:
            return self._decode_value[name](text), is_repaired
        except DECODE_ERRORS:
            cause, words = judge_value(text.encode(), self._types[name], name in self._fields.optional)
            raise RefusalError(cause, f"{name!r}: {words}") from None


def _picker(source: str, names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """Field values -> the value of one part."""
    if not is_template(source):
        index = names.index(source)
        return lambda values: values[index]
    parts: list[str] = []
    used: list[int] = []
    for literal, name, _, _ in string.Formatter().parse(source):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            parts.append("{" + str(len(used)) + "}")
            used.append(names.index(name))
    join = "".join(parts).format
    return lambda values: join(*(values[index] for index in used))
