"""Plan + tokens -> packed rows.

Legend: P packs of one batch, L max_len, N positions of the batch (P * L, or the tokens alone of ragged rows).

Two documents of 3 and 2 tokens in a pack of L = 8, isolated:

    input_ids      a0   a1 a2 b0   b1 p  p  p
    labels        -100  a1 a2 -100 b1 -100 -100 -100    (also -100 on tokens that carry no loss)
    position_ids   0    1  2  0    1  0  1  2
    seq_lengths    3 2 3

Tokens are moved once, by gathers over blocks of rows that stay in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.packing.arrays import offsets, ranges
from packcli.packing.columns import Lists, Origin, PackBatch, RowLayout, Sources, rows_per_batch
from packcli.packing.plan import Plan

BLOCK_TOKENS = 1 << 15
"""Positions gathered at once: indices, ids and positions of a block fit the second-level cache."""


class Assembler:
    """Makes the rows of one plan.

    Args:
        plan: The plan over D documents.
        ids: uint32[T], the tokens of the unit.
        doc_offsets: int64[D], where each document of the plan starts in ids.
        origin: Where each document of the plan comes from: arrays over the same D documents.
        layout: How a row looks.
        loss: bool[T], which tokens carry loss; None: all.
    """

    def __init__(
        self,
        plan: Plan,
        ids: NDArray[np.uint32],
        doc_offsets: NDArray[np.int64],
        origin: Origin,
        layout: RowLayout,
        loss: NDArray[np.bool_] | None = None,
    ) -> None:
        self._plan = plan
        self._loss = loss
        self._layout = layout
        self._ids = ids.view(np.int32)
        segments = plan.segments
        self._doc = segments.doc[plan.order]
        self._start = segments.start[plan.order]
        self._length = segments.length[plan.order].astype(np.int64)
        self._begin = doc_offsets[self._doc] + self._start  # int64[S]: first token of each segment in ids
        self._origin = origin

    def batches(self) -> Iterator[PackBatch]:
        """All rows, in batches of rows_per_batch(L). A batch may be a view of the ids, and shares no other memory."""
        step = rows_per_batch(self._plan.max_len)
        for first in range(0, self._plan.num_packs, step):
            yield self.rows(first, min(first + step, self._plan.num_packs))

    def rows(self, first: int, last: int) -> PackBatch:
        """Rows first..last-1, first < last."""
        layout, max_len = self._layout, self._plan.max_len
        pack_offsets = self._plan.pack_offsets[first : last + 1]
        segments = slice(int(pack_offsets[0]), int(pack_offsets[-1]))
        counts = np.diff(pack_offsets)
        runs = _Runs(self._begin[segments], self._length[segments], counts, 0 if layout.ragged else max_len)
        row_offsets = runs.row_offsets
        columns = layout.columns
        has_mask = self._loss is not None and "labels" in columns
        input_ids, positions, loss = self._gather(runs, "position_ids" in columns, has_mask)
        labels = None
        if "labels" in columns:
            labels = input_ids.copy() if loss is None else np.where(loss, input_ids, np.int32(IGNORE))
            labels[runs.padding] = IGNORE
            if layout.isolate:
                labels[runs.first_positions] = IGNORE
        return PackBatch(
            last - first,
            Lists(input_ids, row_offsets),
            Lists(labels, row_offsets) if labels is not None else None,
            Lists(positions, row_offsets) if positions is not None else None,
            runs.seq_lengths(layout.isolate) if "seq_lengths" in columns else None,
            self._sources(segments, counts) if "sources" in columns else None,
        )

    def _gather(
        self, runs: _Runs, want_positions: bool, want_loss: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32] | None, NDArray[np.bool_] | None]:
        """Of all positions, padding included: the ids and the positions, int32[N] each, and the mask, bool[N]."""
        total = runs.num_positions
        first_id = runs.contiguous
        in_place = first_id is not None
        ids = self._ids[first_id:][:total] if in_place else np.empty(total, dtype=np.int32)
        positions = np.empty(total, dtype=np.int32) if want_positions else None
        loss: NDArray[np.bool_] | None = None
        if want_loss and self._loss is not None:
            loss = self._loss[first_id:][:total] if in_place else np.empty(total, dtype=np.bool_)
        counter = np.arange(min(BLOCK_TOKENS, total), dtype=np.int64)
        # Blocks end with runs: a run is at most L, so a block is below BLOCK_TOKENS + L.
        edges = np.append(np.searchsorted(runs.dest, np.arange(0, total, BLOCK_TOKENS)), len(runs.dest))
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if low == high:
                continue
            begin = int(runs.dest[low])
            lengths = runs.length[low:high]
            size = int(runs.dest[high - 1] + lengths[-1]) - begin
            if size > len(counter):
                counter = np.arange(size, dtype=np.int64)
            in_run = counter[:size] - np.repeat(runs.dest[low:high] - begin, lengths)
            if positions is not None:
                positions[begin : begin + size] = in_run
            if not in_place:
                in_run += np.repeat(runs.begin[low:high], lengths)
                np.take(self._ids, in_run, out=ids[begin : begin + size], mode="clip")
                if loss is not None and self._loss is not None:
                    np.take(self._loss, in_run, out=loss[begin : begin + size], mode="clip")
        if not in_place:
            ids[runs.padding] = self._layout.pad_id
        if positions is not None and not self._layout.isolate:
            row_begin = np.repeat(runs.row_offsets[:-1], np.diff(runs.row_offsets))
            np.subtract(np.arange(total, dtype=np.int32), row_begin, out=positions)
        return ids, positions, loss

    def _sources(self, segments: slice, counts: NDArray[np.int64]) -> Sources:
        doc, start = self._doc[segments], self._start[segments]
        return Sources(
            self._origin.source[doc],
            self._origin.row[doc],
            start.astype(np.int32),
            (start + self._length[segments]).astype(np.int32),
            _offsets(counts),
        )


class _Runs:
    """A batch as runs of positions: a run for each segment, in order, and one for the padding that ends a row.

    begin, length and dest are int64 arrays over the runs: where it begins in ids, how long it is, where it
    begins in the batch. A row is padded to `width` positions; 0 stands for ragged rows.
    """

    def __init__(
        self, begin: NDArray[np.int64], length: NDArray[np.int64], counts: NDArray[np.int64], width: int
    ) -> None:
        segment_offsets = offsets(counts)
        segment_ends = segment_offsets[1:]
        used = np.diff(offsets(length)[segment_offsets])
        self._tail = width - used if width else np.zeros_like(used)
        padded = np.flatnonzero(self._tail)
        self._used = used
        self.begin, self.length, self.counts = begin, length, counts
        is_pad = np.zeros(len(length), dtype=np.bool_)
        if len(padded):
            # Runs of padding are gathered like the others, from the first ids; pad_id takes their place afterwards.
            self.begin = np.insert(begin, segment_ends[padded], 0)
            self.length = np.insert(length, segment_ends[padded], self._tail[padded])
            is_pad = np.insert(is_pad, segment_ends[padded], True)
            self.counts = counts + (self._tail > 0)
        self.is_pad = is_pad
        self.dest = offsets(self.length)[:-1]
        self.row_offsets = _offsets(used + self._tail)

    @property
    def num_positions(self) -> int:
        return int(self.row_offsets[-1])

    @property
    def first_positions(self) -> NDArray[np.int64]:
        """The first position of every segment."""
        return self.dest[~self.is_pad]

    @property
    def contiguous(self) -> int | None:
        """Where the batch starts in ids when it is one slice of them (concat), else None."""
        if self.is_pad.any() or (self.begin[1:] != self.begin[:-1] + self.length[:-1]).any():
            return None
        return int(self.begin[0])

    @functools.cached_property
    def padding(self) -> NDArray[np.int64]:
        """Every position of padding."""
        return ranges(self.dest[self.is_pad], self.length[self.is_pad])

    def seq_lengths(self, isolate: bool) -> Lists:
        """Lengths of the runs of every row; without isolation, all real tokens of a row are one run."""
        if isolate:
            return Lists(self.length.astype(np.int32), _offsets(self.counts))
        both = np.stack((self._used, self._tail), axis=1)
        return Lists(both[both > 0].astype(np.int32), _offsets(1 + (self._tail > 0)))


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    return offsets(counts).astype(np.int32)
