"""Segments of packed rows put together to documents, and which copy of a document each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.dataset.rows import Rows
from packcli.errors import StorageError
from packcli.packing import Sources, offsets, ranges
from packcli.seeds import Ints


@dataclass(frozen=True, slots=True)
class WholeDocuments:
    """Documents of one shard, in the order of the input."""

    ids: NDArray[np.int32]
    """int32[T]."""
    labels: NDArray[np.int32]
    """int32[T], not shifted; -100 on the first token of each document and on tokens without loss."""
    offsets: NDArray[np.int64]
    """int64[D+1]."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[D]."""
        return np.diff(self.offsets)

    @property
    def has_mask(self) -> bool:
        """Whether a token besides the first one of a document carries no loss."""
        return int((self.labels == IGNORE).sum()) > len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class SegmentOrder:
    """Segments sorted into documents: documents in the order of the input, the segments of each from its beginning."""

    order: NDArray[np.int64]
    """int64[S]: the segments in that order."""
    is_first: NDArray[np.bool_]
    """bool[S], in that order: whether a document begins with it."""


def order_segments(sources: Sources, *, copies: bool | None = None) -> SegmentOrder:
    """Sorts segments into documents.

    Args:
        sources: Where each segment comes from.
        copies: Whether a document may be there more than once, as in a mixture; None: where two of its segments
            begin with its first token.
    """
    source, row, start = sources.source, sources.row, sources.start
    order = np.lexsort((start, row, source))
    is_first = _begins(source[order], row[order])
    if copies is None:
        copies = int(np.count_nonzero(start == 0)) > int(np.count_nonzero(is_first))
    if copies:
        copy = number_copies(source, row, start, sources.end)
        order = np.lexsort((start, copy, row, source))
        is_first = _begins(source[order], row[order], copy[order])
    return SegmentOrder(order, is_first)


def _begins(*keys: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether an element of sorted arrays differs from the one before it; the first one does."""
    begins = np.ones(len(keys[0]), dtype=np.bool_)
    begins[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return begins


def whole_documents(rows: Rows, *, copies: bool) -> WholeDocuments:
    """The documents of a shard, put together from their segments.

    A shard holds all segments of its documents. The first token of a later segment had to be masked, since nothing
    in its row could predict it; in a document that carries loss everywhere else it gets its label back.

    Args:
        rows: All rows of the shard. Without `sources` a segment is taken for a document.
        copies: Whether a document may be there more than once, as in a mixture.

    Raises:
        StorageError: a document lacks a segment.
    """
    segments, sources = rows.segments, rows.sources
    flat_ids, flat_labels = rows.input_ids.reshape(-1), rows.labels.reshape(-1)
    if sources is None:
        order, is_first = np.arange(len(segments.length)), np.ones(len(segments.length), dtype=np.bool_)
    else:
        by_document = order_segments(sources, copies=copies)
        order, is_first = by_document.order, by_document.is_first
        start, end = sources.start[order], sources.end[order]
        if (start[is_first] != 0).any() or (start[1:] != end[:-1])[~is_first[1:]].any():
            raise StorageError("a document lacks a segment")
    lengths = segments.length[order]
    place = ranges(segments.begin[order], lengths)
    ids, labels = flat_ids[place], flat_labels[place]
    begins = offsets(lengths)[:-1]
    first = np.flatnonzero(is_first)
    of_documents = np.append(begins[first], len(ids))
    masked = labels == IGNORE
    masked[begins] = False
    document = np.cumsum(is_first) - 1  # of each segment
    has_mask = np.zeros(len(first), dtype=np.bool_)
    has_mask[np.searchsorted(of_documents, np.flatnonzero(masked), side="right") - 1] = True
    regained = begins[~is_first & ~has_mask[document]]
    labels[regained] = ids[regained]
    labels[of_documents[:-1]] = IGNORE
    return WholeDocuments(ids, labels, of_documents)


def kept_of_documents(read: Sequence[Sources]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens that rows hold of each document, and in how many segments: int64[D] each, in the order of the input."""
    source, row, start, end = (
        np.concatenate([getattr(each, name) for each in read]) for name in ("source", "row", "start", "end")
    )
    by_document = order_segments(Sources(source, row, start, end, np.array([0, len(row)], dtype=np.int32)))
    first = np.flatnonzero(by_document.is_first)
    return np.add.reduceat((end - start).astype(np.int64)[by_document.order], first), np.diff(
        np.append(first, len(row))
    )


def number_copies(source: NDArray[np.integer], row: Ints, start: NDArray[np.integer], end: NDArray[np.integer]) -> Ints:
    """Which copy of its document each segment belongs to, int64[S], from 0.

    Copies of a document have the same tokens, and may be cut at other places. A segment goes on where another one of
    the same document ends; where several end, in order. What follows no segment begins a copy of its own.

        start, end   0 5   5 9   0 2   2 9   0 9
        copy         0     0     1     1     2        (or 0 and 1 the other way round)
    """
    size = len(row)
    if not size:
        return np.zeros(0, dtype=np.int64)
    by_document = np.lexsort((row, source))
    is_first = np.ones(size, dtype=np.bool_)
    is_first[1:] = (np.diff(source[by_document]) != 0) | (np.diff(row[by_document]) != 0)
    document = np.empty(size, dtype=np.int64)
    document[by_document] = np.cumsum(is_first) - 1
    width = int(end.max()) + 1
    begins, ends = document * width + start, document * width + end
    by_begin, by_end = np.lexsort((end, begins)), np.lexsort((start, ends))
    rank = np.empty(size, dtype=np.int64)  # among segments of the document that begin where this one does
    sorted_begins, sorted_ends = begins[by_begin], ends[by_end]
    rank[by_begin] = np.arange(size) - np.searchsorted(sorted_begins, sorted_begins)
    place = np.searchsorted(sorted_ends, begins) + rank
    follows = (start > 0) & (place < np.searchsorted(sorted_ends, begins, side="right"))
    root = np.where(follows, by_end[np.minimum(place, size - 1)], np.arange(size))
    while True:
        higher = root[root]
        if np.array_equal(higher, root):
            return rank[root]
        root = higher
