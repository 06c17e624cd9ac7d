"""Segments of packed rows put together to documents, and which copy of a document each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.packing import Sources
from packcli.seeds import Ints


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents of one shard, in the order of the input."""

    ids: NDArray[np.int32]
    """int32[T]."""
    labels: NDArray[np.int32]
    """int32[T], not shifted; -100 on the first token of each document and on tokens without loss."""
    offsets: NDArray[np.int64]
    """int64[D+1]."""
    place: tuple[NDArray[np.int32], NDArray[np.int64]] | None
    """Source and row of each document, where they are known."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[D]."""
        return np.diff(self.offsets)

    @property
    def has_mask(self) -> bool:
        """Whether a token besides the first one of a document carries no loss."""
        return int((self.labels == IGNORE).sum()) > len(self.offsets) - 1


def kept_of_documents(read: Sequence[Sources]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens that rows hold of each document, and in how many segments: int64[D] each, in the order of the input."""
    source = np.concatenate([each.source for each in read])
    row = np.concatenate([each.row for each in read])
    tokens = np.concatenate([each.end - each.start for each in read]).astype(np.int64)
    start = np.concatenate([each.start for each in read])
    order = np.lexsort((row, source))
    is_first = np.append(True, (np.diff(source[order]) != 0) | (np.diff(row[order]) != 0))
    if np.count_nonzero(start == 0) > np.count_nonzero(is_first):  # a mixture: copies count apart
        copy = number_copies(source, row, start, np.concatenate([each.end for each in read]))
        order = np.lexsort((copy, row, source))
        is_first = np.append(
            True, (np.diff(source[order]) != 0) | (np.diff(row[order]) != 0) | (np.diff(copy[order]) != 0)
        )
    first = np.flatnonzero(is_first)
    return np.add.reduceat(tokens[order], first), np.diff(np.append(first, len(row)))


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
