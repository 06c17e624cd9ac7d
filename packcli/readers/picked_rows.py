"""Some rows of a source by their numbers. Of the rest as little is read as the format allows:

Parquet          the row groups that hold the rows
Arrow            memory-mapped: pages of other columns and batches are not touched
plain JSONL      the file up to the last of the rows; lines before are counted, not decoded
.gz .zst .txt    likewise, after decompression
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from packcli.readers.chunks import BytesChunk, LineChunk, LongChunk, RawChunk
from packcli.readers.files import ReadProgress, open_parquet
from packcli.readers.parts import _read_span
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source, Span


@dataclass(frozen=True, slots=True)
class PickedRows:
    """Rows of several sources. A reader of documents takes them in place of a Part; they have no digest."""

    sources: Sequence[Source]
    fields: Fields
    split_on: str | None
    rows: Mapping[int, Sequence[int]]
    """Index of a source -> numbers of rows, in any order."""

    def chunks(self) -> Iterator[RawChunk]:
        """A chunk for each of the rows, ordered by source and row. A blank line gives a chunk too, but no document."""
        for index in sorted(self.rows):
            wanted = sorted(set(self.rows[index]))
            for span in _spans(index, self.sources[index], wanted):
                left = iter(row for row in wanted if row >= span.first_row)
                row = next(left, None)
                for chunk in _read_span(span, self.sources[index], self.fields, self.split_on, ReadProgress()):
                    end = chunk.first_row + _num_rows(chunk)
                    while row is not None and row < end:
                        yield chunk.rows(row - chunk.first_row, row - chunk.first_row + 1)
                        row = next(left, None)
                    if row is None:
                        break


def _spans(index: int, source: Source, wanted: Sequence[int]) -> Iterator[Span]:
    """What to read: the row groups that hold the rows for Parquet, else the whole file."""
    if source.format != "parquet":
        yield Span(index)
        return
    metadata = open_parquet(source).metadata
    first = 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if any(first <= row < first + count for row in wanted):
            yield Span(index, group, group + 1, first)
        first += count


def _num_rows(chunk: RawChunk) -> int:
    if isinstance(chunk, LineChunk):
        return chunk.data.count(b"\n") + (not chunk.data.endswith(b"\n"))
    if isinstance(chunk, LongChunk):
        return 1
    return len(chunk.records if isinstance(chunk, BytesChunk) else chunk.columns[0])
