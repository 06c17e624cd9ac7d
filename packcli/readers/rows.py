"""Chunks -> rows of parts, for every format but text. One bad row is one BadRowError, with file and line."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.errors import BadRowError
from packcli.formats import is_template, template_fields
from packcli.readers.chunks import Chunk, ColumnChunk
from packcli.readers.fields import _BAD_ROW_HINT, _bad_row, _records
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source

Row = tuple[Any, ...]
"""The parts of one record, in the order of Fields.parts; None for one that is not there."""

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
"""Part -> type in JSON; the others are lists of integers."""

_IS_LIST = frozenset({"messages", "conversations", "tools"})
"""Parts that may be JSON in a string."""


class RowExtractor:
    """Decodes chunks into rows, as the fields say."""

    def __init__(self, fields: Fields, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._fields = fields
        self._types = {}
        for part, source in fields.parts:
            used = template_fields(source) if is_template(source) else (source,)
            for name in used:
                kind = str if is_template(source) else _TYPES.get(part, list[int | bool])
                self._types[name] = kind | None if name in fields.optional else kind
        self._decode: Callable[[Any], Any] = _decoder(self._types)
        self._decode_value = {
            name: msgspec.json.Decoder(kind, strict=True).decode for name, kind in self._types.items()
        }
        self._pick = [_picker(source, fields.names) for _, source in fields.parts]
        self._is_plain = tuple(source for _, source in fields.parts) == fields.names

    def __call__(self, chunk: Chunk) -> tuple[list[Row], NDArray[np.int64]]:
        """The rows of a chunk and the number of each, int64[D].

        Raises:
            BadRowError: a row that is not JSON, lacks a part, or has one of the wrong type.
        """
        if isinstance(chunk, ColumnChunk):
            count = len(chunk.columns[0])
            numbers = np.arange(chunk.first_row, chunk.first_row + count, dtype=np.int64)
            columns = [list(self._values(chunk, index)) for index in range(len(chunk.columns))]
            return [self._row(values) for values in zip(*columns, strict=True)], numbers
        records, numbers = _records(chunk)
        rows, kept = [], []
        for index, record in enumerate(records):
            try:
                rows.append(self._row(msgspec.structs.astuple(self._decode(record))))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if bytes(record).isspace():
                    continue
                raise _bad_row(self._sources[chunk.source], int(numbers[index]), record, error) from None
            except RowError as error:
                raise self.error(chunk, int(numbers[index]), error) from None
            kept.append(index)
        return rows, numbers[kept] if len(kept) < len(numbers) else numbers

    def error(self, chunk: Chunk, row: int, error: Exception | str) -> BadRowError:
        """The error of one row."""
        return BadRowError(f"{place_of(self._sources, chunk.source, row)}: {error}", _BAD_ROW_HINT)

    def _row(self, values: Sequence[Any]) -> Row:
        return tuple(values) if self._is_plain else tuple(pick(values) for pick in self._pick)

    def _values(self, chunk: ColumnChunk, index: int) -> Any:
        """The values of a column, decoded where it is JSON, and checked."""
        name, column = self._fields.names[index], chunk.columns[index]
        optional = name in self._fields.optional
        if isinstance(column, pa.LargeListArray):
            yield from self._integers(chunk, name, column)
            return
        for row in range(len(column)):
            try:
                value = column[row].as_py()
                if value is None:
                    if not optional:
                        raise RowError(f"{name!r} is null")
                elif index < len(chunk.encoded) and chunk.encoded[index]:
                    value = self._decode_value[name](value)
                elif isinstance(value, str):
                    value = msgspec.convert(value, self._types[name])
            except (msgspec.ValidationError, RowError) as error:
                cause = error if isinstance(error, RowError) else f"{name!r}: {error}"
                raise self.error(chunk, chunk.first_row + row, str(cause)) from None
            except UnicodeDecodeError as error:
                cause = f"{name!r} is not UTF-8: {error.reason}"
                raise self.error(chunk, chunk.first_row + row, cause) from None
            yield value

    def _integers(self, chunk: ColumnChunk, name: str, column: pa.LargeListArray) -> Any:
        """Each list as int64[T]."""
        for row in range(len(column)):
            scalar = column[row]
            if not scalar.is_valid:
                if name not in self._fields.optional:
                    raise self.error(chunk, chunk.first_row + row, f"{name!r} is null")
                yield None
                continue
            if scalar.values.null_count:
                raise self.error(chunk, chunk.first_row + row, f"{name!r} holds a null")
            yield scalar.values.to_numpy()


class RowError(ValueError):
    """What is wrong with a row."""


def place_of(sources: Sequence[Source], source: int, row: int) -> str:
    """Where a row is: file:line where there are lines."""
    name = sources[source].name
    return f"{name}:{row + 1}" if sources[source].format == "json" else f"{name}: row {row}"


def _decoder(types: dict[str, Any]) -> Callable[[Any], Any]:
    slots = []
    for index, kind in enumerate(types.values()):
        slot = f"f{index}"
        optional = type(None) in getattr(kind, "__args__", ())
        slots.append((slot, kind, None) if optional else (slot, kind))
    struct = msgspec.defstruct(
        "Row",
        slots,
        rename={f"f{index}": name for index, name in enumerate(types)},
        kw_only=True,  # optional ones may stand before required ones
        gc=False,
    )
    decode: Callable[[Any], Any] = msgspec.json.Decoder(struct).decode
    return decode


def _picker(source: str, names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """Field values -> the value of one part."""
    if not is_template(source):
        index = names.index(source)
        return lambda values: values[index]
    pieces: list[str] = []
    used: list[int] = []
    for literal, name, _, _ in string.Formatter().parse(source):
        pieces.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            pieces.append("{" + str(len(used)) + "}")
            used.append(names.index(name))
    join = "".join(pieces).format
    return lambda values: join(*(values[index] for index in used))
