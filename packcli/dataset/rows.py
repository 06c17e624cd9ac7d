"""Packed rows as matrices: whatever columns a directory stores, all of them can be had.

Legend: P rows, L max_len, S segments of all rows, in row order.

A row of L = 8 with documents of 3 and 2 tokens:

    input_ids      a0   a1 a2 b0   b1 p  p  p
    labels        -100  a1 a2 -100 b1 -100 -100 -100    stored, else derived: labels_of
    position_ids   0    1  2  0    1  0  1  2           stored, else derived: positions_of
    segment_ids    1    1  1  2    2  0  0  0           derived: segments_of
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.errors import UsageError
from packcli.packing import Lists, PackBatch, Sources, offsets, ranges


@dataclass(frozen=True, slots=True)
class RowSegments:
    """Real tokens that belong together, in rows of one width: the segments of rows, or the rows without padding."""

    begin: NDArray[np.int64]
    """int64[S]: first position, counted through the whole matrix (row * L + position)."""
    length: NDArray[np.int64]
    """int64[S]."""
    offsets: NDArray[np.int64]
    """int64[P+1]: row p has the segments offsets[p]..offsets[p+1]."""

    @property
    def num_in_row(self) -> NDArray[np.int64]:
        """int64[P]: segments of each row."""
        return np.diff(self.offsets)

    @property
    def order_in_row(self) -> NDArray[np.int64]:
        """int64[S]: 0, 1, ... in each row."""
        return np.arange(len(self.begin)) - np.repeat(self.offsets[:-1], self.num_in_row)

    @property
    def num_real(self) -> NDArray[np.int64]:
        """int64[P]: tokens of each row."""
        return np.diff(offsets(self.length)[self.offsets])

    def positions(self) -> NDArray[np.int64]:
        """Every position of every segment, in order, int64[T]."""
        return ranges(self.begin, self.length)


def segments_of(lengths: NDArray[np.integer], num_in_row: NDArray[np.integer], max_len: int) -> RowSegments:
    """Where segments lie in rows of max_len positions: one after the other from the beginning of each row.

    Args:
        lengths: Tokens of each, int[S], in row order.
        num_in_row: How many of them each row has, int[P].
        max_len: L.
    """
    of_rows = offsets(num_in_row)
    before = offsets(lengths)
    row_begin = np.arange(len(num_in_row)) * max_len
    begin = before[:-1] + np.repeat(row_begin - before[of_rows[:-1]], num_in_row)
    return RowSegments(begin, lengths.astype(np.int64), of_rows)


def labels_of(input_ids: NDArray[np.int32], segments: RowSegments, *, isolate: bool) -> NDArray[np.int32]:
    """The labels of rows that store none, int32[P, L], not shifted.

    Every token is its own label, but for padding and, where documents do not see each other, the first of a segment,
    which nothing predicts.
    """
    is_real = np.arange(input_ids.shape[1]) < segments.num_real[:, None]
    labels: NDArray[np.int32] = np.where(is_real, input_ids, np.int32(IGNORE))
    if isolate:
        labels.reshape(-1)[segments.begin] = IGNORE
    return labels


def positions_of(segments: RowSegments, max_len: int, *, isolate: bool) -> NDArray[np.int32]:
    """The position_ids of rows that store none, int32[P, L].

    They begin at 0 in every segment and in the padding; where documents see each other they run through the row.
    """
    out = np.tile(np.arange(max_len, dtype=np.int32), (len(segments.num_in_row), 1))
    if isolate:
        lengths, _ = _with_padding(segments, max_len)
        flat = out.reshape(-1)
        flat -= np.repeat(offsets(lengths)[:-1] % max_len, lengths).astype(np.int32)
    return out


def _with_padding(segments: RowSegments, max_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(lengths, offsets) of the segments of every row, its padding last, so that a row sums to max_len."""
    padding = max_len - segments.num_real
    has_padding = padding > 0
    lengths = np.insert(segments.length, segments.offsets[1:][has_padding], padding[has_padding])
    return lengths, offsets(segments.num_in_row + has_padding)


def _is_inside(widths: NDArray[np.integer], max_len: int) -> NDArray[np.bool_]:
    """bool[P * L]: the first `widths` positions of each row."""
    return (np.arange(max_len) < widths[:, None]).reshape(-1)


