"""Which fields the records of an input have, and of what kind, as the first records of many files and schemas show.

A kind is a word of JSON (string, number, boolean, null, object, array), for an array also what it holds
(`array of integers`), or the type of a column. Where records differ, the kinds are joined: `string or array`. A null
is left out where the field holds something in another record.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from packcli.errors import BadRowError, FieldError, PackcliError, StorageError
from packcli.readers.arrow_files import is_text, open_arrow
from packcli.readers.bad_rows import BadRows
from packcli.readers.chunks import BytesChunk, LineChunk
from packcli.readers.extractors import records_of
from packcli.readers.faults import Members, RefusalError, parse
from packcli.readers.files import open_parquet
from packcli.readers.parts import read_parts
from packcli.readers.shapes import JSON_IN_A_STRING, LISTS, Fields
from packcli.readers.sources import Source, Span
from packcli.readers.units import Unit

SURVEYED_FILES = 100
"""Most files that are looked into: the first, and others at equal distances in the list."""
SURVEYED_RECORDS = 100
SURVEYED_BYTES = 1 << 20
"""How much of each file is read, from its beginning: up to so many records and bytes, but at least one record."""

MESSAGES = "array of messages with role and content"
TURNS = "array of turns with from and value"
INTEGERS = "array of integers"
Kinds = dict[str, str]
"""Field -> kind."""


def survey(sources: Sequence[Source], read_schema: Callable[[Source], pa.Schema]) -> Iterator[tuple[Source, Kinds]]:
    """The sources that are looked into, each with the fields of its records.

    Args:
        sources: All that is to be read.
        read_schema: schema_of, or what remembers its answers.

    Raises:
        PackcliError: the first record of a source cannot be used, and bad rows are not skipped; or no record can be
            used. (A later bad record raises when the run reads it.)
    """
    step = max(1, -(-len(sources) // SURVEYED_FILES))
    bad: list[PackcliError] = []
    is_any = False
    for source in sources[::step]:
        if source.format in ("parquet", "arrow"):
            kinds: Kinds | None = _columns(read_schema(source))
        else:
            records = list(_records(source, bad))
            kinds = functools.reduce(joined, records) if records else None
        if kinds is not None:
            is_any = True
            yield source, kinds
    if bad and not is_any:
        raise bad[0]


def joined(one: Kinds, other: Kinds) -> Kinds:
    """The fields of both; for a field of both, both its kinds."""
    return {
        name: _join(one.get(name), other.get(name)) for name in (*one, *(each for each in other if each not in one))
    }


def _join(one: str | None, other: str | None) -> str:
    kinds = [each for kind in (one, other) if kind for each in kind.split(" or ")]
    telling = list(dict.fromkeys(each for each in kinds if each != "null")) or ["null"]
    if any(each.startswith("array of ") for each in telling):
        telling = [each for each in telling if each != "array"]  # an empty array does not show what others hold
    return " or ".join(telling)


def schema_of(source: Source) -> pa.Schema:
    """The schema of a Parquet or Arrow file; raises StorageError."""
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


def _columns(schema: pa.Schema) -> Kinds:
    return {column.name: "string" if is_text(column.type) else str(column.type) for column in schema}


def _records(source: Source, bad: list[PackcliError]) -> Iterator[Kinds]:
    """The fields of each of the first records of a source; `bad` gets the errors of those that cannot be used."""
    num_bytes = 0
    for number, (row, raw, value) in enumerate(_first_rows(source)):
        num_bytes += len(raw)
        if isinstance(value, Members):
            yield {name: _kind(name, each) for name, each in value}
        else:
            error = (
                value
                if isinstance(value, PackcliError)
                else FieldError(
                    f"{source.name}:{row + 1}: the first record is {_kind('', value)}, not an object",
                    'packcli reads one object a line, such as {"text": "..."}',
                )
            )
            if number == 0 and not source.skip_bad:
                raise error
            bad.append(error)
        if number + 1 >= SURVEYED_RECORDS or num_bytes >= SURVEYED_BYTES:
            return


def _first_rows(source: Source) -> Iterator[tuple[int, bytes, Any]]:
    """(row, its bytes, its value, or a BadRowError where it cannot be used), from the beginning of the source."""
    parts = read_parts(Unit(0, (Span(0),)), [source], Fields(()), unit_bytes=1 << 62, hashed=False)
    for chunk in (chunk for part in parts for chunk in part.chunks()):
        if not isinstance(chunk, LineChunk | BytesChunk):
            continue
        for record, row in zip(*records_of(chunk), strict=True):
            raw = bytes(record)
            if raw.isspace():
                continue
            try:
                yield int(row), raw, parse(raw, mended=source.lenient)
            except RefusalError as refusal:
                try:
                    BadRows([dataclasses.replace(source, skip_bad=False)]).add(chunk, int(row), *refusal.verdict)
                except BadRowError as bad:
                    yield int(row), raw, bad


def _kind(name: str, value: object) -> str:
    if type(value) is list:
        return _kind_of_list(value)
    if type(value) is str and name in LISTS and value.lstrip().startswith("["):
        try:
            kind = _kind_of_list(parse(value.encode()))
        except (RefusalError, UnicodeEncodeError):
            return "string"
        return JSON_IN_A_STRING if kind in (MESSAGES, TURNS) else "string"
    names: dict[type, str] = {str: "string", Members: "object", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _kind_of_list(value: object) -> str:
    if type(value) is not list or not value:
        return "array"
    if all(type(each) in (int, bool) for each in value):
        return INTEGERS
    if all(isinstance(each, Members) for each in value):
        names = {name for name, _ in value[0]}
        return MESSAGES if {"role", "content"} <= names else TURNS if {"from", "value"} <= names else "array of objects"
    return "array"
