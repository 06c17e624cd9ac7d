"""Which fields hold the text, and the way from chunks to texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pyarrow as pa

from packcli.config import OPTIONAL, REQUIRED, is_template, template_fields
from packcli.errors import BadRowError, FieldError, NoInputError, PackcliError, StorageError, nearest
from packcli.readers.arrow_files import check_columns, is_text, open_arrow
from packcli.readers.bad_rows import BadRows
from packcli.readers.chunks import BytesChunk, LineChunk
from packcli.readers.extractors import records_of
from packcli.readers.faults import Members, RefusalError, parse
from packcli.readers.files import open_parquet
from packcli.readers.parts import read_parts
from packcli.readers.shapes import Fields, describe, detect, mapping, shaped_fields
from packcli.readers.sources import Source, Span
from packcli.readers.units import Unit

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
