"""Which fields hold the text, and the way from chunks to texts."""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.errors import BadRowError, FieldError, NoInputError, StorageError, nearest
from packcli.formats import OPTIONAL, REQUIRED, is_template, template_fields
from packcli.readers.chunks import BytesChunk, Chunk, ColumnChunk, LineChunk
from packcli.readers.records import check_columns, is_text, open_arrow, read_parts
from packcli.readers.shapes import Fields, describe, detect, mapping, shaped_fields
from packcli.readers.sources import Source
from packcli.readers.units import Span, Unit, open_parquet

DEFAULT_FIELD = "text"
EXCERPT = 80


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
    for source in structured:
        found = _fields_of(source)
        if found is not None:
            break
    else:
        raise NoInputError(f"{structured[0].name}: no record in it" + (", nor in the others" * (len(structured) > 1)))
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
        if any(each.format == "json" for each in structured) and any(mark in '"\\' or mark < " " for mark in name):
            raise FieldError(f"{source.name}: field {name!r} has a quote, backslash or control character in its name")
    for each in structured:
        if each.format in ("parquet", "arrow"):
            check_columns(each, _schema(each), fields)
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


def _fields_of(source: Source) -> dict[str, str] | None:
    """Name -> kind of every field of a source, from its schema or first record; None when it has no record."""
    if source.format in ("parquet", "arrow"):
        return {column.name: "string" if is_text(column.type) else str(column.type) for column in _schema(source)}
    unit = Unit(0, (Span(0),))
    for part in read_parts(unit, [source], Fields(()), unit_bytes=1 << 62, hashed=False):
        for chunk in part.chunks():
            records, rows = _records(chunk)
            for record, row in zip(records, rows.tolist(), strict=True):
                if bytes(record).isspace():
                    continue
                try:
                    first = msgspec.json.decode(record)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise _bad_row(source, row, record, error) from None
                if not isinstance(first, dict):
                    raise FieldError(
                        f"{source.name}:{row + 1}: the first record is {_json_kind(first)}, not an object",
                        'packcli reads one object a line, such as {"text": "..."}',
                    )
                return {name: _json_kind(value) for name, value in first.items()}
    return None