@dataclass(frozen=True)
class Rows:
    """P rows of L positions."""

    input_ids: NDArray[np.int32]
    """int32[P, L], padding included."""
    segments: RowSegments
    """The segments of every row. Without isolation they still tell documents apart where `sources` are known."""
    isolate: bool
    """Whether documents of one row do not see each other."""
    stored_labels: NDArray[np.int32] | None
    """int32[P, L], or None when the shard has none."""
    stored_positions: NDArray[np.int32] | None
    """int32[P, L], or None when the shard has none."""
    sources: Sources | None
    """Where each segment comes from; parallel to `segments`."""

    def __len__(self) -> int:
        """P."""
        return len(self.input_ids)

    @property
    def max_len(self) -> int:
        """L."""
        return int(self.input_ids.shape[1])

    @functools.cached_property
    def num_real(self) -> NDArray[np.int64]:
        """Real tokens of each row, int64[P]."""
        return self.segments.num_real

    @functools.cached_property
    def is_real(self) -> NDArray[np.bool_]:
        """Whether a position holds a token, not padding: bool[P, L]."""
        return np.arange(self.max_len) < self.num_real[:, None]

    @functools.cached_property
    def attended(self) -> RowSegments:
        """What attends to itself only: the segments when rows are isolated, else whole rows without padding."""
        if self.isolate:
            return self.segments
        return segments_of(self.num_real, np.ones(len(self), dtype=np.int64), self.max_len)

    @functools.cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32[P, L], not shifted: those stored, else as labels_of gives them."""
        if self.stored_labels is not None:
            return self.stored_labels
        return labels_of(self.input_ids, self.segments, isolate=self.isolate)

    @functools.cached_property
    def position_ids(self) -> NDArray[np.int32]:
        """int32[P, L]: those stored, else as positions_of gives them."""
        if self.stored_positions is not None:
            return self.stored_positions
        return positions_of(self.attended, self.max_len, isolate=self.isolate)

    @functools.cached_property
    def seq_lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(lengths, offsets): of what attends to itself in every row, padding last, so that a row sums to L."""
        return _with_padding(self.attended, self.max_len)

    @functools.cached_property
    def segment_ids(self) -> NDArray[np.int32]:
        """int32[P, L]: the segment (or row) of each position that attends to itself, from 1; 0 is padding."""
        out = np.zeros(len(self) * self.max_len, dtype=np.int32)
        out[self.attended.positions()] = np.repeat(self.attended.order_in_row + 1, self.attended.length)
        return out.reshape(len(self), self.max_len)

    @functools.cached_property
    def targets(self) -> NDArray[np.int32]:
        """int32[P, L]: labels shifted left inside each segment: what position i predicts, -100 for nothing."""
        out = np.full_like(self.labels, IGNORE)
        out[:, :-1] = self.labels[:, 1:]
        out.reshape(-1)[self.attended.begin + self.attended.length - 1] = IGNORE
        return np.where(self.is_real, out, np.int32(IGNORE))


def make_rows(
    batch: PackBatch, *, max_len: int, pad_id: int, isolate: bool, ragged: bool, needs_segments: bool = True
) -> Rows:
    """Rows from the columns of a shard, padded to max_len.

    Args:
        batch: As the shard stores it; rows may be shorter than max_len.
        max_len: L.
        pad_id: What fills rows that are shorter.
        isolate: As the run was made.
        ragged: Whether padding is not stored.
        needs_segments: Whether it is an error when no column tells where documents end. Else such a row is
            taken for one segment.

    Raises:
        UsageError: no column tells where documents end.
    """
    ids = padded(batch.input_ids, max_len, pad_id)
    labels = None if batch.labels is None else padded(batch.labels, max_len, IGNORE)
    positions = None if batch.position_ids is None else padded_positions(batch.position_ids, max_len, isolate=isolate)
    num_stored = np.diff(batch.input_ids.offsets).astype(np.int64)
    lengths: NDArray[np.integer]
    num_in_row: NDArray[np.integer]
    if batch.sources is not None:
        lengths, num_in_row = batch.sources.end - batch.sources.start, np.diff(batch.sources.offsets)
    else:
        filler = np.zeros(len(ids), dtype=np.int64) if ragged else _filler(ids, labels, pad_id)
        if batch.seq_lengths is not None:
            lengths, num_in_row = batch.seq_lengths.values, np.diff(batch.seq_lengths.offsets)
            lengths, num_in_row = _without_padding(lengths, num_in_row, filler)
        elif batch.position_ids is not None and isolate:
            lengths, num_in_row = _without_padding(*_restarts(batch.position_ids, num_stored), filler)
        elif not isolate or not needs_segments:
            lengths, num_in_row = num_stored - filler, np.ones(len(ids), dtype=np.int64)
        else:
            raise UsageError(
                "no column tells where documents end", "pack with seq_lengths, position_ids or sources among --columns"
            )
    return Rows(ids, segments_of(lengths, num_in_row, max_len), isolate, labels, positions, batch.sources)


