"""shuffle-fit: packs in a random order, so that the lengths inside a pack are not alike.

Best-fit decreasing puts long with long: on short documents the lengths of pack mates correlate by 0.8. Here
documents come in a random order, and only the last few percent of them, a random sample too, are placed by
best-fit decreasing to fill what the others left open:

    in a random order   5 2 | 4 3 | 1 6 | ...     held back   3 1 ...
    filled up           5 2 1 | 4 3 | 1 6 | ...

Short documents are laid into packs one behind the other (next fit). Where documents are long beside the
capacity that would leave a sixth of it open and more, so they are laid by best fit, a round at a time.

The length of a document and the mean of its pack mates correlate by less than 0.05 where ten documents and more fill
a pack. Of k documents that fill a pack the mates of one of length a have the mean (capacity - a) / (k - 1), which falls
with a, and only packs of other k make up for it: with two to four a pack no packing at random is near zero, full or
not. Lognormal lengths with a mean of 1/8, 1/4 and 1/2 of the capacity have -0.03, -0.29 and -0.60, at 99.9 %; next fit,
which chooses nothing, -0.07, -0.17 and -0.36 at 80 %. (Plans with zero exist where best-fit has more than zero, +0.41
at 1/4: some packs of like lengths among others of unlike ones. That is zero on paper only.)

Legend: S segments, P packs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.strategies.decreasing import held, plan_decreasing
from packcli.strategies.next_fit import pack_ends
from packcli.strategies.patterns import (
    Packs,
    Pattern,
    count_lengths,
    felt_limit,
    first_of_length,
    packs_to_csr,
    sort_by_length,
    stable_argsort,
)
from packcli.strategies.random import mix, permutation

MUCH_OPEN = 0.15
"""Share of next-fit packs left open from which on documents are laid by best fit."""

FEW_PER_PACK = 6
"""Documents are long when fewer than so many fill a pack on average."""

FILLER_PER_OPEN = 1.05
"""Tokens held back, as a multiple of what next fit leaves open. More is denser, and more alike inside a pack."""

FILLER_SHARE = 0.08
"""Share of segments held back from best fit."""

ROUNDS = 24
"""Best fit sees so many parts of the documents, one after the other."""

LUMPS_PER_PACK = 4
"""Best fit lays short documents in lumps of a fourth of a pack."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """Packs so far: the pack of each segment laid, and what each pack holds."""

    pack_of: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """int64[P]."""
    docs: NDArray[np.int64]
    """int64[P]: segments."""


def shuffle_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
) -> Packs:
    """Random order, with the last of it as filler; the seed decides the order and with it everything."""
    if max_docs:
        max_docs = felt_limit(count_lengths(lengths, capacity), capacity, max_docs)
    shuffled = permutation(len(lengths), mix(seed, 1))
    laid = lengths[shuffled]
    packs = _lay_in_turn(laid, capacity, max_docs) or _lay_best_fit(laid, capacity, max_docs)
    num_laid = len(packs.pack_of)
    filler, pack_of_filler = _fill_up(packs, laid[num_laid:], capacity, max_docs, mix(seed, 2))
    order, pack_offsets = packs_to_csr(np.concatenate((packs.pack_of, pack_of_filler)))
    return Packs(np.concatenate((shuffled[:num_laid], shuffled[num_laid:][filler]))[order], pack_offsets)


def _lay_in_turn(laid: NDArray[np.int32], capacity: int, max_docs: int) -> _Laid | None:
    """Next fit of all but the filler; None where it would leave much open."""
    if laid.sum(dtype=np.int64) * FEW_PER_PACK > len(laid) * capacity:
        return None
    ends = pack_ends(laid, capacity)
    full = max(len(ends) - 1, 0)  # of the last pack nothing can be said: it is part-filled whatever the documents
    open_share = 1.0 - float(laid[: ends[full - 1]].sum(dtype=np.int64)) / (full * capacity) if full else 0.0
    if open_share > MUCH_OPEN:
        return None
    if max_docs:
        ends = pack_ends(laid, capacity, max_docs)
    ends = ends[: int(len(ends) * (1.0 - FILLER_PER_OPEN * open_share))]
    docs = np.diff(ends, prepend=0)
    tokens = np.add.reduceat(laid[: ends[-1]], ends - docs, dtype=np.int64) if len(ends) else docs
    return _Laid(np.repeat(np.arange(len(ends)), docs), tokens, docs)


def _lay_best_fit(laid: NDArray[np.int32], capacity: int, max_docs: int) -> _Laid:
    """Best fit in rounds of all but the filler: in every round a pack that is open before it takes at most one lump."""
    laid = laid[: int(len(laid) * (1.0 - FILLER_SHARE))]
    ends = pack_ends(laid, capacity // LUMPS_PER_PACK, 1 if max_docs else 0)
    docs = np.diff(ends, prepend=0)
    size = np.add.reduceat(laid, ends - docs, dtype=np.int64) if len(ends) else docs
    pack_of = np.empty(len(size), dtype=np.int64)
    room = np.full(len(size), capacity, dtype=np.int64)
    num_docs = np.zeros(len(size), dtype=np.int64)
    open_packs = np.empty(0, dtype=np.int64)
    num_packs, smallest = 0, size.min(initial=capacity)
    edges = [len(size) * part // ROUNDS for part in range(ROUNDS + 1)]
    for first, last in itertools.pairwise(edges):
        found = _tightest(size[first:last], room[open_packs], capacity)
        packs = np.empty(last - first, dtype=np.int64)
        fits = found >= 0
        packs[fits] = open_packs[found[fits]]
        num_new = int((~fits).sum())
        packs[~fits] = np.arange(num_packs, num_packs + num_new)
        open_packs = np.concatenate((open_packs, np.arange(num_packs, num_packs + num_new)))
        num_packs += num_new
        pack_of[first:last] = packs
        room[packs] -= size[first:last]
        num_docs[packs] += docs[first:last]
        is_open = room[open_packs] >= smallest
        if max_docs:
            is_open &= num_docs[open_packs] < max_docs
        open_packs = open_packs[is_open]
    return _Laid(np.repeat(pack_of, docs), capacity - room[:num_packs], num_docs[:num_packs])


def _tightest(items: NDArray[np.int64], rooms: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """For each item the index of its room, or -1: longest first, the tightest room that is left, one item a room.

    Sorted from long to short, rooms are opening brackets and items closing ones, and the tightest room for an
    item is the bracket that it closes: the one before it on the same level. Items 5 3 3 and rooms 6 4 2:

        room 6  item 5  room 4  item 3  item 3  room 2
          (       )       (       )       -       (
    """
    num_rooms = len(rooms)
    key = np.concatenate((rooms, items))
    key = 2 * (capacity - key)  # descending, and at equal values rooms before items
    key[num_rooms:] += 1
    order = stable_argsort(key)
    is_item = order >= num_rooms
    depth = np.cumsum(np.where(is_item, -1, 1))
    lowest = np.minimum(np.minimum.accumulate(depth), 0)
    is_unmatched = np.diff(lowest, prepend=0) < 0
    level = depth - lowest
    level[is_item] += 1
    matched = np.flatnonzero(~is_unmatched)
    matched = matched[stable_argsort(level[matched])]
    closing = np.flatnonzero(is_item[matched])
    found = np.full(len(items), -1, dtype=np.int64)
    found[order[matched[closing]] - num_rooms] = order[matched[closing - 1]]
    return found


def _fill_up(
    packs: _Laid, lengths: NDArray[np.int32], capacity: int, max_docs: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best-fit decreasing of the segments held back, into the packs that are there and new ones.

    Returns:
        (segments in the order of placing, the pack of each), int64[S] both.
    """
    contents = held(packs.docs if max_docs else np.ones_like(packs.docs), packs.tokens, capacity)
    kinds, kind_of, counts = np.unique(contents, return_inverse=True, return_counts=True)
    begun: list[Pattern] = [(count, ((kind, 1),)) for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)]
    histogram = count_lengths(lengths, capacity)
    by_length = sort_by_length(lengths, histogram, seed)
    by_kind = np.argsort(kind_of, kind="stable")
    next_of_length = first_of_length(histogram)
    next_of_kind = dict(zip(kinds.tolist(), (np.cumsum(counts) - counts).tolist(), strict=True))
    segments = np.empty(len(lengths), dtype=np.int64)
    pack_of = np.empty(len(lengths), dtype=np.int64)
    begin, num_packs = 0, len(packs.tokens)
    for count, items in plan_decreasing(histogram, capacity, max_docs, begun):
        kind = items[0][0]
        if kind in next_of_kind:
            first = next_of_kind[kind]
            next_of_kind[kind] = first + count
            here, items = by_kind[first : first + count], items[1:]
        else:
            here = np.arange(num_packs, num_packs + count)
            num_packs += count
        for length, each in items:
            first, size = next_of_length[length], count * each
            next_of_length[length] = first + size
            segments[begin : begin + size] = by_length[first : first + size]
            pack_of[begin : begin + size].reshape(count, each)[:] = here[:, None]
            begin += size
    return segments, pack_of
