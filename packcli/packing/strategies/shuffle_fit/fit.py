"""shuffle-fit: packs in a random order, so that the lengths inside a pack are neither alike nor unlike.

Best-fit decreasing puts long with long: on short documents the lengths of pack mates (the documents of one pack)
correlate by 0.8. Here documents stand in a line in random order, and only the last few percent of the line, a random
sample too, are placed by best-fit decreasing to fill what the others left open (they are the filler):

    in a random order   5 2 | 4 3 | 1 6 | ...     held back   3 1 ...
    filled up           5 2 1 | 4 3 | 1 6 | ...

Short documents are laid into packs one behind the other (next fit). With documents that are long for the capacity
that would leave a sixth of it open and more. So those are laid by best fit, a round at a time; in an order that leans
to longest first, where mates would otherwise be of unlike lengths and where it costs few packs (see `bias`).

Legend: S segments, P packs; in_line: lengths in the order of the line, place: index in it.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.packing.arrays import ranges
from packcli.packing.strategies.best_fit.decreasing import contents_item, plan_decreasing
from packcli.packing.strategies.next_fit import pack_ends
from packcli.packing.strategies.patterns import (
    Packs,
    Pattern,
    binding_limit,
    count_lengths,
    first_of_length,
    packs_to_csr,
    sort_by_length,
    stable_argsort,
)
from packcli.packing.strategies.shuffle_fit.bias import (
    FEWEST,
    GRID,
    PARTS,
    SAMPLE,
    Trial,
    find_lean,
    leaning_order,
    mate_correlation,
)
from packcli.seeds import derive, permutation

MUCH_OPEN = 0.15
"""Documents are laid by best fit where next fit would leave open more than this share."""

FEW_PER_PACK = 6
"""Documents are long when fewer than so many fill a pack on average."""

FILLERS_PER_OPEN = (1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Tokens held back, as a multiple of what next fit leaves open. More is denser, and more alike inside a pack."""

ALIKE = 0.045
"""With next fit, the correlation of lengths of pack mates may be this far from 0."""

FILLER_SHARE = 0.08
"""Share of segments held back from best fit."""

ROUNDS = 24
"""Rounds of best fit: parts of a block that are laid one after the other."""

BLOCK = 1 << 18
"""Documents that best fit plans together, about. More would fit better, and correlate more than the trials tell."""

LUMPS_PER_PACK = 4
"""Best fit lays short documents not one by one but in lumps, neighbours in the line, of up to a fourth of a pack."""