def lists_of(rows: Sequence[Sequence[int]]) -> Lists:
    """Rows of numbers as a column of a shard."""
    values = [np.asarray(row, dtype=np.int32) for row in rows]
    flat = np.concatenate(values) if values else np.zeros(0, dtype=np.int32)
    return Lists(flat, offsets(np.array([len(row) for row in values], dtype=np.int64)).astype(np.int32))


def join_batches(batches: Sequence[PackBatch]) -> PackBatch:
    """The rows of several batches of one shard as one batch."""
    if len(batches) == 1:
        return batches[0]

    def lists(name: str) -> Lists | None:
        columns = [column for each in batches if (column := getattr(each, name)) is not None]
        if not columns:
            return None
        return Lists(np.concatenate([each.values for each in columns]), joined(columns))

    def joined(columns: Sequence[Lists | Sources]) -> NDArray[np.int32]:
        return offsets(np.concatenate([np.diff(each.offsets) for each in columns])).astype(np.int32)

    input_ids = lists("input_ids")
    if input_ids is None:
        raise ValueError("no batch")
    columns = [each.sources for each in batches if each.sources is not None]
    sources = None
    if columns:
        names = ("source", "row", "start", "end")
        sources = Sources(
            **{name: np.concatenate([getattr(each, name) for each in columns]) for name in names},
            offsets=joined(columns),
        )
    return PackBatch(
        sum(each.num_rows for each in batches),
        input_ids,
        lists("labels"),
        lists("position_ids"),
        lists("seq_lengths"),
        sources,
    )


def padded(column: Lists, max_len: int, fill: int) -> NDArray[np.int32]:
    """A column as a matrix, int32[P, L]; what a row does not store is `fill`."""
    widths = np.diff(column.offsets)
    values = column.values[column.offsets[0] : column.offsets[-1]]
    if (widths == max_len).all():
        return values.reshape(-1, max_len)
    out = np.full((len(widths), max_len), fill, dtype=np.int32)
    out.reshape(-1)[_is_inside(widths, max_len)] = values
    return out


def padded_positions(column: Lists, max_len: int, *, isolate: bool) -> NDArray[np.int32]:
    """The column position_ids as a matrix, int32[P, L]; in padding they go on as `positions_of` has it."""
    widths = np.diff(column.offsets)
    if (widths == max_len).all():
        return padded(column, max_len, 0)
    whole = segments_of(widths, np.ones(len(widths), dtype=np.int64), max_len)
    out = positions_of(whole, max_len, isolate=isolate)
    out.reshape(-1)[_is_inside(widths, max_len)] = column.values[column.offsets[0] : column.offsets[-1]]
    return out


def _restarts(position_ids: Lists, num_stored: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Segments that begin where positions restart: their lengths, and how many each row has."""
    values = position_ids.values[position_ids.offsets[0] : position_ids.offsets[-1]]
    begins = np.flatnonzero(values == 0)
    rows = np.searchsorted(np.cumsum(num_stored), begins, side="right")
    return np.diff(np.append(begins, len(values))), np.bincount(rows, minlength=len(num_stored))


def _filler(ids: NDArray[np.int32], labels: NDArray[np.int32] | None, pad_id: int) -> NDArray[np.int64]:
    """How many positions at the end of each row hold the pad id and no label, int64[P]."""
    is_filler = ids == pad_id
    if labels is not None:
        is_filler &= labels == IGNORE
    filler: NDArray[np.int64] = np.argmin(is_filler[:, ::-1], axis=1)
    filler[is_filler.all(axis=1)] = ids.shape[1]
    return filler


def _without_padding(
    lengths: NDArray[np.integer], num_in_row: NDArray[np.integer], filler: NDArray[np.int64]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Segments without the padding at the ends of rows: a last segment that is nothing but filler.

    A last document of a single token that is the pad id looks the same; `sources` tell them apart, and exports
    compare the number of tokens with the report's.
    """
    last = np.cumsum(num_in_row) - 1
    is_padding = (num_in_row > 1) & (lengths[last] <= filler)
    return np.delete(lengths, last[is_padding]), num_in_row - is_padding
