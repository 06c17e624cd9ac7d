"""Columns of Arrow tables -> strings, or lists of integers; what is nested becomes JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pyarrow as pa

from packcli.errors import FieldError
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source


def read_column(rows: pa.RecordBatch, name: str) -> tuple[pa.LargeStringArray | pa.LargeListArray, bool]:
    """A column as strings or as lists of int64, and whether the strings are JSON of what was nested."""
    index = rows.schema.get_field_index(name)
    if index < 0:  # an optional one
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
    """As JSON, where some rows hold what is not UTF-8, which stays as it is, or a map with a key that stands twice."""
    try:
        encoded = [None if each is None else _json_of(each) for each in map(_value, column)]
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"the name of a nested field is not UTF-8: {error}") from None
    return pa.array(encoded, pa.large_binary()).view(pa.large_string())  # nobody looks whether it is UTF-8


def _json_of(value: Any) -> bytes:
    value = _without_nulls(value)
    try:
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, ValueError):  # it holds what is no text
        return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")


def _value(scalar: pa.Scalar) -> Any:
    """A value in Python; of a map with a key that stands twice the last one counts."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StringScalar):  # of every kind
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
