"""Chunks -> rows of parts, for every format but text."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.formats import is_template, template_fields
from packcli.readers.chunks import Chunk, ColumnChunk, LongChunk, raw_of
from packcli.readers.decoding import DECODE_ERRORS, Decoder
from packcli.readers.fields import Column, decode_singly, refuse_long, taken_columns, taken_records, text_of
from packcli.readers.judging import RefusalError, judge_value
from packcli.readers.rejecting import BadRows
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
        self._decode = Decoder(self._types, fields.optional)
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
            BadRowError: a row that is not JSON, lacks a part, or has one of the wrong type, and the run is to stop.
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
            self._mostly_plain = False  # records have optional fields, or there are bad ones: no second try in vain
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
        """The values of a column, decoded where it is JSON, and checked; of rows that are `bad` None."""
        name = self._fields.names[index]
        for row in range(len(column)):
            value = None
            try:
                value, is_mended = self._value(name, column[row], is_json, source)
                if is_mended:
                    repaired.add(row)
            except RefusalError as refusal:
                bad.setdefault(row, refusal.verdict)
            yield value

    def _value(self, name: str, scalar: pa.Scalar, is_json: bool, source: Source) -> tuple[Any, bool]:
        """A value, and whether it was mended; raises RefusalError."""
        if not scalar.is_valid:
            if name in self._fields.optional:
                return None, False
            raise RefusalError("null", f"{name!r} is null")
        if isinstance(scalar, pa.LargeListScalar):
            if scalar.values.null_count:
                raise RefusalError("null", f"{name!r} holds a null")
            return scalar.values.to_numpy(), False
        text, is_mended = text_of(name, scalar, source, "JSON of it" if is_json else "value")
        if not is_json:
            return text, is_mended
        try:
            return self._decode_value[name](text), is_mended
        except DECODE_ERRORS:
            cause, words = judge_value(text.encode(), self._types[name], name in self._fields.optional)
            raise RefusalError(cause, f"{name!r}: {words}") from None


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