def _json_kind(value: object) -> str:
    names: dict[type, str] = {str: "string", dict: "object", list: "array", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def split_array(data: bytes, source: Source) -> list[Any]:
    """The elements of a JSON array, undecoded; raises StorageError when it is not one whole array."""
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StorageError(
            f"{source.name}: begins like a JSON array and is not one: {error}",
            "packcli reads one array of objects, or one object a line",
        ) from None


class TextExtractor:
    """Decodes chunks into texts, one a row, as the fields say."""

    def __init__(self, fields: Fields, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._fields = fields
        self._join = _joiner(fields)
        holds_json = any(source.format == "json" for source in sources)
        self._decode: Callable[[Any], Any] = _decoder(fields.names) if holds_json else msgspec.json.decode

    def __call__(self, chunk: Chunk) -> tuple[list[str], NDArray[np.int64]]:
        """The texts of a chunk and the row number of each, int64[D].

        Raises:
            BadRowError: a row that is not JSON, not UTF-8, or has no text in the field; names file and line.
        """
        source = self._sources[chunk.source]
        if isinstance(chunk, ColumnChunk):
            return self._from_columns(chunk, source)
        records, rows = _records(chunk)
        if source.format == "txt":
            return _decode_text(records, rows, source), rows
        decode = self._decode
        try:
            objects = [decode(record) for record in records]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            objects, rows = self._decode_singly(records, rows, source)
        if self._join is None:
            return [each.f0 for each in objects], rows
        join = self._join
        return [join(*msgspec.structs.astuple(each)) for each in objects], rows

    def _decode_singly(
        self, records: list[Any], rows: NDArray[np.int64], source: Source
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """Passes over lines of white space, and names the first row that cannot be decoded."""
        objects, kept = [], []
        for index, record in enumerate(records):
            try:
                objects.append(self._decode(record))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if bytes(record).isspace():
                    continue
                raise _bad_row(source, int(rows[index]), record, error) from None
            kept.append(index)
        return objects, rows[kept]

    def _from_columns(self, chunk: ColumnChunk, source: Source) -> tuple[list[str], NDArray[np.int64]]:
        rows = np.arange(chunk.first_row, chunk.first_row + len(chunk.columns[0]), dtype=np.int64)
        values = []
        for name, column in zip(self._fields.names, chunk.columns, strict=True):
            if column.null_count:
                row = int(np.argmax(np.asarray(column.is_null())))
                raise BadRowError(f"{source.name}: row {chunk.first_row + row}: {name!r} is null", _BAD_ROW_HINT)
            try:
                values.append(column.to_pylist())
            except UnicodeDecodeError as error:
                row = next(index for index in range(len(column)) if not _is_utf8(column[index]))
                raise BadRowError(
                    f"{source.name}: row {chunk.first_row + row}: {name!r} is not UTF-8: {error.reason}", _BAD_ROW_HINT
                ) from None
        if self._join is None:
            return values[0], rows
        return list(map(self._join, *values)), rows


_BAD_ROW_HINT = "mend or remove the row, and run the same command again: committed units are kept"


def _is_utf8(value: pa.LargeStringScalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


@functools.cache
def _decoder(names: tuple[str, ...]) -> Callable[[Any], Any]:
    """A decoder that takes the named fields, all of them strings, and skips all others."""
    slots = [f"f{index}" for index in range(len(names))]
    struct = msgspec.defstruct(
        "Row", [(slot, str) for slot in slots], rename=dict(zip(slots, names, strict=True)), gc=False
    )
    decode: Callable[[Any], Any] = msgspec.json.Decoder(struct).decode
    return decode


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


def _records(chunk: Chunk) -> tuple[list[Any], NDArray[np.int64]]:
    """The undecoded records of a chunk, empty lines left out, and the row number of each."""
    if isinstance(chunk, BytesChunk):
        records = chunk.records
        return records, np.arange(chunk.first_row, chunk.first_row + len(records), dtype=np.int64)
    if not isinstance(chunk, LineChunk):
        raise TypeError(f"no records in {type(chunk).__name__}")
    lines = chunk.lines
    rows = np.arange(chunk.first_row, chunk.first_row + len(lines), dtype=np.int64)
    if not all(lines):
        full = [index for index, line in enumerate(lines) if line]
        return [lines[index] for index in full], rows[full]
    return lines, rows


def _decode_text(records: list[Any], rows: NDArray[np.int64], source: Source) -> list[str]:
    texts = []
    for record, row in zip(records, rows.tolist(), strict=True):
        try:
            texts.append(record.decode("utf-8-sig" if row == 0 else "utf-8"))
        except UnicodeDecodeError as error:
            place = f"{source.name}: document {row}, byte {error.start}"
            raise BadRowError(f"{place}: not UTF-8: {error.reason}", _BAD_ROW_HINT) from None
    return texts


def _bad_row(source: Source, row: int, record: Any, error: Exception) -> BadRowError:
    raw = bytes(record)
    shown = raw[:EXCERPT].decode("utf-8", "backslashreplace") + ("..." if len(raw) > EXCERPT else "")
    if isinstance(error, UnicodeDecodeError):
        cause = f"not UTF-8: {error.reason} at byte {_first_bad_byte(raw)} of the line"
    elif isinstance(error, msgspec.ValidationError):
        cause = str(error)
    elif isinstance(error, RecursionError):
        cause = "not readable JSON: nested too deeply"
    elif _holds_lone_surrogate(raw):
        cause = "a \\ud800..\\udfff escape without its other half is no character"
    else:
        cause = f"not valid JSON: {error}"
    return BadRowError(f"{source.name}:{row + 1}: {cause}\n    {shown!a}", _BAD_ROW_HINT)


def _first_bad_byte(raw: bytes) -> int:
    """Where a line stops being UTF-8; msgspec counts from the beginning of the string."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _holds_lone_surrogate(raw: bytes) -> bool:
    """Whether the line is JSON but for a lone surrogate, which msgspec calls truncated."""
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False
