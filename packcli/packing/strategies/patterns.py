"""Patterns: many packs that hold the same lengths, planned at once and dealt out without a loop over segments.

Segments of one length are interchangeable, so a planner needs their histogram only, and its answer is a
list of patterns. `assign` turns it into packs.

Legend: S segments, P packs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packcli.packing.arrays import offsets, ranges
from packcli.seeds import hash16


class Packs(NamedTuple):
    """What a strategy answers: pack p holds the segments order[pack_offsets[p]:pack_offsets[p+1]]."""

    order: NDArray[np.int32] | NDArray[np.int64]
    """Segments, pack by pack; int64[S], or int32[S] from planners that save memory."""
    pack_offsets: NDArray[np.int64]
    """int64[P+1]."""
    found_by: str = ""
    """Which planner of a portfolio found it."""
    lower_bound: int = 0
    """No packing has fewer packs; 0 when the strategy proved nothing."""


Pattern = tuple[int, tuple[tuple[int, int], ...]]
"""(number of packs, ((length, how many in each pack), ...)), longest first."""

CHUNK = 1 << 18
"""Segments sorted at once: the scratch memory of a sort stays small, and in the cache."""


def num_packs(patterns: list[Pattern]) -> int:
    """The packs of all patterns."""
    return sum(count for count, _ in patterns)


def remaining(histogram: NDArray[np.int64], patterns: list[Pattern]) -> NDArray[np.int64]:
    """The histogram of what the patterns leave over, int64[capacity+1]."""
    left: NDArray[np.int64] = histogram.copy()
    for count, items in patterns:
        for length, each in items:
            left[length] -= count * each
    return left


def binding_limit(histogram: NDArray[np.int64], capacity: int, max_docs: int) -> int:
    """max_docs where it binds; 0 where no pack could hold more anyway, since it then changes nothing."""
    lengths = np.flatnonzero(histogram[1:]) + 1
    most = min(int(histogram[1:].sum()), capacity // int(lengths[0])) if len(lengths) else 0
    return max_docs if max_docs < most else 0


def packs_to_csr(pack_of: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pack of each segment, int64[S], with no pack empty -> (order, pack_offsets)."""
    order = stable_argsort(pack_of)
    counts = np.bincount(pack_of) if len(pack_of) else np.empty(0, dtype=np.int64)
    return order, offsets(counts)


def stable_argsort(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """np.argsort(kind="stable") of integers from 0 up, 16 bits at a time: NumPy sorts those by radix."""
    order: NDArray[np.int64] = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((keys >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def count_lengths(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int64]:
    """How many segments have each length, int64[capacity+1]."""
    histogram: NDArray[np.int64] = np.zeros(capacity + 1, dtype=np.int64)
    # In chunks, since bincount copies its input to int64; larger ones where the histogram itself is large.
    chunk = max(CHUNK, 4 * capacity)
    for first in range(0, len(lengths), chunk):
        histogram += np.bincount(lengths[first : first + chunk], minlength=capacity + 1)
    return histogram


def first_of_length(histogram: NDArray[np.int64]) -> dict[int, int]:
    """Where the segments of each length begin when all are sorted by length."""
    lengths = np.flatnonzero(histogram)
    return dict(zip(lengths.tolist(), offsets(histogram[lengths])[:-1].tolist(), strict=True))


def index_type(count: int) -> type[np.int32] | type[np.int64]:
    """The smaller type that can number `count` things."""
    return np.int32 if count < 2**31 else np.int64


def sort_by_length(lengths: NDArray[np.int32], histogram: NDArray[np.int64], seed: int) -> NDArray[Any]:
    """Segments, shortest first, in a random order within one length; index_type(S)[S].

    Sorted chunk by chunk, each length of a chunk behind that of the chunks before, so that little memory is
    needed besides the result. A chunk is every n-th segment, and so a sample of the whole.
    """
    num_segments = len(lengths)
    out: NDArray[Any] = np.empty(num_segments, dtype=index_type(num_segments))
    cursor = offsets(histogram)[:-1]
    stride = -(-num_segments // CHUNK)
    for first in range(stride):
        keys = lengths[first::stride]
        # Two stable sorts: by a hash, then by length. NumPy sorts 16 bits by radix.
        order = np.argsort(hash16(len(keys), seed, first), kind="stable")
        if len(histogram) <= 2**16:
            keys = keys.astype(np.uint16)
        order = order[np.argsort(keys[order], kind="stable")]
        keys = keys[order]
        runs = np.flatnonzero(np.concatenate((np.ones(1, dtype=np.bool_), keys[1:] != keys[:-1])))
        counts = np.diff(runs, append=len(keys))
        values = keys[runs]
        place = ranges(cursor[values], counts)
        order *= stride
        order += first
        out[place] = order
        cursor[values] += counts
    return out


def assign(lengths: NDArray[np.int32], histogram: NDArray[np.int64], patterns: list[Pattern], seed: int) -> Packs:
    """Deals the segments out to the patterns.

    The segments of one length, in a random order, are one run of a sorted array; a pattern takes the next
    slice of that run, as a block of (packs, how many in each). So nothing is done segment by segment.

    Args:
        lengths: int32[S].
        histogram: Of the lengths.
        patterns: Together they hold every segment once.
        seed: Decides the order within one length.
    """
    by_length = sort_by_length(lengths, histogram, seed)
    taken = first_of_length(histogram)
    order = np.empty_like(by_length)
    begin = 0
    for count, items in patterns:
        num_docs = sum(each for _, each in items)
        block = order[begin : begin + count * num_docs].reshape(count, num_docs)
        column = 0
        for length, each in items:
            first = taken[length]
            taken[length] = first + count * each
            block[:, column : column + each] = by_length[first : taken[length]].reshape(count, each)
            column += each
        begin += count * num_docs
    del by_length
    # Counts, then their sums in place: to save memory, no second array of packs.
    pack_offsets = np.zeros(1 + num_packs(patterns), dtype=np.int64)
    pack = 1
    for count, items in patterns:
        pack_offsets[pack : pack + count] = sum(each for _, each in items)
        pack += count
    np.cumsum(pack_offsets, out=pack_offsets)
    return Packs(order, pack_offsets)