Placed = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(places in the line, in the order in which they were laid, the pack of each), int64[S] both."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """Packs so far: the first segments of the line, and how full the packs are."""

    places: NDArray[np.int64]
    """Places in the line, in the order in which they were laid."""
    pack_of: NDArray[np.int64]
    """int64[len(places)]."""
    tokens: NDArray[np.int64]
    """int64[P]."""
    docs: NDArray[np.int64]
    """int64[P]: segments."""


def shuffle_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
) -> Packs:
    """Random order, with the last of it as filler; the seed decides the order and with it everything.

    With `effort` "fast" no leans are tried, so lengths of pack mates may correlate.
    """
    if max_docs:
        max_docs = binding_limit(count_lengths(lengths, capacity), capacity, max_docs)
    shuffled = permutation(len(lengths), derive(seed, 1))
    in_line = lengths[shuffled]
    lean, filler = 0, FILLERS_PER_OPEN[0]
    tries = effort != "fast" and len(in_line) >= FEWEST
    if tries:
        filler = _find_filler(in_line[:SAMPLE], capacity, max_docs, seed)
    placed = _plan_in_turn(in_line, capacity, max_docs, seed, filler) if filler else None
    if placed is None:
        if tries:
            lean = find_lean(functools.partial(_attempt, *_sample(in_line, capacity), max_docs, seed))
        placed = _plan_blocks(in_line, capacity, max_docs, seed, lean)
    places, pack_of = placed
    order, pack_offsets = packs_to_csr(pack_of)
    return Packs(shuffled[places[order]], pack_offsets, "leaning to longest first" if lean else "")


def _find_filler(in_line: NDArray[np.int32], capacity: int, max_docs: int, seed: int) -> float:
    """The most filler with which next fit keeps correlation under ALIKE, on a sample; 0 where it is under -ALIKE."""
    for filler in FILLERS_PER_OPEN:
        placed = _plan_in_turn(in_line, capacity, max_docs, seed, filler)
        if placed is None:
            break
        places, pack_of = placed
        correlation = mate_correlation(in_line[places], pack_of, capacity)
        if correlation < -ALIKE:
            return 0.0
        if correlation <= ALIKE:
            break
    return filler


def _sample(in_line: NDArray[np.int32], capacity: int) -> tuple[NDArray[np.int32], int]:
    """Segments to try leans on, and their capacity; of many segments only some, with lengths rounded up to GRID."""
    if len(in_line) <= SAMPLE or capacity <= GRID:
        return in_line[:SAMPLE], capacity
    coarse = -(-in_line[:SAMPLE].astype(np.int64) * GRID // capacity)
    return coarse.astype(np.int32), GRID


def _attempt(in_line: NDArray[np.int32], capacity: int, max_docs: int, seed: int, lean: int) -> Trial:
    places, pack_of = _plan_block(in_line, capacity, max_docs, seed, lean)
    return Trial(mate_correlation(in_line[places], pack_of, capacity), int(pack_of.max()) + 1)


def _plan_blocks(in_line: NDArray[np.int32], capacity: int, max_docs: int, seed: int, lean: int) -> Placed:
    """The line in blocks, each planned on its own."""
    num_blocks = max(1, round(len(in_line) / BLOCK))
    edges = [len(in_line) * block // num_blocks for block in range(num_blocks + 1)]
    places, pack_of = np.empty((2, len(in_line)), dtype=np.int64)
    num_packs = 0
    for first, last in itertools.pairwise(edges):
        in_block, pack_in_block = _plan_block(in_line[first:last], capacity, max_docs, seed, lean)
        np.add(in_block, first, out=places[first:last])
        np.add(pack_in_block, num_packs, out=pack_of[first:last])
        num_packs += int(pack_in_block.max(initial=-1)) + 1
    return places, pack_of


def _plan_block(in_line: NDArray[np.int32], capacity: int, max_docs: int, seed: int, lean: int) -> Placed:
    """Best fit of all but the filler, then the filler."""
    laid = in_line[: int(len(in_line) * (1.0 - FILLER_SHARE))]
    packs = _lay_best_fit(leaning_order(laid, capacity, lean), laid, capacity, max_docs, lean)
    return _fill_up(packs, in_line, capacity, max_docs, derive(seed, 2))


def _plan_in_turn(in_line: NDArray[np.int32], capacity: int, max_docs: int, seed: int, filler: float) -> Placed | None:
    """Next fit of all but the filler, then the filler; None where next fit would leave much open."""
    if in_line.sum(dtype=np.int64) * FEW_PER_PACK > len(in_line) * capacity:
        return None
    ends = pack_ends(in_line, capacity)
    full = max(len(ends) - 1, 0)  # without the last pack, which is part-filled whatever the documents
    open_share = 1.0 - float(in_line[: ends[full - 1]].sum(dtype=np.int64)) / (full * capacity) if full else 0.0
    if open_share > MUCH_OPEN:
        return None
    if max_docs:
        ends = pack_ends(in_line, capacity, max_docs)
    ends = ends[: int(len(ends) * (1.0 - filler * open_share))]
    packs = _laid_in_turn(np.arange(ends[-1]) if len(ends) else ends, in_line, ends)
    return _fill_up(packs, in_line, capacity, max_docs, derive(seed, 2))


def _laid_in_turn(places: NDArray[np.int64], in_line: NDArray[np.int32], ends: NDArray[np.int64]) -> _Laid:
    """Next-fit packs, given where each ends."""
    docs = np.diff(ends, prepend=0)
    tokens = np.add.reduceat(in_line[places], ends - docs, dtype=np.int64) if len(ends) else docs
    return _Laid(places, np.repeat(np.arange(len(ends)), docs), tokens, docs)


def _lay_best_fit(
    places: NDArray[np.int64], in_line: NDArray[np.int32], capacity: int, max_docs: int, lean: int
) -> _Laid:
    """Best fit in rounds: in every round, a pack that was open before takes at most one lump."""
    laid = in_line[places]
    # Larger lumps of a leaning order raise the correlation further, where documents are short.
    lump = 0 if max_docs else capacity // LUMPS_PER_PACK + 2 * capacity * lean // (3 * PARTS)
    ends = _lump_ends(laid, lump)
    docs = np.diff(ends, prepend=0)
    size = np.add.reduceat(laid, ends - docs, dtype=np.int64) if len(ends) else docs
    pack_of = np.empty(len(size), dtype=np.int64)
    room = np.full(len(size), capacity, dtype=np.int64)
    num_docs = np.zeros(len(size), dtype=np.int64)
    open_packs = np.empty(0, dtype=np.int64)
    num_packs, smallest = 0, size.min(initial=capacity)
    edges = [len(size) * part // ROUNDS for part in range(ROUNDS + 1)]
    for first, last in itertools.pairwise(edges):
        tightest = _tightest(size[first:last], room[open_packs], capacity)
        packs = np.empty(last - first, dtype=np.int64)
        fits = tightest >= 0
        packs[fits] = open_packs[tightest[fits]]
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
    return _Laid(places, np.repeat(pack_of, docs), capacity - room[:num_packs], num_docs[:num_packs])


def _lump_ends(laid: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Where lumps end: the line is cut at every `size` tokens, and the whole segments between two cuts are a lump.

    A segment that a cut goes through is a lump of its own. Segments 1 1 3 1 1 and a size of 4:

        a b c c|c d e
    """
    if not size:
        return np.arange(1, len(laid) + 1)
    end = np.cumsum(laid, dtype=np.int64)
    cell = (end - 1) // size
    is_cut = (end - laid) // size < cell
    joins = (cell[1:] == cell[:-1]) & ~is_cut[1:] & ~is_cut[:-1]
    return np.flatnonzero(np.append(~joins, True))[: len(laid)] + 1


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
    room_of_item = np.full(len(items), -1, dtype=np.int64)
    room_of_item[order[matched[closing]] - num_rooms] = order[matched[closing - 1]]
    return room_of_item


