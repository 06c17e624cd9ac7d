"""Which fields hold the text, and the way from chunks to texts."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.errors import BadRowError, FieldError, NoInputError, PackcliError, StorageError, nearest
from packcli.formats import OPTIONAL, REQUIRED, is_template, template_fields
from packcli.readers.chunks import (
    BytesChunk,
    Chunk,
    ColumnChunk,
    LineChunk,
    LongChunk,
    RawChunk,
    raw_of,
    taken_of,
)
from packcli.readers.columns import check_columns, is_text
from packcli.readers.decoding import Decoder, repaired
from packcli.readers.judging import Members, RefusalError, parse
from packcli.readers.records import open_arrow, read_parts
from packcli.readers.rejecting import TOO_LONG_HINT, BadRows
from packcli.readers.shapes import Fields, describe, detect, mapping, shaped_fields
from packcli.readers.sources import Source
from packcli.readers.units import Span, Unit, open_parquet

DEFAULT_FIELD = "text"

CANDIDATES = 100
"""Records that are looked at for the record shape where bad ones are passed over."""


def find_fields(
    sources: Sequence[Source],
    text_field: str | None,
    text_template: str | None,
    *,
    format_: str | None = None,
    mapped: Sequence[str] = (),
) -> Fields:
    """Resolves the record shape and its fields from the options and from the first record or schema.

    Without options: the one shape that the first record has, where text is the field `text`, or the only field that
    holds a string.

    Args:
        sources: What is to be read.
        text_field: The field that is the text.
        text_template: A format string that makes it of several.
        format_: The shape; None finds it.
        mapped: `part=field`, or `part=template` with braces.

    Raises:
        FieldError: no such field, none or several that could be it (the message lists what was found), or several
            shapes.
        UsageError: a part that the format does not have.
        NoInputError: no source has a record.
    """
    parts = mapping(mapped)
    structured = [source for source in sources if source.format != "txt" and source.num_bytes]
    if not structured:
        if text_field or text_template or parts or format_ not in (None, "text"):
            raise FieldError(
                "--format, --field, --text-field and --text-template say nothing about .txt files", "leave them out"
            )
        return Fields(())
    first: PackcliError | None = None
    for source, found in _candidates(structured):
        try:
            if isinstance(found, PackcliError):
                raise found
            fields = _resolve(source, found, sources, text_field, text_template, format_, parts)
            break
        except PackcliError as error:
            first = first or error
    else:
        others = ", nor in the others" * (len(structured) > 1)
        raise first or NoInputError(f"{structured[0].name}: no record in it{others}")
    for each in structured:
        if each.format in ("parquet", "arrow"):
            check_columns(each, _schema(each), fields)
    return fields


def _resolve(
    source: Source,
    found: dict[str, str],
    sources: Sequence[Source],
    text_field: str | None,
    text_template: str | None,
    format_: str | None,
    parts: dict[str, str],
) -> Fields:
    """The fields that a record with these fields gives; raises as find_fields does."""
    if text_field is not None or text_template is not None:
        format_ = "text"
    elif format_ is None:
        format_ = detect(source.name, found, parts) or "text"
    if format_ == "text":
        if set(parts) - {"text"}:
            raise FieldError(
                f"{source.name}: no record shape has the parts {', '.join(parts)} and the fields {describe(found)}",
                "; ".join(f"{each}: {', '.join((*REQUIRED[each], *OPTIONAL[each]))}" for each in REQUIRED),
            )
        if "text" in parts:
            text_field, text_template = (None, parts["text"]) if is_template(parts["text"]) else (parts["text"], None)
        fields = _text_fields(source, found, text_field, text_template)
    else:
        if any(each.format == "txt" for each in sources):
            raise FieldError(f"--format {format_}: there are .txt files among the inputs", "pack them on their own")
        fields = shaped_fields(source.name, found, format_, parts)
    for name in fields.names:
        if any(each.format == "json" for each in sources) and any(mark in '"\\' or mark < " " for mark in name):
            raise FieldError(f"{source.name}: field {name!r} has a quote, backslash or control character in its name")
    return fields


def _text_fields(source: Source, found: dict[str, str], text_field: str | None, text_template: str | None) -> Fields:
    if text_template is not None:
        wanted = template_fields(text_template)
    else:
        wanted = (text_field,) if text_field is not None else (_choose(source, found),)
    for name in wanted:
        if name not in found:
            close = nearest(name, found)
            meant = f"; did you mean {close!r}?" if close else ""
            option = "--text-template" if text_template else "--text-field"
            raise FieldError(f"{source.name}: no field {name!r}{meant}", f"{option} can use {describe(found)}")
    return Fields(wanted, text_template)


def _choose(source: Source, found: dict[str, str]) -> str:
    strings = [name for name, kind in found.items() if kind == "string"]
    if DEFAULT_FIELD in strings:
        return DEFAULT_FIELD
    if len(strings) == 1:
        return strings[0]
    several = "several fields could be the text" if strings else "no field holds text"
    example = "\\n".join("{" + name + "}" for name in strings[:2])
    hint = f"choose one with --text-field, or join some with --text-template '{example}'" if strings else ""
    if len(strings) > 1:
        pair = f"--field prompt={strings[0]} --field completion={strings[1]}"
        hint += f"; for a prompt and its completion: {pair}"
    raise FieldError(f"{source.name}: {several}: {describe(found)}", hint)


def _schema(source: Source) -> pa.Schema:
    if source.format == "parquet":
        schema = open_parquet(source).schema_arrow
    else:
        with open_arrow(source)[0] as reader:
            schema = reader.schema
    try:
        list(map(str, schema.names))
    except UnicodeDecodeError:
        raise StorageError(f"{source.path}: damaged: the name of a column is not UTF-8") from None
    return schema


def _candidates(sources: Sequence[Source]) -> Iterator[tuple[Source, dict[str, str] | PackcliError]]:
    """What tells the record shape: the first record, or one of the first where bad ones are passed over."""
    for source in sources:
        for number, found in enumerate(_records_of_source(source)):
            yield source, found
            if not source.skip_bad:
                return
            if number + 1 == CANDIDATES or source.format != "json":
                break


def _records_of_source(source: Source) -> Iterator[dict[str, str] | PackcliError]:
    """Name -> kind of every field of a source, from its schema or of each record; or what is wrong with the record."""
    if source.format in ("parquet", "arrow"):
        yield {column.name: "string" if is_text(column.type) else str(column.type) for column in _schema(source)}
        return
    unit = Unit(0, (Span(0),))
    for part in read_parts(unit, [source], Fields(()), unit_bytes=1 << 62, hashed=False):
        for chunk in part.chunks():
            if isinstance(chunk, LineChunk | BytesChunk):
                yield from _look_at(chunk, source)


def _look_at(chunk: LineChunk | BytesChunk, source: Source) -> Iterator[dict[str, str] | PackcliError]:
    for record, row in zip(*records_of(chunk), strict=True):
        raw = bytes(record)
        if raw.isspace():
            continue
        try:
            first = parse(raw, mended=source.lenient)
        except RefusalError as refusal:
            try:
                BadRows([dataclasses.replace(source, skip_bad=False)]).add(chunk, int(row), *refusal.verdict)
            except BadRowError as bad:
                yield bad
            continue
        if isinstance(first, Members):
            yield {name: _json_kind(value) for name, value in first}
        else:
            yield FieldError(
                f"{source.name}:{row + 1}: the first record is {_json_kind(first)}, not an object",
                'packcli reads one object a line, such as {"text": "..."}',
            )


def _json_kind(value: object) -> str:
    names: dict[type, str] = {str: "string", Members: "object", list: "array", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


class TextExtractor:
    """Decodes chunks into texts, one a row, as the fields say."""

    def __init__(self, fields: Fields, sources: Sequence[Source], bad_rows: BadRows | None = None) -> None:
        self._sources = sources
        self._fields = fields
        self._bad_rows = bad_rows or BadRows(sources)
        self._join = _joiner(fields)
        holds_json = any(source.format == "json" for source in sources)
        self._decode = Decoder(dict.fromkeys(fields.names, str) if holds_json else {})

    def __call__(self, chunk: Chunk) -> tuple[list[str], NDArray[np.int64]]:
        """The texts of a chunk and the row number of each, int64[D].

        Raises:
            BadRowError: a row that is not JSON, not UTF-8, or has no text in the field, and the run is to stop; names
                file and line.
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
        except ValueError:  # or one that is not UTF-8: row by row
            values, rows = self._columns_singly(raw, columns, rows, source)
        if self._join is None:
            return values[0], rows
        return list(map(self._join, *values)), rows

    def _columns_singly(
        self, chunk: ColumnChunk, columns: list[Column], rows: NDArray[np.int64], source: Source
    ) -> tuple[list[list[str]], NDArray[np.int64]]:
        found: list[list[str]] = [[] for _ in columns]
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
                for each, text in zip(found, texts, strict=True):
                    each.append(text)
        return found, rows[kept]


