"""Patterns: many packs that hold the same lengths, planned at once and dealt out without a loop over segments.

Segments of one length are interchangeable, so a planner needs their histogram only, and its answer is a
list of patterns. `assign` turns it into packs.

Legend: S segments, P packs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packcli.strategies.random import hash16, permutation


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
"""Segments sorted at once: what a sort needs besides its result stays in the cache, and small."""

BLOCK = 1 << 16
"""Segments dealt out at once: an index takes more memory than they do."""


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


def felt_limit(histogram: NDArray[np.int64], capacity: int, max_docs: int) -> int:
    """max_docs, or 0 when no pack could ever hold more: then a limit changes nothing."""
    lengths = np.flatnonzero(histogram[1:]) + 1
    most = min(int(histogram[1:].sum()), capacity // int(lengths[0])) if len(lengths) else 0
    return max_docs if max_docs < most else 0


def packs_to_csr(pack_of: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pack of each segment, int64[S], every pack from 0 up used -> (order, pack_offsets)."""
    order = stable_argsort(pack_of)
    counts = np.bincount(pack_of) if len(pack_of) else np.empty(0, dtype=np.int64)
    pack_offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=pack_offsets[1:])
    return order, pack_offsets


def stable_argsort(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """np.argsort(kind="stable") of integers from 0 up, 16 bits at a time: NumPy sorts those by radix."""
    order: NDArray[np.int64] = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((keys >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def count_lengths(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int64]:
    """How many segments have each length, int64[capacity+1]."""
    histogram: NDArray[np.int64] = np.zeros(capacity + 1, dtype=np.int64)
    # bincount copies to int64; for a large capacity a chunk must not cost more than it holds.
    chunk = max(CHUNK, 4 * capacity)
    for first in range(0, len(lengths), chunk):
        histogram += np.bincount(lengths[first : first + chunk], minlength=capacity + 1)
    return histogram


def first_of_length(histogram: NDArray[np.int64]) -> dict[int, int]:
    """Where the segments of each length begin when all are sorted by length."""
    lengths = np.flatnonzero(histogram)
    ends = np.cumsum(histogram[lengths])
    return dict(zip(lengths.tolist(), (ends - histogram[lengths]).tolist(), strict=True))


def index_type(count: int) -> type[np.int32] | type[np.int64]:
    """The smaller type that can number `count` things."""
    return np.int32 if count < 2**31 else np.int64


def sort_by_length(lengths: NDArray[np.int32], histogram: NDArray[np.int64], seed: int) -> NDArray[Any]:
    """Segments, shortest first, in a random order within one length; index_type(S)[S].

    Sorted chunk by chunk and dealt out behind one another, so that besides the result little memory is
    needed. A chunk is every n-th segment, and a sample of the whole therefore.
    """
    num_segments = len(lengths)
    out: NDArray[Any] = np.empty(num_segments, dtype=index_type(num_segments))
    cursor = np.cumsum(histogram) - histogram
    stride = -(-num_segments // CHUNK)
    for first in range(stride):
        keys = lengths[first::stride]
        # Two stable sorts: by a hash, then by length. NumPy sorts 16 bits by radix.
        order = np.argsort(hash16(len(keys), seed, first), kind="stable")
        if len(histogram) <= 2**16:
            keys = keys.astype(np.uint16)
        order = order[np.argsort(keys[order], kind="stable")]
        found = keys[order]
        runs = np.flatnonzero(np.concatenate((np.ones(1, dtype=np.bool_), found[1:] != found[:-1])))
        counts = np.diff(runs, append=len(found))
        values = found[runs]
        place = np.repeat(cursor[values] - runs, counts)
        place += np.arange(len(found))
        order *= stride
        order += first
        out[place] = order
        cursor[values] += counts
    return out


def assign(
    lengths: NDArray[np.int32],
    histogram: NDArray[np.int64],
    patterns: list[Pattern],
    seed: int,
    deal: int | None = None,
) -> Packs:
    """Deals the segments out to the patterns.

    The segments of one length, in a random order, are one run of a sorted array; a pattern takes the next
    slice of that run, as a block of (packs, how many in each). So nothing is done segment by segment.

    Args:
        lengths: int32[S].
        histogram: Of the lengths.
        patterns: Hold every segment once.
        seed: Of the order within one length.
        deal: Seed of the order of the packs; None keeps that of the patterns. Packs that are put in order afterwards
            would stand in memory twice.
    """
    starts = None if deal is None else _deal(patterns, len(lengths), deal)
    by_length = sort_by_length(lengths, histogram, seed)
    order = np.empty_like(by_length)
    place = pack = 0
    for sizes, block in _blocks(by_length, histogram, patterns):
        if starts is None:
            order[place : place + len(block)] = block
        else:
            ends = np.cumsum(sizes, dtype=np.int64)
            index = np.repeat(starts.part(pack, len(sizes)) - (ends - sizes), sizes)
            index += np.arange(len(block))
            order[index] = block
        place, pack = place + len(block), pack + len(sizes)
    del by_length
    begins = None
    if starts is not None:
        begins = np.zeros(len(order), dtype=np.bool_)
        for first in range(0, pack, CHUNK):
            begins[starts.part(first, CHUNK)] = True
        del starts
    pack_offsets = np.empty(1 + num_packs(patterns), dtype=np.int64)
    pack_offsets[0] = 0
    if begins is None:
        np.cumsum(_sizes(patterns), out=pack_offsets[1:])
    else:
        pack = 0
        for first in range(0, len(order), CHUNK):
            found = np.flatnonzero(begins[first : first + CHUNK])
            found += first
            pack_offsets[pack : pack + len(found)] = found
            pack += len(found)
        pack_offsets[-1] = len(order)
    return Packs(order, pack_offsets)


def _sizes(patterns: list[Pattern]) -> NDArray[np.int32]:
    """Segments in each pack, int32[P]."""
    sizes = np.array([sum(each for _, each in items) for _, items in patterns], dtype=np.int32)
    return np.repeat(sizes, [count for count, _ in patterns])


class _Starts:
    """Where each pack begins, kept in three bytes up to 2^24 segments: a quarter less than integers would take."""

    def __init__(self, starts: NDArray[Any]) -> None:
        self.low = starts.astype(np.uint16)
        self.high = (starts >> 16).astype(np.min_scalar_type(int(starts.max(initial=0)) >> 16))

    def part(self, first: int, count: int) -> NDArray[np.int64]:
        """The next `count` from there on, or as many as there are."""
        here = slice(first, first + count)
        return (self.high[here].astype(np.int64) << 16) | self.low[here]


def _deal(patterns: list[Pattern], num_segments: int, seed: int) -> _Starts:
    """The packs in a random order."""
    kind = index_type(num_segments)
    sizes = _sizes(patterns)
    packs = permutation(len(sizes), seed).astype(kind)
    sizes = sizes[packs]
    begins: NDArray[Any] = np.cumsum(sizes, dtype=kind)
    begins -= sizes
    del sizes
    starts: NDArray[Any] = np.empty(len(packs), dtype=kind)
    starts[packs] = begins
    del packs, begins
    return _Starts(starts)


def _blocks(
    by_length: NDArray[Any], histogram: NDArray[np.int64], patterns: list[Pattern]
) -> Iterator[tuple[NDArray[np.int32], NDArray[Any]]]:
    """The packs in the order of the patterns, some at a time: how many segments each has, and these."""
    taken = first_of_length(histogram)
    room = max(BLOCK, max((sum(each for _, each in items) for _, items in patterns), default=0))
    buffer = np.empty(min(room, len(by_length)), dtype=by_length.dtype)
    sizes: list[int] = []
    counts: list[int] = []
    used = 0
    for count, items in patterns:
        num_docs = sum(each for _, each in items)
        firsts = []
        for length, each in items:
            firsts.append(taken[length])
            taken[length] += count * each
        done = 0
        while done < count:
            if used + num_docs > len(buffer):
                yield np.repeat(np.array(sizes, dtype=np.int32), counts), buffer[:used]
                sizes, counts, used = [], [], 0
            some = min(count - done, (len(buffer) - used) // num_docs)
            block = buffer[used : used + some * num_docs].reshape(some, num_docs)
            column = 0
            for first, (_, each) in zip(firsts, items, strict=True):
                begin = first + done * each
                block[:, column : column + each] = by_length[begin : begin + some * each].reshape(some, each)
                column += each
            sizes.append(num_docs)
            counts.append(some)
            used, done = used + some * num_docs, done + some
    if used:
        yield np.repeat(np.array(sizes, dtype=np.int32), counts), buffer[:used]