def _fill_up(packs: _Laid, in_line: NDArray[np.int32], capacity: int, max_docs: int, seed: int) -> Placed:
    """Best-fit decreasing of the segments held back, into the packs so far and new ones."""
    num_laid = len(packs.places)
    lengths = in_line[num_laid:]
    contents = contents_item(packs.docs if max_docs else np.ones_like(packs.docs), packs.tokens, capacity)
    by_kind = stable_argsort(contents)
    sorted_contents = contents[by_kind]
    begins = np.flatnonzero(np.diff(sorted_contents, prepend=-1))
    counts = np.diff(begins, append=len(contents)).tolist()
    kinds = sorted_contents[begins].tolist()
    begun: list[Pattern] = [(count, ((kind, 1),)) for kind, count in zip(kinds, counts, strict=True)]
    histogram = count_lengths(lengths, capacity)
    by_length = sort_by_length(lengths, histogram, seed)
    next_of_length = first_of_length(histogram)
    next_of_kind = dict(zip(kinds, begins.tolist(), strict=True))
    # Packs are numbered with those begun first, sorted by contents. For every item of every pattern: its first pack,
    # its first segment in by_length, how many segments it has, and how many of them a pack.
    num_packs = len(by_kind)
    pack_begins, segment_begins, sizes, eachs = [], [], [], []
    for count, items in plan_decreasing(histogram, capacity, max_docs, begun):
        kind = items[0][0]
        if kind in next_of_kind:
            first_pack = next_of_kind[kind]
            next_of_kind[kind] += count
            items = items[1:]
        else:
            first_pack = num_packs
            num_packs += count
        for length, each in items:
            first = next_of_length[length]
            next_of_length[length] = first + count * each
            pack_begins.append(first_pack)
            segment_begins.append(first)
            sizes.append(count * each)
            eachs.append(each)
    size = np.array(sizes, dtype=np.int64)
    number = ranges(np.zeros_like(size), size)  # of a segment in its item
    segments = by_length[ranges(np.array(segment_begins, dtype=np.int64), size)]
    pack = np.repeat(np.array(pack_begins, dtype=np.int64), size) + number // np.repeat(
        np.array(eachs, dtype=np.int64), size
    )
    pack_of = np.concatenate((by_kind, np.arange(len(by_kind), num_packs)))[pack]
    return np.concatenate((packs.places, segments + num_laid)), np.concatenate((packs.pack_of, pack_of))