def refuse_long(raw: LongChunk, chunk: Chunk, source: Source, bad_rows: BadRows) -> tuple[list[Any], NDArray[np.int64]]:
    """Notes a row that is too long, if it is taken; it gives no document."""
    nothing = np.empty(0, dtype=np.int64)
    taken = taken_of(chunk, np.array([raw.first_row]))
    if taken is not None and not len(taken):
        return [], nothing
    bad_rows.num_rows += 1
    what = f"the row is longer than {source.max_row_bytes:,} bytes"
    bad_rows.add(raw, raw.first_row, "too-long", what, hint=TOO_LONG_HINT)
    return [], nothing


def decode_singly(
    decode: Decoder,
    chunk: LineChunk | BytesChunk,
    records: list[Any],
    rows: NDArray[np.int64],
    source: Source,
    bad_rows: BadRows,
) -> tuple[list[Any], NDArray[np.int64]]:
    """Decodes records one by one: passes over lines of white space, mends what may be mended, and notes bad rows."""
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
    """The text of a field, and whether it was mended.

    Raises:
        RefusalError: there is none, or the bytes `of` it are not UTF-8 and are not to be mended.
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
    """The template as a function of the field values by position; a brace inside a value stays a brace."""
    if fields.template is None:
        return None
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(fields.template):
        pieces.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            pieces.append("{" + str(fields.names.index(name)) + "}")
    return "".join(pieces).format


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
    """`records_of`, those only that are taken."""
    records, rows = records_of(raw)
    taken = taken_of(chunk, rows)
    return (records, rows) if taken is None else ([records[index] for index in taken.tolist()], rows[taken])


Column: TypeAlias = pa.LargeStringArray | pa.LargeListArray


def taken_columns(raw: ColumnChunk, chunk: Chunk) -> tuple[list[Column], NDArray[np.int64]]:
    """The columns of the rows that are taken, and the number of each row."""
    rows = np.arange(raw.first_row, raw.first_row + len(raw.columns[0]), dtype=np.int64)
    taken = taken_of(chunk, rows)
    if taken is None:
        return raw.columns, rows
    # As it lies in memory: pa.array would import pandas first, see shards.
    indices = pa.Array.from_buffers(pa.int64(), len(taken), [None, pa.py_buffer(taken)])
    return [column.take(indices) for column in raw.columns], rows[taken]
