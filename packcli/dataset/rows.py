"""Packed rows as matrices: whatever columns a directory holds, all of them can be had.

Legend: P rows, L max_len, S pieces (the segments of all rows, in row order).

A row of L = 8 with documents of 3 and 2 tokens:

    input_ids      a0   a1 a2 b0   b1 p  p  p
    labels        -100  a1 a2 -100 b1 -100 -100 -100    stored, else derived
    position_ids   0    1  2  0    1  0  1  2
    segment_ids    1    1  1  2    2  0  0  0
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.errors import UsageError
from packcli.packing import Lists, Sources


@dataclass(frozen=True, slots=True)
class Pieces:
    """Runs of real tokens: the segments of rows, or the rows themselves."""

    begin: NDArray[np.int64]
    """int64[S]: first position, counted through the whole matrix (row * L + position)."""
    length: NDArray[np.int64]
    """int64[S]."""
    offsets: NDArray[np.int64]
    """int64[P+1]: row p has the pieces offsets[p]..offsets[p+1]."""

    @property
    def row(self) -> NDArray[np.int64]:
        """int64[S]: the row of each piece."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def order_in_row(self) -> NDArray[np.int64]:
        """int64[S]: 0, 1, ... in each row."""
        return np.arange(len(self.begin)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def positions(self) -> NDArray[np.int64]:
        """Every position of every piece, in order, int64[T]."""
        ends = np.cumsum(self.length)
        out = np.repeat(self.begin - (ends - self.length), self.length)
        out += np.arange(len(out))
        return out


@dataclass(frozen=True)
class Rows:
    """P rows of L positions."""

    input_ids: NDArray[np.int32]
    """int32[P, L]; padding is stored."""
    pieces: Pieces
    """The segments of every row. Without isolation they still tell documents apart where `sources` are known."""
    isolate: bool
    """Whether documents of one row do not see each other."""
    stored_labels: NDArray[np.int32] | None
    """int32[P, L], or None when the shard has none."""
    sources: Sources | None
    """Where each piece comes from; parallel to `pieces`."""

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
        return np.bincount(self.pieces.row, weights=self.pieces.length, minlength=len(self)).astype(np.int64)

    @functools.cached_property
    def is_real(self) -> NDArray[np.bool_]:
        """Whether a position holds a token, not padding: bool[P, L]."""
        return np.arange(self.max_len) < self.num_real[:, None]

    @functools.cached_property
    def runs(self) -> Pieces:
        """What attends to itself only: the segments when rows are isolated, else whole rows (without padding)."""
        if self.isolate:
            return self.pieces
        return Pieces(np.arange(len(self)) * self.max_len, self.num_real, np.arange(len(self) + 1))

    @functools.cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32[P, L], not shifted: those stored, else every token but padding and, if isolated, the first of a run."""
        if self.stored_labels is not None:
            return self.stored_labels
        labels = np.where(self.is_real, self.input_ids, np.int32(IGNORE))
        if self.isolate:
            labels.reshape(-1)[self.pieces.begin] = IGNORE
        return labels

    @functools.cached_property
    def position_ids(self) -> NDArray[np.int32]:
        """int32[P, L]: from 0 in every run, and in padding; without isolation they run through."""
        out = np.tile(np.arange(self.max_len, dtype=np.int32), (len(self), 1))
        if self.isolate:
            lengths, _ = self.seq_lengths
            out = out.reshape(-1)
            out -= np.repeat((np.cumsum(lengths) - lengths) % self.max_len, lengths).astype(np.int32)
        return out.reshape(len(self), self.max_len)

    @functools.cached_property
    def seq_lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(lengths, offsets): of the runs of every row, padding last, so that a row sums to L."""
        tail = self.max_len - self.num_real
        ends = self.runs.offsets[1:]
        lengths = np.insert(self.runs.length, ends[tail > 0], tail[tail > 0])
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(np.diff(self.runs.offsets) + (tail > 0), out=offsets[1:])
        return lengths, offsets

    @functools.cached_property
    def segment_ids(self) -> NDArray[np.int32]:
        """int32[P, L]: the run of each position, from 1; 0 is padding."""
        out = np.zeros(len(self) * self.max_len, dtype=np.int32)
        out[self.runs.positions()] = np.repeat(self.runs.order_in_row + 1, self.runs.length)
        return out.reshape(len(self), self.max_len)

    @functools.cached_property
    def targets(self) -> NDArray[np.int32]:
        """int32[P, L]: labels shifted left inside each run: what position i predicts, -100 for nothing."""
        out = np.full_like(self.labels, IGNORE)
        out[:, :-1] = self.labels[:, 1:]
        out.reshape(-1)[self.runs.begin + self.runs.length - 1] = IGNORE
        return np.where(self.is_real, out, np.int32(IGNORE))

    @property
    def has_mask(self) -> bool:
        """Whether a label is masked besides padding and the first one of each piece."""
        masked = (self.labels == IGNORE) & self.is_real
        masked.reshape(-1)[self.pieces.begin] = False
        return bool(masked.any())


def make_rows(
    input_ids: Lists,
    labels: Lists | None,
    position_ids: Lists | None,
    seq_lengths: Lists | None,
    sources: Sources | None,
    *,
    max_len: int,
    pad_id: int,
    isolate: bool,
    ragged: bool,
) -> Rows:
    """Rows from the columns of a shard, padded to max_len.

    Args:
        input_ids: The column; rows may be shorter than max_len.
        labels, position_ids, seq_lengths, sources: The other columns; None where the shard has none.
        max_len: L.
        pad_id: What fills rows that are shorter.
        isolate: As the run was made.
        ragged: Whether padding is not stored.

    Raises:
        UsageError: no column tells where documents end.
    """
    ids = _matrix(input_ids, max_len, pad_id)
    masked = _matrix(labels, max_len, IGNORE) if labels is not None else None
    num_stored = np.diff(input_ids.offsets).astype(np.int64)
    if sources is not None:
        lengths, counts = (sources.end - sources.start).astype(np.int64), np.diff(sources.offsets)
    else:
        filler = np.zeros(len(ids), dtype=np.int64) if ragged else _filler(ids, masked, pad_id)
        if seq_lengths is not None:
            lengths, counts = seq_lengths.values.astype(np.int64), np.diff(seq_lengths.offsets)
            lengths, counts = _without_padding(lengths, counts, filler)
        elif not isolate:
            lengths, counts = num_stored - filler, np.ones(len(ids), dtype=np.int64)
        elif position_ids is not None:
            lengths, counts = _without_padding(*_restarts(position_ids, num_stored), filler)
        else:
            raise UsageError(
                "no column tells where documents end", "pack with seq_lengths, position_ids or sources among --columns"
            )
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    ends = np.cumsum(lengths)
    begin_in_row = ends - lengths
    starts = np.append(begin_in_row, ends[-1] if len(ends) else 0)[offsets[:-1]]
    begin = begin_in_row - np.repeat(starts, counts) + np.repeat(np.arange(len(ids)) * max_len, counts)
    return Rows(ids, Pieces(begin, lengths, offsets), isolate, masked, sources)


def _matrix(column: Lists, max_len: int, fill: int) -> NDArray[np.int32]:
    widths = np.diff(column.offsets)
    values = column.values[column.offsets[0] : column.offsets[-1]]
    if (widths == max_len).all():
        return values.reshape(-1, max_len)
    out = np.full((len(widths), max_len), fill, dtype=np.int32)
    out[np.arange(max_len) < widths[:, None]] = values
    return out


def _restarts(position_ids: Lists, num_stored: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Runs that begin where positions restart: their lengths, and how many each row has."""
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
    lengths: NDArray[np.int64], counts: NDArray[np.integer], filler: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Runs without the padding at the ends of rows: a last run that is nothing but filler.

    A last document of a single token that is the pad id looks the same; `sources` tell them apart, and exports
    compare the number of tokens with the report's.
    """
    last = np.cumsum(counts) - 1
    is_padding = (counts > 1) & (lengths[last] <= filler)
    return np.delete(lengths, last[is_padding]), counts - is_padding
