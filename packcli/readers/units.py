"""Sources -> units, by a rule that depends on the inputs and unit_bytes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packcli.readers.files import is_json_array, open_parquet, open_source
from packcli.readers.sources import Source, Span

COMPRESSION_GUESS = 4
"""How many bytes of text a compressed byte gives, by guess: decides which small files share a unit."""

SCAN_BYTES = 1 << 22
"""Bytes read at once while newlines are counted."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The scope of planning, work, retry and resume: spans that are read one after the other."""

    index: int
    spans: tuple[Span, ...]


Cutter = Callable[[int, Source, int], list[Span]]
"""Called with the index of a source, the source and unit_bytes; gives its spans, each a unit."""


def cut_units(sources: Sequence[Source], unit_bytes: int, cut: Cutter | None = None) -> list[Unit]:
    """Cuts the sources into units of about unit_bytes of text; `cut` stands in for cut_source.

    Plain JSONL: a line belongs to the unit in which it starts; units start at multiples of unit_bytes.
    Parquet: runs of row groups up to unit_bytes. Compressed, Arrow and array files: one unit a file, which
    gives several parts. Small files of any kind share a unit, in order, up to unit_bytes.
    """
    units: list[Unit] = []
    pending: list[Span] = []
    weight = 0

    def flush() -> None:
        nonlocal pending, weight
        if pending:
            units.append(Unit(len(units), tuple(pending)))
        pending, weight = [], 0

    for index, source in enumerate(sources):
        if source.num_bytes == 0:
            continue
        guess = _guess_bytes(source)
        if guess > unit_bytes:
            flush()
            for span in (cut or cut_source)(index, source, unit_bytes):
                units.append(Unit(len(units), (span,)))
            continue
        if weight + guess > unit_bytes:
            flush()
        pending.append(Span(index))
        weight += guess
    flush()
    return units


def _guess_bytes(source: Source) -> int:
    return source.num_bytes * (COMPRESSION_GUESS if source.compression or source.format == "parquet" else 1)


def is_read_to_be_cut(source: Source, unit_bytes: int) -> bool:
    """Whether cut_source reads the whole file, to count its rows."""
    return source.format == "json" and source.compression is None and source.num_bytes > unit_bytes


def cut_source(index: int, source: Source, unit_bytes: int) -> list[Span]:
    """A source as spans of about unit_bytes; as one span where it can only be read from its beginning."""
    if source.format == "parquet":
        return _cut_parquet(index, source, unit_bytes)
    if source.format == "json" and source.compression is None and not is_json_array(source):
        return _cut_lines(index, source, unit_bytes)
    return [Span(index)]


def _cut_lines(index: int, source: Source, unit_bytes: int) -> list[Span]:
    """Byte ranges snapped to newlines, with the number of the first row of each: one pass over the file."""
    starts = [(0, 0)]  # (byte, row)
    with open_source(source) as file:
        position = row = 0
        target = unit_bytes
        while block := file.read(SCAN_BYTES):
            counted = 0
            # A line that starts at exactly `target` belongs to the next unit: look from the byte before.
            while target - 1 < position + len(block):
                newline = block.find(b"\n", max(target - 1 - position, 0))
                if newline < 0:
                    break
                row += block.count(b"\n", counted, newline + 1)
                counted = newline + 1
                start = position + counted
                starts.append((start, row))
                target = (start // unit_bytes + 1) * unit_bytes
            row += block.count(b"\n", counted)
            position += len(block)
    starts = [(byte, row) for byte, row in starts if byte < position]
    stops = [byte for byte, _ in starts[1:]] + [position]
    return [Span(index, byte, stop, row) for (byte, row), stop in zip(starts, stops, strict=True)]


def _cut_parquet(index: int, source: Source, unit_bytes: int) -> list[Span]:
    metadata = open_parquet(source).metadata
    spans: list[Span] = []
    first_group = first_row = row = weight = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).total_byte_size
        if weight and weight + size > unit_bytes:
            spans.append(Span(index, first_group, group, first_row))
            first_group, first_row, weight = group, row, 0
        weight += size
        row += metadata.row_group(group).num_rows
    spans.append(Span(index, first_group, metadata.num_row_groups, first_row))
    return spans


def most_rows(sources: Sequence[Source]) -> int | None:
    """An upper bound on the rows in the sources; None where only reading them would tell."""
    total = 0
    for source in sources:
        if source.compression or source.format == "arrow":
            return None
        if source.format == "parquet":
            total += open_parquet(source).metadata.num_rows
        else:
            total += source.num_bytes // 2 + 1  # a row takes at least a byte and its newline
    return total
